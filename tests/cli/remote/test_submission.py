"""`greentune submit` and `estimate`: a run by its options."""

import json
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from api.figures import format_number
from greentune.client import Client
from greentune.models import Job
from tests.api.conftest import MODEL
from tests.cli.service import CommandRunner

HALF = {"kind": "constant", "rho": 0.5}


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
        *("--validation-dataset", str(rows), "--gpus", "4"),
    )
    assert result.exit_code == 0, result.output
    job = client.job(result.stdout.strip())
    assert result.stderr.count("uploaded rows.jsonl: 2 rows (text 2), dataset_") == 2
    assert job.validation_dataset not in (None, job.dataset)
    assert (job.method, job.zone, job.priority, job.policy["rho"]) == ("full", "FR", 7, 0.5)
    assert job.name == "Tickets, 3rd try"
    assert (job.resources.gpus, job.gpus) == (4, 4)
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
        ("--dataset", "x" * 256, "--dataset: File name too long"),
        ("--validation-dataset", "x" * 256, "--validation-dataset: File name too long"),
        ("--policy", "x" * 256, "--policy: File name too long"),
        ("--dataset", str(wrong), f"--dataset: {wrong}: "),
        ("--zone", "XX", "--zone: "),
        ("--method", "magic", "--method: "),
        ("--deadline", "noon", "--deadline: 'noon' is not a time"),
        ("--deadline", "2020-01-01", "--deadline: "),
        ("--metadata", "team", "--metadata: 'team': expected KEY=VALUE"),
        ("--priority", "1000", "--priority: "),
        ("--gpus", "0", "--gpus: "),
        ("--gpus", "many", "--gpus: "),
        ("--gpus", "9" * 5000, "--gpus: "),
        ("--name", "two\nlines", "--name: holds U+000A"),
        ("--epochs", "0", "--epochs: "),
        ("--batch-size", "0", "--batch-size: "),
        ("--policy", "unheard-of", "--policy: "),
        ("--policy", '{"kind": "constant", "rho": 2}', "--policy: rho: "),
        ("--policy", '{"kind"', "--policy: not JSON"),
        ("--policy", '{"kind": "constant", "rho": NaN}', "--policy: not JSON: NaN is not a finite number"),
        ("--policy", '{"kind": "constant", "rho": 1e999}', "--policy: not JSON: 1e999 is not a finite number"),
        ("--policy", "none.json", "--policy: none.json: there is no such file"),
    ):
        options = {**right, option: value}
        line = greentune.refused("submit", *(part for pair in options.items() for part in pair), code=2)
        assert words in line, line


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
