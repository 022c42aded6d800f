"""Fixtures: a measured model, a live worker, and a request for an estimate."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from planning.compute_costs import RowCosts
from runtime.site import Site
from store.database import Database
from store.repositories.models import ModelRepository
from store.repositories.workers import WorkerRepository
from tests.api.conftest import MODEL, NOW


@pytest.fixture
def measured(database: Database) -> None:
    """Store the model as a prepare worker measures it: 6e8 FLOPs a token, and none for attention."""
    with database.session() as session:
        costs = RowCosts((2e8, 0.0), (6e8, 0.0), {"full": 1.0, "lora": 0.7, "bitfit": "unavailable: no bias"}).to_json()
        ModelRepository(session).put(MODEL, parameters=10**8, tensors=100, rho_floor=0.35, costs=costs, at=NOW)


@pytest.fixture
def worker(database: Database) -> None:
    with database.session() as session:
        WorkerRepository(session).record_heartbeat("worker_1", site=Site(zone="FR"), device="cpu", at=NOW)


@pytest.fixture
def estimate(client: TestClient, dataset_id: str) -> Any:
    """Request an estimate, and return the response; the default policy trains every tensor."""

    def estimate(**changed: Any) -> Any:
        policy = {"kind": "constant", "rho": 1.0}
        body = {"model": MODEL, "dataset": dataset_id, "method": "greentrainer", "zone": "FR", "policy": policy}
        return client.post("/jobs/estimate", json={**body, "hyperparameters": {"epochs": 2}, **changed})

    return estimate
