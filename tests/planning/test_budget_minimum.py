"""The minimum of a budget: what every epoch at the lowest ρ and the evaluations during training emit."""

import pytest

from greencore.carbon import Reading
from greencore.clock import HOUR
from greencore.policy.models import Budget
from planning.budget_minimum import compute_minimum_budget
from planning.epoch_estimate import EpochEstimate
from store.database import Database
from store.intensity.readings import GridRepository
from tests.scheduler.stage import START


def test_the_minimum_has_the_evaluations_in_full_beside_epochs_at_the_lowest_rho(database: Database) -> None:
    policy = Budget(kind="budget", budget_gco2e=100, rho_min=0.4, rho_max=1.0)
    estimate = EpochEstimate(1.0, 0.1, 0.0, "its own epochs").with_evaluations(0.5, 0.2)
    with database.session() as session:
        reading = Reading(
            zone="FR", start=START, end=START + 9 * HOUR, gco2e_per_kwh=50, source="test", fetched_at=START
        )
        GridRepository(session).put([reading])
        found = compute_minimum_budget(session, policy, estimate, epochs=3, pues={"FR": 2.0}, deadline=None, at=START)
    assert found is not None
    assert found.gco2e == pytest.approx(2 * 50 * (3 * 0.1 * 0.4 + 0.2))
    assert "0.2 kWh for evaluations" in found.basis
