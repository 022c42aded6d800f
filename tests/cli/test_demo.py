"""The demonstration's data, job view and report; `make run` runs all of it."""

import io
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from rich.console import Console

import cli.demo
from api.main import create_app
from cli.demo.follow import follow
from cli.demo.report import show_result
from cli.demo.run import HYPERPARAMETERS, MODEL, POLICY, SAMPLE_PROMPT, _issue_temporary_key, _open_demo_client
from cli.errors import CommandError, ExitCode
from cli.stack.embedded import LOOPBACK
from cli.stack.service_stack import Stack
from greencore.carbon import open_source
from greencore.dataset import PromptRow, load_rows
from greencore.host_network import find_free_port
from greencore.policy import PolicyContext, decide_rho, parse_policy
from greencore.policy.decision import RhoDecision
from greencore.settings.hyperparameters import Hyperparameters
from greentune.client import Client
from greentune.models import Artifact, Epoch, Job
from runtime.settings import Settings
from store.database import Database
from store.lifecycle.leases import Lease, claim
from store.lifecycle.progress import EpochMeasurement, finish_epoch, report_step, start_epoch, succeed
from store.lifecycle.status import JobStatus
from store.lifecycle.transitions import transition
from store.repositories.jobs import JobRepository
from tests.api.conftest import NOW, run_to_success
from tests.keys import bearer
from tests.server import run_server

HERE = Path(cli.demo.__file__).parent


def test_the_rows_have_one_format_and_do_not_contain_the_sample() -> None:
    rows = load_rows(HERE / "dataset.jsonl")
    assert len(rows) == 40
    for row in rows:
        assert isinstance(row, PromptRow)
        assert row.prompt.startswith("Report: ")
        assert row.prompt.endswith("\nStatus:")
        level, action = row.completion.split("]")[0], row.completion.split(": ")[1]
        assert (level, action) in {(" [GREEN", "run now"), (" [AMBER", "slow down"), (" [RED", "wait")}
        assert row.prompt != SAMPLE_PROMPT
    assert len({row.prompt for row in rows if isinstance(row, PromptRow)}) == 40


def test_the_day_is_labelled_synthetic_and_covers_every_rho_of_the_policy() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    day = open_source(f"trace:{HERE / 'synthetic-day.csv'}?anchor=2026-01-01T00:00:00Z", "X", clock=lambda: start)
    readings = list(day.history(start, start.replace(day=2)))
    assert len(readings) == 24
    assert {reading.source for reading in readings} == {"trace (synthetic)"}
    policy = parse_policy(POLICY)
    asked = [decide_rho(policy, PolicyContext(now=reading.start, reading=reading)).rho for reading in readings]
    assert set(asked) == {0.5, 0.7, 1.0}
    # So that a run of a few hours of this day never sees one ρ alone.
    assert max(len(run) for run in "".join({0.5: "a", 0.7: "b", 1.0: "c"}[rho] for rho in asked * 2).split("b")) <= 4


def test_the_hyperparameters_are_valid() -> None:
    Hyperparameters.model_validate(HYPERPARAMETERS)


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), soft_wrap=True, highlight=False, markup=False, width=200)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture
def client(settings: Settings, operator_key: str) -> Iterator[Client]:
    with run_server(create_app(settings, clock=lambda: NOW)) as url, Client(url, operator_key) as client:
        yield client


@pytest.fixture
def job(client: Client) -> Job:
    dataset = client.upload_dataset(HERE / "dataset.jsonl")
    return client.submit(MODEL, dataset.id, policy=POLICY, zone="FR", hyperparameters={"epochs": 2})


class JobWriter:
    """Writes of a scheduler and a worker about a job, step by step."""

    def __init__(self, database: Database, job_id: str) -> None:
        self._database, self._job_id = database, job_id
        self._lease: Lease | None = None

    @property
    def lease(self) -> Lease:
        assert self._lease is not None, "a worker has claimed the job"
        return self._lease

    def move_to(self, to: JobStatus, *, reason: str | None = None) -> None:
        with self._database.session() as session:
            job = JobRepository(session).lock(self._job_id)
            assert job is not None
            transition(session, job, to, at=NOW, reason=reason)

    def claim(self) -> None:
        with self._database.session() as session:
            self._lease = claim(session, self._job_id, worker_id="w", device="cpu", at=NOW, lease_seconds=60)

    def train_epoch(self, number: int, rho: float, reason: str) -> None:
        decision = RhoDecision(rho, reason, 120.0, "trace (synthetic)", "fresh", 60.0, estimated=True)
        with self._database.session() as session:
            start_epoch(session, self.lease, number, decision, at=NOW)
            report_step(session, self.lease, steps=20, steps_done=10 * number, loss=1.5)
            finish_epoch(session, self.lease, number, at=NOW, measured=EpochMeasurement(), utility=None)

    def succeed(self) -> None:
        with self._database.session() as session:
            succeed(session, self.lease, at=NOW, artifacts=[], evaluation={})

    def fail(self, detail: str) -> None:
        with self._database.session() as session:
            job = JobRepository(session).lock(self._job_id)
            assert job is not None
            JobRepository(session).fail(job, at=NOW, error={"title": "no", "detail": detail})


@pytest.fixture
def work(database: Database, job: Job) -> JobWriter:
    return JobWriter(database, job.id)


def step_by_step(steps: Sequence[Callable[[], None]]) -> Callable[[], None]:
    """Return a function that performs the next step at each call."""
    left = iter(steps)
    return lambda: next(left)()


def test_following_shows_each_change_once_where_there_is_no_terminal(
    console: Console, client: Client, job: Job, work: JobWriter
) -> None:
    pause = step_by_step(
        [
            lambda: work.move_to(JobStatus.QUEUED),
            work.claim,
            lambda: work.train_epoch(1, 1.0, "120 gCO2e/kWh"),
            lambda: None,
            lambda: work.train_epoch(2, 0.5, "350 gCO2e/kWh"),
            work.succeed,
        ]
    )
    ended = follow(console, client, job.id, pause=pause)
    assert ended == client.job(job.id)
    assert shown(console).splitlines() == [
        "  validating: preparing the model and the rows",
        "  queued: waiting for the worker",
        "  running: training",
        "  epoch 1/2: ρ = 1.00, 120 gCO2e/kWh",
        "  epoch 2/2: ρ = 0.50, 350 gCO2e/kWh",
        "  succeeded",
    ]


def test_a_failed_job_fails_the_demonstration_with_its_reason(
    console: Console, client: Client, job: Job, work: JobWriter
) -> None:
    work.fail("dataset: line 3: not JSON")
    with pytest.raises(CommandError, match=f"^{job.id} has failed: dataset: line 3: not JSON$"):
        follow(console, client, job.id, pause=lambda: None)


def test_a_cancelled_job_ends_the_demonstration_with_its_own_exit_code(
    console: Console, client: Client, job: Job
) -> None:
    def cancel() -> None:
        client.cancel(job.id)

    with pytest.raises(CommandError, match=f"^{job.id} was cancelled") as cancelled:
        follow(console, client, job.id, pause=cancel)
    assert cancelled.value.exit_code == ExitCode.CANCELLED


def test_a_job_without_progress_fails_after_the_stall_timeout(
    console: Console, client: Client, job: Job, work: JobWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.demo.follow.STALL_TIMEOUT_SECONDS", 0.0)
    work.move_to(JobStatus.QUEUED)
    with pytest.raises(CommandError, match=f"{job.id} is queued, and nothing has happened"):
        follow(console, client, job.id, pause=lambda: None)


@pytest.fixture
def done(client: Client, job: Job, database: Database, settings: Settings) -> tuple[Job, list[Epoch], list[Artifact]]:
    """Return a succeeded job with two epochs, the second of which was not metered, and its artifacts."""
    run_to_success(database, settings, job.id)
    job, [first] = client.job(job.id), client.epochs(job.id)
    assert first.energy is not None
    assert job.emissions_basis is not None
    costs = {"flops": 1e12, "full_flops": 1e12, "probe_flops": 5e10}
    energy = first.energy.model_copy(update={"total_kwh": 0.001})
    epochs = [
        first.model_copy(update={**costs, "energy": energy, "emissions_gco2e": 0.12}),
        first.model_copy(update={**costs, "number": 2, "flops": 5e11, "energy": None, "emissions_gco2e": None}),
    ]
    rouge = {
        "before": {"rouge1": 1, "rouge2": 0, "rougeL": 1},
        "after": {"rouge1": 90, "rouge2": 80, "rougeL": 90},
    }
    sample = {"prompt": "Report: x\nStatus:", "before": "two\nlines", "after": " [GREEN] x"}
    methods = {"energy_methods": {"cpu": ["RAPL"], "ram": ["estimate"]}}
    figures = {
        "energy_kwh": 0.0015,
        "emissions_gco2e": 0.2,
        "emissions_basis": job.emissions_basis.model_copy(update=methods),
        "evaluation": {"rows": 4, "rouge": rouge, "sample": sample},
    }
    return job.model_copy(update=figures), epochs, client.artifacts(job.id)


def test_the_report_shows_costs_methods_and_what_was_learned(
    console: Console, done: tuple[Job, list[Epoch], list[Artifact]], tmp_path: Path
) -> None:
    job, epochs, artifacts = done
    show_result(console, job, epochs, artifacts, tmp_path)
    text = shown(console)
    assert "0.001500" in text  # the whole job
    assert "0.000500" in text  # outside of the epochs
    assert "75.0%" in text
    assert "cpu: RAPL, ram: estimate" in text
    assert "On 4 rows held back from training: ROUGE-1 1.0 → 90.0" in text
    assert "two ⏎ lines" in text
    assert "[GREEN] x" in text
    assert "model.safetensors (7 bytes)" in text
    assert f'from_pretrained("{tmp_path}")' in text
    assert f"/jobs/{job.id}/artifacts/model.safetensors" in text
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if line[:1] == "│"]
    assert [row[-2:] for row in rows if row[0] == "2"] == [["–", "–"]]


def stack_on(settings: Settings, url: str) -> Stack:
    """Return a stack that is not started, with the address of the server at `url`."""
    port = int(url.rsplit(":", 1)[1])
    return Stack(settings.model_copy(update={"host": LOOPBACK, "port": port}), print_line=print)


def test_a_problem_is_reported_with_its_fields_and_without_options(client: Client, settings: Settings) -> None:
    message = r"^.+; model: .+; dataset: .+$"
    with (
        pytest.raises(CommandError, match=message) as refused,
        _open_demo_client(stack_on(settings, client.url)) as own,
    ):
        own.submit("no-such-model", "no-such-dataset")
    assert "--" not in str(refused.value)
    assert refused.value.exit_code == ExitCode.FAILED


def test_an_unreachable_service_is_reported(settings: Settings) -> None:
    nowhere = f"http://{LOOPBACK}:{find_free_port(LOOPBACK)}"
    message = f"^GET /jobs/x: the service at {re.escape(nowhere)} does not answer"
    with pytest.raises(CommandError, match=message) as away, _open_demo_client(stack_on(settings, nowhere)) as own:
        own.job("x")
    assert "--url" not in str(away.value)


def test_a_proxy_of_the_environment_is_not_used(
    client: Client, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://{LOOPBACK}:{find_free_port(LOOPBACK)}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with _open_demo_client(stack_on(settings, client.url)) as own:
        assert own.models()


def test_the_key_has_the_role_user_and_is_revoked_afterwards(settings: Settings) -> None:
    with TestClient(create_app(settings)) as client, _issue_temporary_key(Stack(settings, print_line=print)) as key:
        assert client.get("/jobs", headers=bearer(key)).status_code == 200
        assert client.get("/keys", headers=bearer(key)).status_code == 403
    # Revoked by another process: a new API asks at once, this one within seconds.
    with TestClient(create_app(settings)) as later:
        assert later.get("/jobs", headers=bearer(key)).status_code == 401
