"""Fixtures of the form's tests: a dataset with all that an estimate needs."""

from datetime import UTC, datetime

import pytest
from playwright.sync_api import Locator, Page

from planning.compute_costs import RowCosts
from store.database import Database
from store.repositories.models import ModelRepository
from tests.browser.conftest import Dashboard
from tests.browser.stage import stage_dataset, stage_grid, stage_policies, stage_workers

MODEL = "SmolLM2-135M-Instruct"
REFUSED = "status of 422"


def measure(database: Database) -> None:
    """Store the model's measurements, as a prepare worker does."""
    costs = RowCosts((2e8, 0.0), (6e8, 0.0), {"full": 1.0, "lora": 0.7, "bitfit": "has no biases"})
    with database.session() as session:
        ModelRepository(session).put(
            MODEL, parameters=134_515_008, tensors=272, rho_floor=0.35, costs=costs.to_json(), at=datetime.now(UTC)
        )


@pytest.fixture
def dataset(dashboard: Dashboard) -> str:
    """Id of a dataset, with a staged grid, workers, policies and a measured model."""
    now = datetime.now(UTC)
    measure(dashboard.database)
    stage_grid(dashboard.database, now=now)
    stage_workers(dashboard.database, now=now)
    stage_policies(dashboard.database, now=now)
    return stage_dataset(dashboard.database, dashboard.settings, now=now)


def estimate(page: Page) -> Locator:
    return page.get_by_role("region", name="Estimate")
