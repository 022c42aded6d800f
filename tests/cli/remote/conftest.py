"""Fixtures: commands with a service, a submitted job, a grid and a measured model."""

from datetime import timedelta
from pathlib import Path

import pytest

from greencore.carbon import Reading
from greentune.client import Client
from greentune.models import Job
from planning.compute_costs import RowCosts
from runtime.site import Site
from store.database import Database
from store.intensity.readings import GridRepository
from store.repositories.models import ModelRepository
from store.repositories.workers import WorkerRepository
from tests.api.conftest import MODEL, NOW
from tests.cli.service import CommandRunner


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
