"""`greentune watch`: follows a job to its end with the service's figures; the exit code is that of its final status."""

import json
import signal
import threading
import time
from collections.abc import Callable

import pytest

from api.figures import format_number
from greentune.client import Client
from greentune.models import Job
from runtime.settings import Settings
from store.database import Database
from store.lifecycle.status import JobStatus
from store.lifecycle.transitions import transition
from store.repositories.jobs import JobRepository
from tests.api.conftest import MODEL, NOW, run_to_success
from tests.cli.conftest import GreentuneProcess
from tests.cli.service import CommandRunner

ROW = b'{"text": "Leaves are green."}\n'


@pytest.fixture
def job(client: Client, tmp_path_factory: pytest.TempPathFactory) -> Job:
    rows = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    rows.write_bytes(ROW)
    return client.submit(MODEL, client.upload_dataset(rows).id, zone="FR", hyperparameters={"epochs": 1})


@pytest.fixture
def greentune(url: str, operator_key: str, monkeypatch: pytest.MonkeyPatch) -> CommandRunner:
    monkeypatch.setattr("cli.remote.watching.POLL_SECONDS", 0.05)
    return CommandRunner(url, operator_key)


@pytest.fixture
def ends(database: Database, job: Job) -> Callable[..., None]:
    """Return a function that moves the job through statuses, for a reason."""

    def ends(*statuses: JobStatus, reason: str) -> None:
        for status in statuses:
            with database.session() as session:
                row = JobRepository(session).lock(job.id)
                assert row is not None
                transition(session, row, status, at=NOW, reason=reason)

    return ends


def test_a_job_that_succeeds_is_followed_to_its_end_with_the_services_figures(
    greentune: CommandRunner, client: Client, job: Job, database: Database, settings: Settings
) -> None:
    def run() -> None:
        time.sleep(0.4)
        run_to_success(database, settings, job.id)

    worker = threading.Thread(target=run)
    worker.start()
    lines = greentune.shown("watch", job.id).splitlines()
    worker.join()

    ended = client.job(job.id)
    assert lines[0].endswith("job.submitted")
    assert any(line.startswith("validating  done 0 %") or line.startswith("validating  done 0.0 %") for line in lines)
    assert any("job.succeeded" in line for line in lines)
    assert "state: succeeded" in lines
    for name, figure in (
        ("ρ", f"{format_number(ended.rho)}"),
        ("loss", f"{format_number(ended.loss)}"),
        ("energy", f"{format_number(ended.energy_kwh)} kWh, estimated"),
        ("emissions", f"{format_number(ended.emissions_gco2e)} gCO2e, provisional, from estimated intensities"),
        ("intensity", "212 gCO2e/kWh, estimated, trace (synthetic), of epoch 1"),
    ):
        assert f"{name}: {figure}" in lines


def test_each_change_is_a_line_of_json_and_the_last_is_the_job(
    greentune: CommandRunner, client: Client, job: Job, database: Database, settings: Settings
) -> None:
    run_to_success(database, settings, job.id)
    *_, last = greentune.shown("watch", job.id, "--json").splitlines()
    assert json.loads(last) == client.job(job.id).model_dump(mode="json")


def test_a_terminal_shows_a_live_display(
    greentune: CommandRunner, job: Job, database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_to_success(database, settings, job.id)
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    shown = greentune.shown("watch", job.id)
    assert "━" in shown
    assert "\x1b[" in shown
    assert "job.succeeded" in shown


def test_a_job_that_fails_ends_the_command_with_its_reason(
    greentune: CommandRunner, job: Job, ends: Callable[..., None]
) -> None:
    ends(JobStatus.FAILED, reason="line 3 has no text")
    result = greentune("watch", job.id)
    assert result.exit_code == 1
    assert result.stderr == f"greentune: {job.id} has failed: line 3 has no text\n"


def test_a_cancelled_job_has_its_own_exit_code(greentune: CommandRunner, job: Job, ends: Callable[..., None]) -> None:
    ends(JobStatus.CANCELLED, reason="no longer needed")
    result = greentune("watch", job.id)
    assert (result.exit_code, result.stderr) == (3, f"greentune: {job.id} was cancelled: no longer needed\n")


def test_ctrl_c_leaves_the_job_running(url: str, operator_key: str, job: Job, client: Client) -> None:
    command = GreentuneProcess("watch", job.id, environment={"GREENTUNE_URL": url, "GREENTUNE_KEY": operator_key})
    try:
        command.wait_for("validating")
        assert command.end(signal.SIGINT) == 130
        assert f"{job.id} continues: `greentune watch {job.id}` shows it again" in command.output
        assert "Traceback" not in command.output
    finally:
        command.close()
    assert client.job(job.id).status == "validating"


def test_events_are_followed_to_the_jobs_end(
    greentune: CommandRunner, client: Client, job: Job, database: Database, settings: Settings
) -> None:
    run_to_success(database, settings, job.id)
    lines = greentune.shown("events", job.id, "--follow", "--json").splitlines()
    assert [json.loads(line)["type"] for line in lines] == [event.type for event in client.events(job.id)][::-1]
    assert greentune.json("events", job.id) == [json.loads(line) for line in lines]
    assert greentune.shown("events", job.id, "--limit", "1").split()[2] == "job.succeeded"
