"""Commands that use a service: their output, effects and exit codes."""

import gzip
import hashlib
import json
import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from api.figures import format_number
from cli.completion import TIMEOUT_SECONDS, complete_job, complete_policy, complete_zone
from cli.errors import ExitCode
from cli.remote.output import format_short_time
from cli.stack.data_folder import advertise_service, discover_service
from cli.stack.embedded import LOOPBACK, find_free_port
from greencore.carbon import Reading
from greentune.client import Client
from greentune.models import Job
from planning.compute_costs import RowCosts
from runtime.settings import Settings
from runtime.site import Site
from store.database import Database
from store.intensity.provider_health import ProviderRepository
from store.intensity.readings import GridRepository
from store.repositories.models import ModelRepository
from store.repositories.workers import WorkerRepository
from store.tables import Artifact
from tests.api.conftest import MODEL, NOW, run_to_success
from tests.cli.service import CommandRunner
from tests.keys import new_key

HALF = {"kind": "constant", "rho": 0.5}


@pytest.fixture
def greentune(url: str, operator_key: str) -> CommandRunner:
    return CommandRunner(url, operator_key)


@pytest.fixture
def job(client: Client, rows: Path) -> Job:
    dataset = client.upload_dataset(rows)
    return client.submit(MODEL, dataset.id, zone="FR", metadata={"team": "speech"})


@pytest.fixture
def grid(database: Database) -> None:
    """Store three days of readings of France, and a forecast of one day, cleanest from 15:00 to 17:00."""

    def hour(offset: int) -> Reading:
        start = NOW + timedelta(hours=offset)
        value = 50.0 if offset in (3, 4) else 300.0 + offset
        return Reading(
            zone="FR", start=start, end=start + timedelta(hours=1), gco2e_per_kwh=value, source="uk", fetched_at=NOW
        )

    with database.session() as session:
        GridRepository(session).put([hour(offset) for offset in range(-72, 1)])
        GridRepository(session).put_forecast("FR", "average", [hour(offset) for offset in range(1, 24)], at=NOW)


@pytest.fixture
def measured(database: Database) -> None:
    """Store the model's measurements, as a prepare worker does, and a training worker."""
    with database.session() as session:
        costs = RowCosts((2e8, 0.0), (6e8, 0.0), {"full": 1.0}).to_json()
        ModelRepository(session).put(MODEL, parameters=10**8, tensors=100, rho_floor=0.35, costs=costs, at=NOW)
        WorkerRepository(session).record_heartbeat("worker_1", site=Site(zone="FR"), device="cpu", at=NOW)


def test_the_columns_of_a_file_are_mapped_and_of_an_upload_are_not(
    greentune: CommandRunner, client: Client, tmp_path: Path
) -> None:
    file = tmp_path / "rows.tsv.gz"
    file.write_bytes(gzip.compress(b"q\ta\n1 + 1 =\t 2\n"))
    columns = ("--column", "prompt=q", "--column", "completion=a")

    uploaded = greentune("datasets", "upload", str(file), *columns)
    assert uploaded.exit_code == 0, uploaded.output
    dataset = client.dataset(uploaded.stdout.strip())
    assert (dataset.format, dataset.compression, dataset.rows) == ("tsv", "gzip", 1)
    assert dataset.columns == {"prompt": "q", "completion": "a"}
    assert greentune("submit", "--model", MODEL, "--dataset", str(file), *columns).exit_code == 0

    config = tmp_path / "validation job.yaml"
    config.write_text(f"model: {MODEL}\ndataset: {dataset.id}\n")
    other = tmp_path / "other.tsv"
    other.write_bytes(b"q\ta\n2 + 2 =\t 4\n")
    beside = ("--validation-dataset", str(other), *columns)
    assert greentune("submit", "--config", str(config), *beside).exit_code == 0
    refused = greentune("submit", "--config", str(config), *columns)
    assert f"--column: {dataset.id} is the id of an upload" in " ".join(refused.stderr.split())

    for options, message in (
        (("--dataset", dataset.id, *columns), f"--column: {dataset.id} is the id of an upload"),
        (("--dataset", str(file), "--column", "prompt"), "--column: 'prompt': expected KEY=NAME"),
        (("--dataset", str(file), "--column", "promt=q"), "--column: 'promt' is no key of a row"),
        (("--dataset", str(file), *columns[:2], *columns[:2]), "--column: prompt is given twice"),
        (("--dataset", str(file), *columns[:2]), f"--dataset: {file}: line 2: completion: is missing"),
    ):
        refused = greentune("submit", "--model", MODEL, *options)
        assert refused.exit_code == ExitCode.USAGE
        assert message in " ".join(refused.stderr.split())


def test_a_file_is_uploaded_and_a_run_submitted_with_every_option(
    greentune: CommandRunner, client: Client, rows: Path
) -> None:
    result = greentune(
        *("submit", "--model", MODEL, "--dataset", str(rows), "--policy", json.dumps(HALF), "--method", "full"),
        *("--zone", "FR", "--deadline", "2026-12-01T12:00:00+01:00", "--priority", "7", "--metadata", "team=speech"),
        *(
            "--name",
            "Tickets, 3rd try",
            "--metadata",
            "note=a=b",
            "--epochs",
            "2",
            "--learning-rate",
            "0.0001",
            "--result",
            "delta",
        ),
        *("--validation-dataset", str(rows)),
    )
    assert result.exit_code == 0, result.output
    job = client.job(result.stdout.strip())
    assert result.stderr.count("uploaded rows.jsonl: 2 rows (text 2), dataset_") == 2
    assert job.validation_dataset not in (None, job.dataset)
    assert (job.method, job.zone, job.priority, job.policy["rho"]) == ("full", "FR", 7, 0.5)
    assert job.name == "Tickets, 3rd try"
    assert job.deadline == datetime(2026, 12, 1, 11, tzinfo=UTC)
    assert job.metadata == {"team": "speech", "note": "a=b"}
    assert job.hyperparameters.items() >= {"epochs": 2, "learning_rate": 1e-4, "result": "delta"}.items()


def test_a_policy_is_a_stored_name_or_a_file_and_a_deadline_counts_from_now(
    greentune: CommandRunner, client: Client, job: Job, tmp_path: Path
) -> None:
    client.put_policy("half", HALF)
    (tmp_path / "own.json").write_text(json.dumps({**HALF, "rho": 0.7}))
    submit = ("submit", "--model", MODEL, "--dataset", job.dataset, "--deadline", "+300d", "--policy")
    by_name = greentune.json(*submit, "half")
    by_file = greentune.json(*submit, str(tmp_path / "own.json"))

    assert (by_name["policy_name"], by_name["policy"]["rho"], by_file["policy"]["rho"]) == ("half", 0.5, 0.7)
    deadline = datetime.fromisoformat(by_name["deadline"])
    assert abs(deadline - datetime.now(UTC) - timedelta(days=300)) < timedelta(minutes=1)


def test_a_watched_submission_ends_with_its_job(
    greentune: CommandRunner, rows: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.remote.watching.POLL_SECONDS", 0.05)

    def cancel() -> None:
        while not (jobs := list(client.jobs())):
            time.sleep(0.05)
        client.cancel(jobs[0].id)

    helper = threading.Thread(target=cancel)
    helper.start()
    result = greentune("submit", "--model", MODEL, "--dataset", str(rows), "--watch")
    helper.join()
    assert result.exit_code == 3, result.output


def test_each_wrong_option_is_named(greentune: CommandRunner, job: Job, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_text('{"words": "?"}\n')
    right = {"--model": MODEL, "--dataset": job.dataset}
    for option, value, words in (
        ("--model", "absent", "--model: "),
        ("--dataset", "dataset_none", "--dataset: "),
        ("--dataset", str(tmp_path / "none.jsonl"), "--dataset: there is no file"),
        ("--dataset", str(tmp_path), "is a folder"),
        ("--dataset", str(wrong), f"--dataset: {wrong}: "),
        ("--zone", "XX", "--zone: "),
        ("--method", "magic", "--method: "),
        ("--deadline", "noon", "--deadline: 'noon' is not a time"),
        ("--deadline", "2020-01-01", "--deadline: "),
        ("--metadata", "team", "--metadata: 'team': expected KEY=VALUE"),
        ("--priority", "1000", "--priority: "),
        ("--name", "two\nlines", "--name: holds U+000A"),
        ("--epochs", "0", "--epochs: "),
        ("--batch-size", "0", "--batch-size: "),
        ("--policy", "unheard-of", "--policy: "),
        ("--policy", '{"kind": "constant", "rho": 2}', "--policy: rho: "),
        ("--policy", '{"kind"', "--policy: not JSON"),
        ("--policy", "none.json", "--policy: none.json: there is no such file"),
    ):
        options = {**right, option: value}
        line = greentune.refused("submit", *(part for pair in options.items() for part in pair), code=2)
        assert words in line, line


def test_jobs_are_listed_with_the_services_figures_and_filtered(
    greentune: CommandRunner, client: Client, job: Job, database: Database, settings: Settings
) -> None:
    run_to_success(database, settings, job.id)
    other = client.submit(MODEL, job.dataset, zone="GB", name="night")
    ended = client.job(job.id)

    [line] = [line for line in greentune.shown("jobs").splitlines() if job.id in line]
    assert "succeeded" in line
    assert "100 %" in line.replace("100.0 %", "100 %")
    assert f"{format_number(ended.emissions_gco2e)} est." in line
    assert [each["id"] for each in greentune.json("jobs")] == [other.id, job.id]
    assert [each["id"] for each in greentune.json("jobs", "--limit", "1")] == [other.id]
    assert [each["id"] for each in greentune.json("jobs", "--status", "succeeded")] == [job.id]
    assert [each["id"] for each in greentune.json("jobs", "--zone", "GB")] == [other.id]
    assert [each["id"] for each in greentune.json("jobs", "--metadata", "team=speech")] == [job.id]
    assert [each["id"] for each in greentune.json("jobs", "--name", "night")] == [other.id]
    assert [each["id"] for each in greentune.json("jobs", "--model", "unknown")] == []
    assert [each["id"] for each in greentune.json("jobs", "--owner", "ops", "--model", MODEL)] == [other.id, job.id]
    assert "night" in greentune.shown("jobs")
    assert "--status: 'done' is not one of validating" in greentune.refused("jobs", "--status", "done", code=2)


def test_actions_apply_to_each_job_and_the_first_refusal_sets_the_exit_code(
    greentune: CommandRunner, client: Client, job: Job
) -> None:
    other = client.submit(MODEL, job.dataset)
    result = greentune("cancel", job.id, "job_none", other.id)
    assert result.exit_code == 4
    assert result.stdout == f"{job.id}: cancelled\n{other.id}: cancelled\n"
    assert "there is no job 'job_none'" in result.stderr
    greentune.refused("pause", job.id, code=5)
    greentune.refused("resume", job.id, code=5)
    assert [each["status"] for each in greentune.json("retry", job.id, other.id)] == ["validating", "validating"]


def test_a_finished_job_is_shown_and_its_result_downloaded(
    greentune: CommandRunner, job: Job, database: Database, settings: Settings, tmp_path: Path
) -> None:
    assert "has no result yet" in greentune.refused("download", job.id, code=1)
    run_to_success(database, settings, job.id)
    with database.session() as session:
        session.get_one(Artifact, (job.id, "model.safetensors")).sha256 = hashlib.sha256(b"weights").hexdigest()

    epochs = greentune.shown("epochs", job.id)
    assert "212 est." in epochs
    assert "0.58" in epochs
    assert greentune.json("epochs", job.id)[0]["rho_asked"] == 0.6
    assert "7 B" in greentune.shown("artifacts", job.id)
    assert {each["name"] for each in greentune.json("artifacts", job.id)} == {"model.safetensors", "lost.json"}
    output = tmp_path / "new" / "folder"
    shown = greentune.shown("download", job.id, "model.safetensors", "--output", str(output))
    assert Path(shown.strip()).read_bytes() == b"weights"
    greentune.refused("download", job.id, "lost.json", "--output", str(output), code=4)
    assert "model.safetensors" in greentune.refused("download", job.id, "none", code=4)
    assert [file.name for file in output.iterdir()] == ["model.safetensors"]


def test_an_estimate_shows_now_beside_the_best_window(
    greentune: CommandRunner, client: Client, job: Job, measured: None, grid: None
) -> None:
    policy = json.dumps({**HALF, "rho": 1.0, "gate": {"mode": "defer", "max_delay_hours": 12}})
    options = ("--model", MODEL, "--dataset", job.dataset, "--zone", "FR", "--policy", policy, "--epochs", "1")
    found = greentune.json("estimate", *options)
    shown = greentune.shown("estimate", *options)

    assert found["now"]["starts_at"].startswith("2026-11-23T12:00")
    for figure in (found["now"]["energy_kwh"], found["best"]["emissions_gco2e"]):
        assert (
            f"{format_number(figure['expected'])} ({format_number(figure['low'])} to {format_number(figure['high'])})"
            in shown
        )
    assert f"saved by the best window: {format_number(found['saving']['gco2e'])} gCO2e" in shown
    assert len(list(client.jobs())) == 1
    assert "--model: " in greentune.refused("estimate", *options[2:], "--model", "none", code=2)


def test_zones_show_the_intensity_in_force_and_the_cleanest_hours(greentune: CommandRunner, grid: None) -> None:
    [line] = [line for line in greentune.shown("zones").splitlines() if line.split()[:1] == ["FR"]]
    assert "300" in line
    assert "measured" in line
    assert "15:00–17:00" in line
    shown = greentune.shown("zones", "FR")
    assert "FR: 300 gCO2e/kWh now, measured, uk (fresh)" in shown
    assert "50 to 323 gCO2e/kWh, from 11-23 13:00 UTC on" in shown
    assert "▁▁" in shown
    assert greentune.json("zones", "FR")["intensity"]["gco2e_per_kwh"] == 300
    assert {each["zone"]["zone"] for each in greentune.json("zones")} >= {"FR", "GB"}
    assert "estimated, static (static)" in greentune.shown("zones", "GB")
    greentune.refused("zones", "XX", code=4)


def test_zones_show_the_error_of_a_failing_source(greentune: CommandRunner, grid: None, database: Database) -> None:
    assert "failed" not in greentune.shown("zones")
    with database.session() as session:
        providers = ProviderRepository(session)
        providers.record_success("FR", "uk", at=NOW - timedelta(hours=2))
        for minutes in (2, 1):
            providers.record_failure("FR", "uk", at=NOW - timedelta(minutes=minutes), error="timed out\x1b[2J")
        providers.record_failure("GB", "static", at=NOW, error="no mean")

    answered = format_short_time(NOW - timedelta(hours=2))
    fault = f"FR: uk has failed 2 times in a row since {answered} UTC: timed out�[2J"
    assert {fault, "GB: static has failed once and has never answered: no mean"} <= set(
        greentune.shown("zones").splitlines()
    )
    assert fault in greentune.shown("zones", "FR").splitlines()
    assert greentune.json("zones", "FR")["provider"]["failures_in_a_row"] == 2


def test_models_workers_and_datasets_are_listed(
    greentune: CommandRunner, client: Client, job: Job, measured: None, rows: Path
) -> None:
    assert "100,000,000" in greentune.shown("models")
    assert MODEL in {each["name"] for each in greentune.json("models")}
    assert "idle" in greentune.shown("workers")
    assert [each["id"] for each in greentune.json("workers")] == ["worker_1"]
    uploaded = greentune.shown("datasets", "upload", str(rows)).strip()
    assert greentune.json("datasets", "upload", str(rows))["rows"] == 2
    assert uploaded in (listed := greentune.shown("datasets", "list"))
    assert "text 2" in listed
    assert len(greentune.json("datasets", "list")) == 3
    other = rows.with_name("other.jsonl")
    other.write_text('{"text": "a", "id": 1}\n{"instruction": "a", "output": "b", "n\\u001b": 1}\n')
    result = greentune("datasets", "upload", str(other))
    assert "2 rows (text 1, instruction 1)" in result.stderr
    assert "not used of its rows: id, n\\x1b" in result.stderr
    assert greentune("datasets", "delete", uploaded).exit_code == 0
    greentune.refused("datasets", "delete", job.dataset, code=5)
    greentune.refused("datasets", "delete", uploaded, code=4)
    assert "FILE: there is no file" in greentune.refused("datasets", "upload", "none.jsonl", code=2)


def test_policies_are_stored_shown_simulated_and_deleted(
    greentune: CommandRunner, grid: None, settings: Settings
) -> None:
    assert greentune.shown("policy", "apply", "half", json.dumps(HALF)) == "half: version 1\n"
    assert greentune.json("policy", "apply", "half", json.dumps(HALF))["version"] == 2
    assert "POLICY: rho: " in greentune.refused("policy", "apply", "half", '{"kind": "constant", "rho": 2}', code=2)
    late = greentune.refused("policy", "apply", "half", json.dumps(HALF), "--if-version", "1", code=5)
    assert "newest version is 2" in late
    greentune.refused("policy", "apply", "half", json.dumps(HALF), "--if-version", "0", code=5)
    guarded = ("policy", "apply", "half", json.dumps(HALF), "--if-version", "2")
    assert greentune.shown(*guarded) == "half: version 3\n"
    assert "NAME: " in greentune.refused("policy", "apply", "A B", json.dumps(HALF), code=2)
    assert "constant" in greentune.shown("policy", "list")
    assert [each["name"] for each in greentune.json("policy", "list")] == ["half"]
    assert greentune.json("policy", "show", "half")["policy"]["rho"] == 0.5
    run = ("--work-hours", "2", "--epochs", "2", "--deadline-hours", "6", "--zone-history", "FR")
    found = greentune.json("policy", "simulate", "half", *run)
    assert (found["basis"]["zone"], found["work_share"]) == ("FR", 0.5)
    assert "saved by less work" in greentune.shown("policy", "simulate", json.dumps(HALF), *run)
    assert "--zone-history: " in greentune.refused("policy", "simulate", "half", *run[:-1], "GB", code=2)
    assert "--work-hours: " in greentune.refused("policy", "simulate", "half", "--work-hours", "0", *run[2:], code=2)
    assert "POLICY: " in greentune.refused("policy", "simulate", "none", *run, code=2)
    assert "--trace: " in greentune.refused("policy", "simulate", "half", *run, "--trace", "x.csv", code=2)
    user = CommandRunner(greentune.url, new_key(settings, "alice", "user"))
    assert "--key (GREENTUNE_KEY): " in user.refused("policy", "delete", "half", code=6)
    assert greentune("policy", "delete", "half").exit_code == 0
    greentune.refused("policy", "show", "half", code=4)


def test_keys_are_created_through_the_service_at_url(greentune: CommandRunner, url: str) -> None:
    made = greentune.json("keys", "create", "--owner", "carol", "--days", "3", "--url", url)
    assert (made["owner"], made["role"], made["key"][:4]) == ("carol", "user", "gtk_")
    assert "carol" in greentune.shown("keys", "list", "--url", url)
    assert made["id"] in {each["id"] for each in greentune.json("keys", "list", "--url", url)}
    assert "--owner: " in greentune.refused("keys", "create", "--owner", " ", "--url", url, code=2)
    assert greentune("keys", "revoke", made["id"], "--url", url).exit_code == 0
    greentune.refused("keys", "revoke", "key_none", "--url", url, code=4)
    assert CommandRunner(url, made["key"]).refused("keys", "list", "--url", url, code=6)


def test_keys_are_listed_as_json_at_the_database(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", settings.database_url)
    monkeypatch.setenv("GREENTUNE_SECRET_KEY", settings.secret)
    greentune = CommandRunner("http://127.0.0.1:1", None)
    made = greentune.json("keys", "create", "--owner", "carol")
    assert made["key"].startswith("gtk_")
    assert [each["id"] for each in greentune.json("keys", "list")] == [made["id"]]


def test_an_unreachable_service_and_an_unknown_key_have_different_errors(url: str) -> None:
    away = CommandRunner(f"http://{LOOPBACK}:{find_free_port(LOOPBACK)}", "gtk_any")
    assert "start `greentune serve`, or name the service with --url" in away.refused("jobs", code=7)
    assert "--key (GREENTUNE_KEY): " in CommandRunner(url, None).refused("jobs", code=6)
    assert "--key (GREENTUNE_KEY): " in CommandRunner(url, "gtk_é").refused("jobs", code=2)
    assert "--url (GREENTUNE_URL): " in CommandRunner("nowhere", None).refused("jobs", code=2)


def test_the_service_of_a_data_folder_is_found_while_it_runs(
    url: str, operator_key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GREENTUNE_DATA_DIR", str(tmp_path))
    with advertise_service(tmp_path, url):
        assert CommandRunner("", operator_key).json("jobs") == []
    assert discover_service(tmp_path) is None
    (tmp_path / "service-url").write_text(f"{2**22 + 1} {url}\n")
    assert discover_service(tmp_path) is None, "it was left behind by a process that is gone"


def test_names_are_completed_where_the_service_answers_and_errors_are_silent(
    greentune: CommandRunner,
    client: Client,
    job: Job,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    client.put_policy("half", HALF)
    monkeypatch.setattr("cli.completion.TIMEOUT_SECONDS", 30.0)
    monkeypatch.setenv("GREENTUNE_URL", greentune.url)
    monkeypatch.setenv("GREENTUNE_KEY", str(greentune.key))
    assert complete_job("job_") == [job.id]
    assert complete_job("x") == []
    assert (complete_policy("h"), complete_zone("F")) == (["half"], ["FR"])
    monkeypatch.setenv("GREENTUNE_URL", f"http://{LOOPBACK}:{find_free_port(LOOPBACK)}")
    assert complete_job("") == []
    monkeypatch.setenv("GREENTUNE_URL", "nowhere")
    capsys.readouterr()
    assert complete_job("") == []
    assert capsys.readouterr() == ("", "")


def test_a_completion_does_not_wait_for_a_service_that_does_not_answer(
    greentune: CommandRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server((LOOPBACK, 0)) as silent:
        monkeypatch.setenv("GREENTUNE_URL", f"http://{LOOPBACK}:{silent.getsockname()[1]}")
        monkeypatch.setenv("GREENTUNE_KEY", str(greentune.key))
        begun = time.monotonic()
        assert complete_job("") == []
        assert TIMEOUT_SECONDS <= time.monotonic() - begun < 10 * TIMEOUT_SECONDS
