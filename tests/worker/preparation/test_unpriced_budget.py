"""Under a budget, energy of unknown intensity counts at the highest possible intensity."""

from datetime import timedelta

import pytest

from greencore.carbon import Reading
from greencore.carbon.static import highest_yearly_mean, yearly_mean
from greencore.clock import HOUR
from greencore.policy import decide_rho
from planning.epoch_estimate import EpochEstimate
from runtime.settings import Settings
from store.database import Database
from store.intensity.readings import GridRepository
from store.lifecycle.status import JobStatus
from store.repositories.jobs import get_job_policy
from store.tables import Epoch, Job
from tests.scheduler.settlement.test_settlement_turns import UNKNOWN_ZONE, put, used
from tests.scheduler.stage import START, add_job, read_job
from worker.training.policy_context import build_policy_context

pytestmark = pytest.mark.fault(number=12)

BUDGET = {"kind": "budget", "budget_gco2e": 1000, "rho_max": 1.0, "rho_min": 0.4}


@pytest.fixture
def job_id(database: Database) -> str:
    """A job that has used 2 kWh at a PUE of 1.5 without a price, and 1 kWh that emitted 100 g."""
    job_id = add_job(database, JobStatus.RUNNING, zone=UNKNOWN_ZONE, signal="average", policy=BUDGET, epochs=4)
    used(database, job_id, [0, 1], pue=1.5)
    used(database, job_id, [2], gco2e=100.0)
    return job_id


def spent_gco2e(database: Database, settings: Settings, job_id: str) -> float:
    with database.session() as session:
        job = session.get_one(Job, job_id)
        known = build_policy_context(session, job, get_job_policy(job), settings, epochs_left=2, at=START + HOUR)
    return known.spent_gco2e


def test_unpriced_energy_is_spent_at_the_dirtiest_that_its_zone_ever_was(
    database: Database, settings: Settings, job_id: str
) -> None:
    put(database, UNKNOWN_ZONE, -300, 640)
    put(database, UNKNOWN_ZONE, -200, 120)
    put(database, UNKNOWN_ZONE, -300, 999, signal="marginal")
    put(database, "PL", -300, 950)
    assert spent_gco2e(database, settings, job_id) == pytest.approx(100 + 2 * 1.5 * 640)


def test_where_nothing_was_ever_read_it_is_spent_at_the_mean_of_the_dirtiest_country(
    database: Database, settings: Settings, job_id: str
) -> None:
    assert highest_yearly_mean() >= max(map(yearly_mean, ("PL", "ZA", "IN", "FR")))
    assert spent_gco2e(database, settings, job_id) == pytest.approx(100 + 2 * 1.5 * highest_yearly_mean())


def test_a_budget_that_unpriced_energy_may_have_used_up_pays_for_no_further_epoch(
    database: Database, settings: Settings, job_id: str
) -> None:
    with database.session() as session:
        session.add(
            Epoch(
                job_id=job_id,
                number=1,
                attempt=1,
                started_at=START,
                finished_at=START + timedelta(minutes=3),
                rho_asked=1.0,
                reason="",
                intensity_estimated=False,
                flops=1e15,
                full_flops=1e15,
            )
        )
        session.get_one(Job, job_id).estimate = {"full_flops": 4e15}
        now = START + HOUR
        GridRepository(session).put(
            [
                Reading(
                    zone=UNKNOWN_ZONE,
                    start=now - HOUR / 2,
                    end=now + HOUR / 2,
                    gco2e_per_kwh=400,
                    source="test",
                    fetched_at=now,
                )
            ]
        )
        job = session.get_one(Job, job_id)
        policy = get_job_policy(job)
        decision = decide_rho(policy, build_policy_context(session, job, policy, settings, epochs_left=2, at=now))
    # 100 g, and 3 kWh drawn at 400 of which none was ever priced: 1,300 g of 1,000.
    assert decision.ends_run
    assert read_job(database, job_id).emissions_gco2e == 100


def test_a_budget_reserves_what_the_evaluations_of_the_steps_left_will_emit(
    database: Database, settings: Settings, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(database, UNKNOWN_ZONE, 0, 640)
    before = spent_gco2e(database, settings, job_id)
    with database.session() as session:
        job = session.get_one(Job, job_id)
        job.steps, job.steps_done = 100, 75
    measured = EpochEstimate(1.0, 0.1, 0.0, "its own epochs").with_evaluations(1.0, 0.2)
    monkeypatch.setattr("worker.training.policy_context.estimate_epoch", lambda *_, **__: measured)
    with database.session() as session:
        job = session.get_one(Job, job_id)
        found = build_policy_context(session, job, get_job_policy(job), settings, epochs_left=1, at=START + HOUR)
    assert found.reading is not None
    reserved = 0.2 * 0.25 * settings.training_site.pue * found.reading.gco2e_per_kwh
    assert found.spent_gco2e - before == pytest.approx(reserved)
