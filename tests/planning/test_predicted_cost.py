"""Predicted cost of a job, from the epochs measured before it started."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from planning.predicted_cost import PredictedCost, predict_cost
from runtime.settings import Settings
from store.database import Database
from store.lifecycle.status import JobStatus
from store.tables import EnergyInterval, Job
from tests.browser.stage import EPOCH, stage_dataset, stage_job

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
WORK: dict[str, Any] = {"epochs": 2, "epochs_done": 2, "estimate": {"full_flops": 2e15}}


@pytest.fixture
def dataset(database: Database, settings: Settings) -> str:
    return stage_dataset(database, settings, now=NOW)


def run(database: Database, settings: Settings, dataset: str, *, days_ago: int, **columns: Any) -> str:
    at = NOW - timedelta(days=days_ago)
    return stage_job(database, settings, dataset, JobStatus.SUCCEEDED, now=at, **WORK, **columns)


def found(database: Database, job_id: str, *, pue: float = 1.0) -> PredictedCost | None:
    with database.session() as session:
        return predict_cost(session, session.get_one(Job, job_id), pue=pue)


def slow_down(database: Database, job_id: str, factor: float) -> None:
    """Multiply the metered energy of the job's epochs by `factor`."""
    scaled = {name: getattr(EnergyInterval, name) * factor for name in ("cpu_kwh", "gpu_kwh", "ram_kwh")}
    with database.session() as session:
        session.execute(update(EnergyInterval).where(EnergyInterval.job_id == job_id).values(scaled))


def test_the_first_job_on_a_device_has_no_prediction(database: Database, settings: Settings, dataset: str) -> None:
    assert found(database, run(database, settings, dataset, days_ago=0)) is None
    other = run(database, settings, dataset, days_ago=0, device="cpu")
    assert found(database, other) is None


def test_only_epochs_finished_before_its_start_count(database: Database, settings: Settings, dataset: str) -> None:
    run(database, settings, dataset, days_ago=2)
    job_id = run(database, settings, dataset, days_ago=1)
    later = run(database, settings, dataset, days_ago=0)
    before = found(database, job_id)
    slow_down(database, later, 10)
    slow_down(database, job_id, 10)

    assert before is not None
    assert found(database, job_id) == before
    assert before.basis.startswith("the 2 newest epochs of its model on NVIDIA H100")
    assert before.metered_hours == pytest.approx(2 * EPOCH / timedelta(hours=1))
    # The same policy in the same hours of another day: about the same.
    assert before.hours.expected == pytest.approx(before.metered_hours, rel=0.1)
    assert before.hours.low <= before.hours.expected <= before.hours.high


def test_epochs_of_its_model_are_preferred_to_those_of_others(
    database: Database, settings: Settings, dataset: str
) -> None:
    other = run(database, settings, dataset, days_ago=3, model="another")
    job_id = run(database, settings, dataset, days_ago=1)
    by_another = found(database, job_id)
    assert by_another is not None
    assert "epochs of other models" in by_another.basis

    run(database, settings, dataset, days_ago=2)
    slow_down(database, other, 10)
    by_its_own = found(database, job_id)
    assert by_its_own is not None
    assert "epochs of its model" in by_its_own.basis
    assert by_its_own.energy_kwh.expected == pytest.approx(by_another.energy_kwh.expected, rel=0.1)


def test_emissions_use_the_pue_and_the_first_epochs_intensity(
    database: Database, settings: Settings, dataset: str
) -> None:
    run(database, settings, dataset, days_ago=1)
    job_id = run(database, settings, dataset, days_ago=0)

    at_one, at_two = found(database, job_id), found(database, job_id, pue=2.0)

    assert at_one is not None
    assert at_two is not None
    assert at_one.emissions_gco2e is not None
    assert at_two.emissions_gco2e is not None
    assert at_one.gco2e_per_kwh is not None
    assert at_one.emissions_gco2e.expected == pytest.approx(at_one.energy_kwh.expected * at_one.gco2e_per_kwh)
    assert at_two.emissions_gco2e.expected == pytest.approx(2 * at_one.emissions_gco2e.expected)
    assert at_two.energy_kwh == at_one.energy_kwh
