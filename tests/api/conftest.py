"""Fixtures: the real application on a real database, and jobs in every status."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from api.main import create_app
from runtime.settings import Settings
from store.database import Database
from tests.keys import bearer, new_key

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
MODEL = "SmolLM2-135M-Instruct"

Upload = Callable[..., Any]
Submit = Callable[..., Any]


@pytest.fixture
def now() -> datetime:
    """The time of the application's clock."""
    return NOW


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings, clock=lambda: NOW)


@pytest.fixture
def client(app: FastAPI, operator_key: str) -> Iterator[TestClient]:
    """A client with an operator's key."""
    with TestClient(app, headers=bearer(operator_key)) as client:
        yield client


@pytest.fixture
def alice(app: FastAPI, settings: Settings) -> Iterator[TestClient]:
    """A client with a user's key, who owns only what the test creates."""
    with TestClient(app, headers=bearer(new_key(settings, "alice", "user"))) as client:
        yield client


@pytest.fixture
def bob(app: FastAPI, settings: Settings) -> Iterator[TestClient]:
    """A client with another user's key."""
    with TestClient(app, headers=bearer(new_key(settings, "bob", "user"))) as client:
        yield client


@pytest.fixture
def anonymous(app: FastAPI) -> Iterator[TestClient]:
    """A client without a key."""
    with TestClient(app) as client:
        yield client


@pytest.fixture
def upload(client: TestClient) -> Upload:
    """Upload a file's content, and return the response."""

    def upload(content: bytes, filename: str = "rows.jsonl") -> Any:
        return client.post("/datasets", files={"file": (filename, content)})

    return upload


@pytest.fixture
def dataset_id(upload: Upload) -> str:
    """A dataset of two rows."""
    response = upload(b'{"prompt": "2 + 2 =", "completion": " 4"}\n{"text": "Leaves are green."}\n')
    assert response.status_code == 201, response.text
    return str(response.json()["id"])


@pytest.fixture
def submit(client: TestClient, dataset_id: str) -> Submit:
    """Submit a job by GreenTrainer, and return the response; keyword arguments replace fields of the body."""

    def submit(**changed: Any) -> Any:
        body = {"model": MODEL, "dataset": dataset_id, "method": "greentrainer"}
        return client.post("/jobs", json=body | changed)

    return submit


@pytest.fixture
def job_id(submit: Submit) -> str:
    """A job that has just been submitted."""
    return str(submit(zone="FR").json()["id"])


@pytest.fixture
def finished_job_id(job_id: str, database: Database, settings: Settings) -> str:
    """A job that ran for one epoch and succeeded; its texts hold markup."""
    run_to_success(database, settings, job_id)
    return job_id


@pytest.fixture
def deferred_job_id(submit: Submit, database: Database, settings: Settings) -> str:
    """A job with a defer gate whose cleanest window begins in three hours, after the first gate decision."""
    from datetime import timedelta

    from greencore.carbon import Reading
    from planning.epoch_estimate import EpochEstimate
    from scheduler.job_gate import evaluate_job_gate
    from store.intensity.readings import GridRepository
    from store.lifecycle.status import JobStatus
    from store.lifecycle.transitions import transition
    from store.repositories.jobs import JobRepository

    policy = {"kind": "constant", "rho": 1.0, "gate": {"mode": "defer", "max_delay_hours": 12}}
    job_id = str(submit(zone="FR", policy=policy, hyperparameters={"epochs": 1}).json()["id"])

    def hour(offset: int) -> Reading:
        return Reading(
            zone="FR",
            start=NOW + timedelta(hours=offset),
            end=NOW + timedelta(hours=offset + 1),
            gco2e_per_kwh=50.0 if offset == 3 else 300.0,
            source="uk",
            estimated=offset > 0,
            fetched_at=NOW,
        )

    epoch_estimate = EpochEstimate(epoch_hours=0.5, epoch_kwh=0.1, startup_hours=0.01, basis="its own epochs")
    with database.session() as session:
        GridRepository(session).put([hour(0)])
        GridRepository(session).put_forecast("FR", "average", [hour(offset) for offset in range(1, 24)], at=NOW)
        job = JobRepository(session).lock(job_id)
        assert job is not None
        transition(session, job, JobStatus.QUEUED, at=NOW)
        job.signal = "average"
        look = evaluate_job_gate(session, job, epoch_estimate, settings, zone="FR", computing=False, at=NOW)
        assert not look.opens
        transition(session, job, JobStatus.DEFERRED, at=NOW, reason=look.reason)
    return job_id


@pytest.fixture
def settled_job_id(finished_job_id: str, database: Database, settings: Settings) -> str:
    """The finished job, after the source has published what it measured: 200 gCO2e/kWh."""
    from datetime import timedelta

    from greencore.carbon import Reading
    from scheduler.settlement import settle_prices, store_counterfactuals
    from store.intensity.readings import GridRepository
    from store.repositories.jobs import JobRepository

    measured = Reading(
        zone="FR",
        start=NOW - timedelta(hours=1),
        end=NOW + timedelta(hours=1),
        gco2e_per_kwh=200.0,
        source="uk",
        fetched_at=NOW + timedelta(hours=1),
    )
    with database.session() as session:
        GridRepository(session).put([measured])
        job = JobRepository(session).lock(finished_job_id)
        assert job is not None
        job.signal = "average"
    settle_prices(database, settings, at=NOW + timedelta(hours=1))
    store_counterfactuals(database, settings, at=NOW + timedelta(hours=1))
    return finished_job_id


def run_to_success(database: Database, settings: Settings, job_id: str) -> None:
    """Write to a job what a scheduler and a worker would."""
    from datetime import timedelta

    from greencore.carbon import IntensitySeries, Reading
    from greencore.carbon.accounting.pricing import price_by_reading
    from greencore.energy import EnergyInterval
    from greencore.policy import PolicyContext, decide_rho, parse_policy
    from store.lifecycle.leases import claim
    from store.lifecycle.progress import (
        EpochMeasurement,
        add_energy,
        add_tracker_total,
        finish_epoch,
        report_step,
        start_epoch,
        succeed,
    )
    from store.lifecycle.status import JobStatus
    from store.lifecycle.transitions import transition
    from store.repositories.jobs import JobRepository
    from store.tables import Artifact

    reading = Reading(
        zone="FR",
        start=NOW - timedelta(minutes=30),
        end=NOW + timedelta(minutes=30),
        gco2e_per_kwh=212.0,
        source="trace (synthetic)",
        estimated=True,
        fetched_at=NOW,
    )
    with database.session() as session:
        job = JobRepository(session).lock(job_id)
        assert job is not None
        policy = parse_policy(job.policy)
        transition(session, job, JobStatus.QUEUED, at=NOW)
    with database.session() as session:
        lease = claim(session, job_id, worker_id="worker_1", device="cpu", at=NOW, lease_seconds=60)
    assert lease is not None
    interval = EnergyInterval(
        start=NOW,
        end=NOW + timedelta(seconds=30),
        cpu_kwh=0.0005,
        gpu_kwh=0.0,
        ram_kwh=0.0001,
        cpu_method="TDP estimate",
        gpu_method="none",
        ram_method="capacity estimate",
    )
    result = settings.artifact_file(job_id, "model.safetensors")
    result.parent.mkdir(parents=True)
    result.write_bytes(b"weights")
    (result.parent / "notes.txt").write_text("not an artifact")
    with database.session() as session:
        decision = decide_rho(policy, PolicyContext(now=NOW, reading=reading, step="fresh"))
        start_epoch(session, lease, 1, decision, at=NOW)
        report_step(session, lease, steps=10, steps_done=10, loss=1.25)
        add_energy(session, lease, 1, interval, price_by_reading(interval, IntensitySeries([reading]), pue=1.2))
        measured = EpochMeasurement(
            rho_reached=0.58,
            flops=5.8e12,
            full_flops=1e13,
            tensors_selected=2,
            tensors_total=3,
            selection={"lm_head.weight": 0.5, "norm.weight": 0.25},
            train_loss=1.25,
            eval_loss=float("nan"),
        )
        finish_epoch(session, lease, 1, at=NOW, measured=measured, utility=None)
        add_tracker_total(session, lease, at=NOW, tracker_kwh=0.00062)
        artifact = Artifact(job_id=job_id, name="model.safetensors", bytes=7, sha256="ab" * 32, created_at=NOW)
        missing = Artifact(job_id=job_id, name="lost.json", bytes=2, sha256="cd" * 32, created_at=NOW)
        evaluation = {
            "sample": {"prompt": "Say <b>hi</b>", "before": "<script>alert(1)</script>", "after": "hi"},
            "eval_loss": {"before": 2.5, "after": 1.2},
            "rouge": {"after": {"rougeL": float("inf")}},
        }
        succeed(session, lease, at=NOW, artifacts=[artifact, missing], evaluation=evaluation)
