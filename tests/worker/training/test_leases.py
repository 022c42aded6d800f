"""Leases by the database's clock, and the writes under them."""

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from sqlalchemy import func, select

from greencore.carbon import PricedInterval
from greencore.clock import HOUR, utc_now
from greencore.energy import EnergyInterval
from runtime.settings import Settings
from store.accounting import metering
from store.database import Database
from store.lifecycle import progress
from store.lifecycle.leases import Lease, LeaseLost, claim, renew
from store.lifecycle.progress import StepLoss
from store.lifecycle.status import JobStatus
from tests.scheduler.stage import read_job
from tests.worker.stage import claim_as_worker, queued_job, requeue_as_scheduler, set_status, steps


@pytest.fixture
def job_id(database: Database, settings: Settings) -> str:
    return queued_job(database, settings)


def test_a_lease_lasts_from_the_databases_now_whatever_the_workers_clock_says(database: Database, job_id: str) -> None:
    with database.session() as session:
        wrong = utc_now() + timedelta(days=400)
        lease = claim(session, job_id, worker_id="w", device="cpu", at=wrong, lease_seconds=60, task_id="message")
        assert lease is not None
        now = session.scalars(select(func.now())).one()
    job = read_job(database, job_id)
    assert job.lease_expires_at == now + timedelta(seconds=60)
    assert job.task_id == "message"
    with database.session() as session:
        renew(session, lease, lease_seconds=90)
        now = session.scalars(select(func.now())).one()
    assert read_job(database, job_id).lease_expires_at == now + timedelta(seconds=90)


def test_a_renewal_does_not_change_the_jobs_version(database: Database, job_id: str) -> None:
    lease = claim_as_worker(database, job_id)
    before = read_job(database, job_id).revision
    with database.session() as session:
        renew(session, lease, lease_seconds=60)
    assert read_job(database, job_id).revision == before


def test_an_expired_lease_is_valid_until_the_job_is_reclaimed(database: Database, job_id: str) -> None:
    lease = claim_as_worker(database, job_id, lease_seconds=-5)
    with database.session() as session:
        assert renew(session, lease, lease_seconds=60) == "run"
    requeue_as_scheduler(database, job_id)
    with pytest.raises(LeaseLost), database.session() as session:
        renew(session, lease, lease_seconds=60)
    claim_as_worker(database, job_id)
    with pytest.raises(LeaseLost), database.session() as session:
        progress.release_job(session, lease, at=utc_now())
    assert read_job(database, job_id).status is JobStatus.RUNNING


@pytest.mark.parametrize(
    ("asked", "ends"),
    [
        ([], JobStatus.QUEUED),
        ([(JobStatus.PAUSING, "pause")], JobStatus.PAUSED),
        ([(JobStatus.PAUSING, "pause"), (JobStatus.CANCELLING, "cancel")], JobStatus.CANCELLED),
    ],
)
def test_a_stopped_job_gets_the_status_of_its_last_request(
    database: Database, job_id: str, asked: list[tuple[JobStatus, str]], ends: JobStatus
) -> None:
    lease = claim_as_worker(database, job_id)
    for status, control in asked:
        set_status(database, job_id, status, control=control)
    with database.session() as session:
        assert progress.release_job(session, lease, at=utc_now()) is ends
    assert read_job(database, job_id).status is ends


def test_steps_are_kept_once_and_those_beyond_the_checkpoint_are_taken_again(database: Database, job_id: str) -> None:
    lease = claim_as_worker(database, job_id)

    def report(numbers: range, loss: float) -> None:
        taken = [StepLoss(number, utc_now(), loss) for number in numbers]
        with database.session() as session:
            progress.report_step(session, lease, steps=9, steps_done=numbers[-1], loss=loss, taken=taken)

    report(range(1, 5), 2.0)
    report(range(3, 8), 1.0)
    assert steps(database, job_id) == [1, 2, 3, 4, 5, 6, 7]
    with database.session() as session:
        progress.start_training(session, lease, at=utc_now(), steps=9, steps_done=5, epochs_done=1, precision="fp32")
    assert steps(database, job_id) == [1, 2, 3, 4, 5]


def test_an_interval_whose_commit_was_not_confirmed_is_counted_once(database: Database, job_id: str) -> None:
    lease = claim_as_worker(database, job_id)
    start = utc_now()
    add = adding(database, lease)
    add(start, start + HOUR)
    add(start, start + HOUR)
    assert read_job(database, job_id).energy_kwh == pytest.approx(3.0)
    # while a clock that was set back does not advance, intervals have no length, and all of them count
    add(start, start)
    add(start, start)
    assert read_job(database, job_id).energy_kwh == pytest.approx(9.0)


def adding(database: Database, lease: Lease) -> Callable[[datetime, datetime], None]:
    def add(start: datetime, end: datetime) -> None:
        interval = EnergyInterval(start, end, 1.0, 1.0, 1.0, "TDP estimate", "none", "none")
        piece = PricedInterval(start, end, 3.0, 100.0, 300.0, 1.0, False, ("test",))
        with database.session() as session:
            metering.store_energy(session, lease, 1, interval, price=lambda _: [piece])

    return add
