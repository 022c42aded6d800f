"""Ticks of a scheduler on a real database and broker, with a clock that the test sets."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import redis
from sqlalchemy import text

from greencore.carbon import Basis, CarbonError, Reading
from greencore.clock import HOUR
from runtime.settings import Settings
from scheduler import Scheduler
from store.database import Database
from store.intensity.readings import GridRepository
from store.lifecycle.leases import Lease, claim
from store.lifecycle.status import JobStatus
from store.lifecycle.transitions import TransitionRefused, transition
from store.repositories.jobs import JobRepository
from tests.carbon_provider_server import ManualClock
from tests.scheduler.stage import START, add_job, add_worker, read_job, wait_until


@pytest.fixture
def settings(empty_broker: Settings) -> Settings:
    return empty_broker.model_copy(update={"zones": {"FR": "static", "PL": "static"}})


def messages(settings: Settings, queue: str) -> int:
    broker = redis.Redis.from_url(settings.redis_url)
    length = int(broker.llen(queue))
    broker.close()
    return length


def test_a_new_job_is_sent_once_and_again_only_if_no_worker_took_it(
    scheduler: Scheduler, settings: Settings, database: Database, clock: ManualClock
) -> None:
    add_job(database, JobStatus.VALIDATING)
    before = messages(settings, "prepare")
    scheduler.tick()
    sent = messages(settings, "prepare") - before
    assert sent == 2  # the catalogue's measurement, and the job
    scheduler.tick()
    assert messages(settings, "prepare") == before + 2
    clock.advance(seconds=4 * settings.redispatch_seconds + 1)
    scheduler.tick()
    assert messages(settings, "prepare") == before + 3


def test_a_job_without_a_zone_goes_to_the_cleanest_zone_with_a_live_worker(
    scheduler: Scheduler, settings: Settings, database: Database, clock: ManualClock
) -> None:
    job_id = add_job(database)
    add_worker(database, "PL")
    add_worker(database, "FR", name="worker_2")
    scheduler.tick()
    assert read_job(database, job_id).zone == "FR"
    assert messages(settings, "train.FR") == 1
    assert messages(settings, "train.PL") == 0


def test_a_job_whose_zone_has_no_worker_waits_and_says_so(
    scheduler: Scheduler, settings: Settings, database: Database, clock: ManualClock
) -> None:
    job_id = add_job(database, zone="PL")
    add_worker(database, "FR")
    scheduler.tick()
    assert read_job(database, job_id).reason == "waits for a worker in zone PL: none is alive"
    assert messages(settings, "train.PL") == 0
    add_worker(database, "PL", name="worker_2")
    scheduler.tick()
    assert read_job(database, job_id).reason is None
    assert messages(settings, "train.PL") == 1


def test_a_worker_that_was_not_seen_for_a_lease_is_not_alive(
    scheduler: Scheduler, settings: Settings, database: Database, clock: ManualClock
) -> None:
    job_id = add_job(database)
    add_worker(database, "FR")
    with database.session() as session:
        session.execute(text("UPDATE workers SET last_seen_at = now() - interval '61 seconds'"))
    scheduler.tick()
    job = read_job(database, job_id)
    assert (job.dispatched_at, job.reason) == (None, "waits for a worker: none is alive")


def test_a_job_is_claimed_by_one_worker_only(database: Database, clock: ManualClock) -> None:
    job_id = add_job(database)

    def rival() -> Lease | None:
        with database.session() as session:
            return claim(session, job_id, worker_id="b", device="cpu", at=clock(), lease_seconds=60)

    with ThreadPoolExecutor(1) as other:
        with database.session() as session:
            won = claim(session, job_id, worker_id="a", device="cpu", at=clock(), lease_seconds=60)
            assert won is not None
            lost = other.submit(rival)
            with pytest.raises(TimeoutError):
                lost.result(0.2)  # it waits for what becomes of the row
        assert lost.result(10) is None


def test_a_transition_that_is_not_in_the_table_is_refused(database: Database, clock: ManualClock) -> None:
    job_id = add_job(database)
    with database.session() as session:
        job = JobRepository(session).lock(job_id)
        assert job is not None
        with pytest.raises(TransitionRefused, match="is queued: expected a transition to"):
            transition(session, job, JobStatus.SUCCEEDED, at=clock())


def test_readings_are_stored_without_gaps(
    settings: Settings, database: Database, clock: ManualClock, tmp_path: Path
) -> None:
    trace = tmp_path / "day.csv"
    lines = [f"2026-11-23T{hour:02d}:00:00Z,{100 + hour}" for hour in range(24)]
    trace.write_text("datetime,gco2e_per_kwh\n" + "\n".join(lines) + "\n")
    traced = settings.model_copy(update={"zones": {"X": f"trace:{trace}"}})
    add_job(database, zone="X")
    with closing(Scheduler(traced, clock=clock)) as scheduler:
        for hours in (5, 0):
            scheduler.tick()
            scheduler._intensity_poller.wait_for_polls()
            clock.advance(hours=hours)
    with database.session() as session:
        stored: list[Reading] = list(GridRepository(session).readings_between("X", Basis(), START, clock() + HOUR))
    assert [reading.gco2e_per_kwh for reading in stored] == [112, 113, 114, 115, 116, 117]


def test_a_zone_whose_source_is_wrong_is_named(settings: Settings) -> None:
    with pytest.raises(CarbonError, match="GREENTUNE_ZONES: ATLANTIS"):
        Scheduler(settings.model_copy(update={"zones": {"ATLANTIS": "static"}}))


def test_a_submission_wakes_the_scheduler(settings: Settings, database: Database) -> None:
    slow = settings.model_copy(update={"tick_seconds": 30.0})
    stop = threading.Event()
    runner = threading.Thread(target=Scheduler(slow).run, args=(stop,))
    runner.start()
    try:
        time.sleep(1.0)  # the first tick is over
        job_id = add_job(database, JobStatus.VALIDATING)
        wait_until(lambda: read_job(database, job_id).dispatched_at is not None, 5)
    finally:
        stop.set()
        with database.session() as session:
            session.connection().exec_driver_sql("NOTIFY greentune_wake")
        runner.join()


def test_without_a_broker_no_job_is_lost(settings: Settings, database: Database, clock: ManualClock) -> None:
    job_id = add_job(database, JobStatus.VALIDATING)
    down = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    with closing(Scheduler(down, clock=clock)) as scheduler:
        scheduler.tick()
    job = read_job(database, job_id)
    assert (job.status, job.dispatched_at) == (JobStatus.VALIDATING, None)
