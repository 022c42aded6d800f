"""Files of settings: read, overridden by options, and written from a job."""

import json
from pathlib import Path
from typing import Any

import pytest

from api.jobs.request import JobRequest
from cli.errors import SettingError
from cli.job_file import KEYS, MAX_BYTES, JobFile, read_constant_rho, read_gpus, read_job_file, to_job_body
from cli.yaml_text import format_yaml
from greencore.clock import utc_now
from greencore.settings.hyperparameters import Hyperparameters
from greentune.client import Client
from greentune.models import Job
from store.database import Database
from store.lifecycle.status import JobStatus
from store.lifecycle.transitions import transition
from store.repositories.jobs import JobRepository
from tests.api.conftest import MODEL, NOW
from tests.cli.service import CommandRunner

HALF: dict[str, Any] = {"kind": "constant", "rho": 0.5}
BODY_FIELDS = ("name", "model", "dataset", "validation_dataset", "method", "policy", "policy_name", "zone_requested",
               "deadline", "priority", "resources", "hyperparameters", "metadata")  # fmt: skip


@pytest.fixture
def greentune(url: str, operator_key: str) -> CommandRunner:
    return CommandRunner(url, operator_key)


@pytest.fixture
def job(client: Client, rows: Path) -> Job:
    return client.submit(MODEL, client.upload_dataset(rows).id, zone="FR")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "job.yaml"


def rows_of_another_text(file: Path) -> Path:
    rows = file.with_name("other.jsonl")
    rows.write_text('{"text": "Ink is blue."}\n')
    return rows


def body_of(job: Job) -> dict[str, Any]:
    return {name: getattr(job, name) for name in BODY_FIELDS}


def test_the_keys_are_those_of_a_submission() -> None:
    assert set(KEYS) == {*JobRequest.model_fields, "columns"}  # of the files that are uploaded for it


def test_a_file_is_submitted_and_options_replace_what_it_holds(
    greentune: CommandRunner, client: Client, rows: Path, file: Path
) -> None:
    file.write_text(
        format_yaml(
            {
                "name": "Tickets",
                "model": MODEL,
                "dataset": str(rows),
                "method": "lora",
                "policy": HALF,
                "zone": "FR",
                "deadline": "+300d",
                "hyperparameters": {"epochs": 2, "seed": 7, "lora": {"rank": 4, "targets": ["q_proj", "v_proj"]}},
                "metadata": {"team": "speech", "run": "1"},
            }
        )
    )
    plain = greentune.json("submit", "--config", str(file))
    changed = greentune.json(
        *("submit", "--config", str(file), "--epochs", "5", "--lora-rank", "16", "--metadata", "run=2", "--zone", "GB")
    )

    assert (plain["name"], plain["method"], plain["zone"], plain["policy"]["rho"]) == ("Tickets", "lora", "FR", 0.5)
    assert plain["hyperparameters"]["lora"]["targets"] == ["q_proj", "v_proj"]
    assert (changed["zone"], changed["metadata"]) == ("GB", {"team": "speech", "run": "2"})
    expected = {**plain["hyperparameters"], "epochs": 5}
    expected["lora"] = {**expected["lora"], "rank": 16}
    assert changed["hyperparameters"] == expected


def test_a_job_written_as_a_file_is_submitted_again_as_it_was(
    greentune: CommandRunner, client: Client, job: Job, file: Path
) -> None:
    client.put_policy("half", HALF)
    other = client.upload_dataset(rows_of_another_text(file)).id
    cases: list[dict[str, Any]] = [
        {},
        {"policy": "half", "zone": "GB", "priority": -3, "metadata": {"NO": "1e-4", "a b": "x: y\n# z"}},
        {
            "name": "Wörter: 訓練 🌱",
            "hyperparameters": {"learning_rate": 1e-6, "sample_prompt": "a\nb: c\t", "seed": 1},
        },
        {"method": "lora", "hyperparameters": {"lora": {"rank": 16, "targets": "all-linear"}, "packing": "auto"}},
        {"validation_dataset": other, "hyperparameters": {"max_steps": 50, "scheduler": "cosine", "warmup_steps": 5}},
        {
            "method": "greentrainer",
            "hyperparameters": {
                "adaptive": {"never_train": ["*.embed_tokens.*"], "charge_probe": True},
                "packing": True,
            },
        },
        {"hyperparameters": {"epochs": 2, "lora": {"rank": 4}}, "resources": {"gpus": 4}},
        {"resources": {"gpus": "auto"}},
    ]
    for options in cases:
        first = client.submit(MODEL, job.dataset, **options)
        text = greentune.shown("jobs", "show", first.id, "--as-config")
        file.write_text(text)
        again = client.job(greentune.json("submit", "--config", str(file))["id"])
        assert again.id != first.id
        assert body_of(again) == body_of(first), options
        assert greentune.shown("jobs", "show", again.id, "--as-config") == text
        # As JSON, too.
        file.write_text(json.dumps(greentune.json("jobs", "show", first.id, "--as-config")))
        assert body_of(client.job(greentune.json("submit", "--config", str(file))["id"])) == body_of(first)


def test_a_job_with_a_chosen_method_is_written_as_it_was_asked_for(
    greentune: CommandRunner, client: Client, job: Job, database: Database
) -> None:
    given = {"epochs": 2, "lora": {"rank": 4}}
    first = client.submit(MODEL, job.dataset, method="auto", hyperparameters=given)
    with database.session() as session:
        jobs = JobRepository(session)
        locked = jobs.lock(first.id)
        assert locked is not None
        chosen = Hyperparameters(max_steps=7, epochs=None).model_dump(mode="json")
        jobs.set_method(locked, "full", hyperparameters=chosen, reason="it learned most", at=utc_now())
    shown = " ".join(greentune.shown("jobs", "show", first.id).split())
    assert "method full, for auto" in shown
    assert "reason of the method it learned most" in shown
    written = greentune.json("jobs", "show", first.id, "--as-config")
    assert (written["method"], written["hyperparameters"]) == ("auto", given)


def test_a_files_columns_are_those_of_the_rows_that_are_uploaded_for_it(
    greentune: CommandRunner, client: Client, file: Path
) -> None:
    rows, other = file.with_name("rows.csv"), file.with_name("other.csv")
    rows.write_text("q,a\n1 + 1 =,2\n")
    other.write_text("question,answer\n1 + 2 =,3\n")
    body = {"model": MODEL, "dataset": str(rows), "columns": {"prompt": "q", "completion": "a"}}
    file.write_text(format_yaml(body))
    submit = ("submit", "--config", str(file))

    first = client.job(greentune.json(*submit)["id"])
    assert client.dataset(first.dataset).columns == body["columns"]
    # An option replaces the file's dataset, and options its columns as a whole.
    assert greentune.json(*submit, "--dataset", first.dataset)["dataset"] == first.dataset
    options = ("--dataset", str(other), "--column", "prompt=question", "--column", "completion=answer")
    mapped = client.dataset(greentune.json(*submit, *options)["dataset"]).columns
    assert mapped == {"prompt": "question", "completion": "answer"}

    text = greentune.shown("jobs", "show", first.id, "--as-config")
    assert "columns" not in text
    file.write_text(text)
    assert body_of(client.job(greentune.json(*submit)["id"])) == body_of(first)

    for key, value, message in (
        ("columns", {"promt": "q"}, "columns: 'promt' is no key of a row"),
        ("columns", {"prompt": 1}, "columns: prompt: expected the name of a column"),
        ("columns", "prompt=q", "columns: expected keys with values"),
        ("columns", {"prompt": "q", "text": "a"}, "columns: prompt, text are not keys of one form of row"),
        ("dataset", first.dataset, f"columns: {first.dataset} is the id of an upload, whose columns were mapped then"),
    ):
        file.write_text(format_yaml({**body, key: value}))
        assert f"{file}: {message}" in greentune.refused(*submit, code=2)


def test_the_result_of_a_job_is_named_where_it_was_trained_further(job: Job) -> None:
    further = job.model_copy(update={"base_job": "job_1"})
    assert (to_job_body(job, stored_policy=None)["model"], to_job_body(further, stored_policy=None)["model"]) == (
        MODEL,
        "job_1",
    )


def test_a_policy_that_has_changed_since_is_written_out(greentune: CommandRunner, client: Client, job: Job) -> None:
    client.put_policy("half", HALF)
    named = client.submit(MODEL, job.dataset, policy="half")
    assert greentune.json("jobs", "show", named.id, "--as-config")["policy"] == "half"
    client.put_policy("half", {**HALF, "rho": 0.9})
    assert greentune.json("jobs", "show", named.id, "--as-config")["policy"]["rho"] == 0.5


def test_a_job_is_shown_with_its_request_and_its_figures(
    greentune: CommandRunner, client: Client, job: Job, database: Database, file: Path
) -> None:
    other = client.upload_dataset(rows_of_another_text(file)).id
    named = client.submit(MODEL, job.dataset, name="Tickets", validation_dataset=other, method="lora")
    with database.session() as session:
        row = JobRepository(session).lock(named.id)
        assert row is not None
        transition(session, row, JobStatus.FAILED, at=NOW, reason="'x' matches no module")
    shown = [line.split(maxsplit=1) for line in greentune.shown("jobs", "show", named.id).splitlines()[1:]]
    lines = {line[0]: line[1].strip() for line in shown}
    assert (lines["name"], lines["model"], lines["method"]) == ("Tickets", MODEL, "lora")
    assert lines["validation"] == f"dataset  {other}"
    assert lines["state"] == "failed: 'x' matches no module"
    assert "validating" in greentune.shown("jobs", "show", job.id)
    assert greentune.json("jobs", "show", job.id)["id"] == job.id
    greentune.refused("jobs", "show", "job_none", code=4)
    assert "--status: belongs after show" in greentune.refused("jobs", "--status", "queued", "show", job.id, code=2)
    assert "--json: belongs after show" in greentune.refused("jobs", "--json", "show", job.id, code=2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modell: m", "there is no 'modell': expected model, dataset"),
        ("hyperparameters: {epoch: 1}", "hyperparameters: there is no 'epoch': expected epochs"),
        ("hyperparameters: {lora: {rnk: 1}}", "hyperparameters.lora: there is no 'rnk': expected rank"),
        ("hyperparameters: {lora: 3}", "hyperparameters.lora: expected keys with values"),
        ("hyperparameters: 3", "hyperparameters: expected keys with values"),
        ("model: [m]", "model: expected a text"),
        ("- model", "expected keys such as model"),
        ("model: [", "line 1: "),
        ("", "expected keys such as model"),
        (f"name: {'x' * MAX_BYTES}", "more than 1,048,576 bytes"),
    ],
)
def test_a_fault_names_the_file_and_the_key(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    with pytest.raises(SettingError) as caught:
        read_job_file(file)
    assert str(file) in str(caught.value)
    assert message in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path, message in ((tmp_path / "none.yaml", "No such file"), (tmp_path, "directory")):
        with pytest.raises(SettingError, match=f"--config: .*{message}"):
            read_job_file(path)
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9")
    with pytest.raises(SettingError, match="not UTF-8 at byte 9"):
        read_job_file(tmp_path / "latin.yaml")


def test_what_the_service_refuses_is_named_by_the_key_or_the_option_that_replaced_it(
    greentune: CommandRunner, job: Job, file: Path
) -> None:
    file.write_text(f"model: {MODEL}\ndataset: {job.dataset}\nzone: XX\nhyperparameters: {{epochs: 0, seed: -1}}\n")
    line = greentune.refused("submit", "--config", str(file), code=2)
    assert f"{file}: zone: there is no zone 'XX'" in greentune.refused(
        "submit", "--config", str(file), "--epochs", "1", "--seed", "1", code=2
    )
    assert f"{file}: hyperparameters.epochs: " in line
    assert "--epochs: " in greentune.refused("submit", "--config", str(file), "--epochs", "-1", code=2)
    file.write_text(f"dataset: {job.dataset}\n")
    for command in ("submit", "estimate", "train"):
        line = greentune.refused(command, "--config", str(file), code=2)
        assert f"--model: missing: expected as an option, or in {file}" in line
        line = greentune.refused(command, "--model", MODEL, code=2)
        assert "--dataset: missing: expected as an option, or in a file of --config" in line
    file.write_text(f"model: {MODEL}\ndataset: none.jsonl\n")
    assert f"{file}: dataset: there is no file" in greentune.refused("estimate", "--config", str(file), code=2)
    file.write_text(f"model: {MODEL}\ndataset: {job.dataset}\ndeadline: noon\n")
    assert f"{file}: deadline: 'noon' is not a time" in greentune.refused("submit", "--config", str(file), code=2)


def test_values_within_maps_are_replaced_one_by_one_and_a_policy_as_a_whole() -> None:
    file = JobFile(
        Path("f"), {"policy": {"kind": "constant", "rho": 1}, "metadata": {"a": "1", "b": "2"}, "zone": "FR"}
    )
    given = {"policy": {"kind": "linear"}, "metadata": {"b": "3"}, "zone": None}
    assert file.merge(given) == {"policy": {"kind": "linear"}, "metadata": {"a": "1", "b": "3"}, "zone": "FR"}


@pytest.mark.parametrize(
    ("held", "given", "merged"),
    [
        ({"epochs": 3, "seed": 1}, {"max_steps": 50}, {"max_steps": 50, "seed": 1}),
        ({"epochs": None, "max_steps": 50}, {"epochs": 2}, {"epochs": 2}),
        ({"warmup_steps": 5}, {"warmup_ratio": 0}, {"warmup_ratio": 0}),
        ({"warmup_ratio": 0.1}, {"warmup_steps": 5}, {"warmup_steps": 5}),
        ({"epochs": 3}, {"epochs": 2, "max_steps": 50}, {"epochs": 2, "max_steps": 50}),
        ({"epochs": 3, "max_steps": 50}, {"seed": 1}, {"epochs": 3, "max_steps": 50, "seed": 1}),
    ],
)
def test_an_option_replaces_the_setting_that_it_excludes(
    held: dict[str, Any], given: dict[str, Any], merged: dict[str, Any]
) -> None:
    file = JobFile(Path("f"), {"hyperparameters": held})
    before = json.dumps(file.body)
    assert file.merge({"hyperparameters": given}) == {"hyperparameters": merged}
    assert json.dumps(file.body) == before


def test_a_validation_dataset_and_a_share_of_the_rows_replace_each_other() -> None:
    share = JobFile(Path("f"), {"hyperparameters": {"eval_share": 0.1}})
    assert share.merge({"validation_dataset": "v"}) == {"hyperparameters": {}, "validation_dataset": "v"}
    rows = JobFile(Path("f"), {"validation_dataset": "v"})
    assert rows.merge({"hyperparameters": {"eval_share": 0.1}}) == {"hyperparameters": {"eval_share": 0.1}}
    none = {"hyperparameters": {"eval_share": 0}}
    assert rows.merge(none) == {"validation_dataset": "v", **none}


def test_a_job_written_as_a_file_is_submitted_with_the_other_of_a_pair(
    greentune: CommandRunner, client: Client, job: Job, file: Path
) -> None:
    file.write_text(greentune.shown("jobs", "show", job.id, "--as-config"))
    options = ("--max-steps", "50", "--validation-dataset", client.upload_dataset(rows_of_another_text(file)).id)
    changed = greentune.json("submit", "--config", str(file), *options)
    assert (changed["hyperparameters"]["max_steps"], changed["validation_dataset"]) == (50, options[-1])
    file.write_text(greentune.shown("jobs", "show", changed["id"], "--as-config"))
    again = greentune.json("submit", "--config", str(file), "--epochs", "2", "--eval-share", "0.2")
    assert again["hyperparameters"].items() >= {"epochs": 2, "max_steps": None, "eval_share": 0.2}.items()
    assert again["validation_dataset"] is None


def test_the_gpus_of_a_file_are_those_of_a_run_without_a_service() -> None:
    path = Path("job.yaml")
    assert read_gpus(JobFile()) == 1
    assert read_gpus(JobFile(path, {"resources": {"gpus": 4}})) == 4
    for given in ("auto", True, "4"):
        with pytest.raises(SettingError, match=r"job\.yaml: resources\.gpus: "):
            read_gpus(JobFile(path, {"resources": {"gpus": given}}))


def test_only_a_constant_policy_has_a_rho_for_a_run_without_a_service() -> None:
    assert read_constant_rho(JobFile()) == 0.6
    assert read_constant_rho(JobFile(Path("f"), {"policy": {"kind": "constant", "rho": 1}})) == 1.0
    for policy in ("half", {"kind": "linear"}, {"kind": "constant", "rho": "x"}):
        with pytest.raises(SettingError, match="f: policy: only a constant policy"):
            read_constant_rho(JobFile(Path("f"), {"policy": policy}))
