"""Pricing of a job's energy by its worker's site, or by the world mean where that is unknown."""

import pytest
from sqlalchemy import select

from runtime.settings import Settings
from runtime.site import UNKNOWN_ZONE, Site
from store.database import Database
from store.lifecycle.status import JobStatus
from store.tables import EnergyInterval, Epoch, Job
from tests.scheduler.stage import read_job
from tests.worker.stage import queued_job
from worker.training.claim import train_job

pytestmark = pytest.mark.fault(number=11)


def intervals(database: Database, job_id: str) -> list[EnergyInterval]:
    with database.session() as session:
        return list(session.scalars(select(EnergyInterval).where(EnergyInterval.job_id == job_id)))


def test_a_worker_without_a_site_is_priced_at_the_worlds_mean_and_says_so(
    database: Database, worker_settings: Settings
) -> None:
    settings = worker_settings.model_copy(update={"site": None})
    job_id = queued_job(database, settings, epochs=1)
    with database.session() as session:
        job = session.get_one(Job, job_id)
        job.zone, job.zone_asked, job.epochs = UNKNOWN_ZONE, None, 1
    train_job(job_id, settings=settings)

    job = read_job(database, job_id)
    assert job.status is JobStatus.SUCCEEDED, job.error
    used = intervals(database, job_id)
    assert used
    assert {(one.zone, one.pue, one.intensity_source) for one in used} == {(UNKNOWN_ZONE, 1.0, "site unknown")}
    assert job.emissions_gco2e == pytest.approx(475.0 * job.energy_kwh)
    with database.session() as session:
        [epoch] = session.scalars(select(Epoch).where(Epoch.job_id == job_id))
    assert (epoch.intensity_source, epoch.intensity_estimated) == ("site unknown", True)
    card = (settings.artifact_file(job_id, "README.md")).read_text()
    assert "site unknown" in card


def test_energy_keeps_the_zone_and_the_pue_of_the_worker_that_used_it(
    database: Database, worker_settings: Settings
) -> None:
    settings = worker_settings.model_copy(update={"site": Site(zone="X", pue=1.4)})
    job_id = queued_job(database, settings, epochs=1)
    with database.session() as session:
        session.get_one(Job, job_id).epochs = 1
    train_job(job_id, settings=settings)
    assert {(one.zone, one.pue) for one in intervals(database, job_id)} == {("X", 1.4)}
    job = read_job(database, job_id)
    assert job.emissions_gco2e == pytest.approx(1.4 * 100.0 * job.energy_kwh)


@pytest.mark.parametrize("site", [None, Site(zone="Y")])
def test_a_worker_of_another_zone_does_not_claim_the_job(
    site: Site | None, database: Database, worker_settings: Settings
) -> None:
    job_id = queued_job(database, worker_settings)
    train_job(job_id, settings=worker_settings.model_copy(update={"site": site}))
    job = read_job(database, job_id)
    assert (job.status, job.attempts) == (JobStatus.QUEUED, 0)
