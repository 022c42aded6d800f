"""Dispatch to training workers: which jobs are sent, what is sent again, and the reasons of the rest."""

import threading
from contextlib import ExitStack, closing

import pytest
import redis

from runtime.settings import Settings
from scheduler import Scheduler
from scheduler.job_placement import GATE_NOT_EVALUATED
from store.database import Database
from store.lifecycle.status import JobStatus
from store.tables import Job
from tests.carbon_provider_server import ManualClock
from tests.scheduler.stage import add_job, add_worker, claim_as_worker, events, read_job, wait_until


@pytest.fixture
def settings(empty_broker: Settings) -> Settings:
    return empty_broker.model_copy(update={"zones": {"FR": "static", "PL": "static"}})


def test_each_free_worker_gets_one_job_of_its_zone(
    scheduler: Scheduler, database: Database, broker: redis.Redis
) -> None:
    add_worker(database, "FR")
    jobs = [add_job(database, zone=zone) for zone in ("FR", "PL", "FR", "FR")]
    scheduler.tick()
    assert [read_job(database, job).dispatched_at is not None for job in jobs] == [True, False, False, False]
    assert [read_job(database, job).reason for job in jobs] == [
        None,
        "waits for a worker in zone PL: none is alive",
        "waits for a free worker: it is next",
        "waits for a free worker: 1 job is ahead of it",
    ]
    assert (broker.llen("train.FR"), broker.llen("train.PL")) == (1, 0)
    claim_as_worker(database, jobs[0], at=scheduler._clock())
    scheduler.tick()
    assert [read_job(database, job).dispatched_at for job in jobs[1:]] == [None] * 3
    add_worker(database, "PL", name="worker_2")
    scheduler.tick()
    assert read_job(database, jobs[1]).dispatched_at is not None
    assert read_job(database, jobs[2]).reason == "waits for a free worker: it is next"


def test_jobs_that_wait_for_another_zones_workers_are_not_ahead(scheduler: Scheduler, database: Database) -> None:
    add_worker(database, "FR")
    add_worker(database, "PL", name="worker_2")
    jobs = [add_job(database, zone=zone) for zone in ("FR", "FR", "PL", "PL")]
    scheduler.tick()
    waiting = "waits for a free worker: it is next"
    assert [read_job(database, job).reason for job in jobs] == [None, waiting, None, waiting]


def test_an_unchanged_reason_is_not_written_again(scheduler: Scheduler, database: Database, clock: ManualClock) -> None:
    add_worker(database, "FR")
    jobs = [add_job(database, zone="FR", hours=1), add_job(database, zone="PL"), add_job(database, zone="FR", hours=1)]
    scheduler.tick()
    claim_as_worker(database, jobs[0], at=clock())
    scheduler.tick()
    revisions = [read_job(database, job).revision for job in jobs]
    for _ in range(2):
        clock.advance(seconds=2)
        scheduler.tick()
    assert [read_job(database, job).revision for job in jobs] == revisions


def test_a_message_that_no_idle_worker_took_up_is_sent_again_and_one_that_waits_for_a_busy_one_is_not(
    scheduler: Scheduler, settings: Settings, database: Database, broker: redis.Redis, clock: ManualClock
) -> None:
    add_worker(database, "FR")
    job = add_job(database, zone="FR")
    scheduler.tick()
    clock.advance(seconds=settings.redispatch_seconds - 1)
    scheduler.tick()
    assert broker.llen("train.FR") == 1
    clock.advance(seconds=2)
    scheduler.tick()
    assert broker.llen("train.FR") == 2
    claim_as_worker(database, add_job(database, zone="FR"), at=clock())
    clock.advance(seconds=settings.redispatch_seconds + 1)
    scheduler.tick()
    assert broker.llen("train.FR") == 2
    assert read_job(database, job).reason == "waits for a free worker: it is next"


def test_a_clock_that_was_ahead_delays_no_job(
    scheduler: Scheduler, database: Database, broker: redis.Redis, clock: ManualClock
) -> None:
    add_worker(database, "FR")
    clock.advance(hours=2)
    add_job(database, zone="FR")
    scheduler.tick()
    clock.advance(hours=-2)
    scheduler.tick()
    assert broker.llen("train.FR") == 2


def test_an_emptied_broker_is_noticed_within_a_tick(
    scheduler: Scheduler, database: Database, broker: redis.Redis, clock: ManualClock
) -> None:
    add_worker(database, "FR")
    jobs = [add_job(database, zone="FR"), add_job(database, JobStatus.VALIDATING)]
    scheduler.tick()
    broker.flushdb()
    clock.advance(seconds=1)
    scheduler.tick()
    assert broker.llen("train.FR") == 1
    assert any(jobs[1] in message for message in broker.lrange("prepare", 0, -1))
    scheduler.tick()
    assert broker.llen("train.FR") == 1


def test_without_a_broker_a_job_is_sent_once_the_broker_is_back(
    settings: Settings, database: Database, clock: ManualClock
) -> None:
    add_worker(database, "FR")
    job = add_job(database, zone="FR")
    with closing(Scheduler(settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"}), clock=clock)) as cut_off:
        cut_off.tick()
    assert read_job(database, job).dispatched_at is None
    assert [event.type for event in events(database, job)] == ["job.submitted", "job.queued"]
    with closing(Scheduler(settings, clock=clock)) as scheduler:
        scheduler.tick()
    assert read_job(database, job).dispatched_at == clock()


def test_a_broker_that_fails_while_sending_leaves_the_job_unsent(
    settings: Settings, database: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_worker(database, "FR")
    job = add_job(database, zone="FR")
    with closing(Scheduler(settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"}), clock=clock)) as cut_off:
        monkeypatch.setattr(cut_off._broker, "is_available", lambda: True)
        cut_off.tick()
    assert read_job(database, job).dispatched_at is None


def test_one_job_whose_evaluation_fails_blocks_no_other(
    scheduler: Scheduler, database: Database, clock: ManualClock
) -> None:
    add_worker(database, "FR")
    policy = {"kind": "unheard of", "gate": {"mode": "pause"}}
    broken = [add_job(database, zone="FR", policy=policy, hours=1) for _ in range(3)]
    for job_id, status in zip(broken[1:], (JobStatus.DEFERRED, JobStatus.RUNNING), strict=True):
        with database.session() as session:
            session.get_one(Job, job_id).status = status
    deferred = add_job(database, zone="FR", policy={"kind": "constant", "rho": 1.0, "gate": {"mode": "defer"}}, hours=1)
    with database.session() as session:
        session.get_one(Job, deferred).status = JobStatus.DEFERRED
    job = add_job(database, zone="FR", priority=1)
    scheduler.tick()
    assert {read_job(database, job_id).reason for job_id in broken} == {GATE_NOT_EVALUATED}
    assert [read_job(database, job_id).status for job_id in broken[1:]] == [JobStatus.DEFERRED, JobStatus.RUNNING]
    assert read_job(database, deferred).status is JobStatus.QUEUED
    assert read_job(database, job).dispatched_at == clock()


def test_new_jobs_go_to_the_prepare_workers_a_few_at_a_time_and_owner_by_owner(
    scheduler: Scheduler, database: Database
) -> None:
    alices = [add_job(database, JobStatus.VALIDATING) for _ in range(3)]
    bobs = add_job(database, JobStatus.VALIDATING, owner="bob")
    scheduler.tick()
    sent = [job for job in (*alices, bobs) if read_job(database, job).dispatched_at is not None]
    assert sent == [alices[0], bobs]


def test_two_schedulers_that_both_believe_to_lead_send_and_transition_each_job_once(
    settings: Settings, database: Database, clock: ManualClock
) -> None:
    for number in range(3):
        add_worker(database, "FR", name=f"worker_{number}")
    jobs = [add_job(database, zone="FR") for _ in range(6)]
    lost = [add_job(database, zone="PL") for _ in range(3)]
    for number, job in enumerate(lost):
        claim_as_worker(database, job, at=clock(), worker=f"dead_{number}")
    with database.session() as session:
        session.connection().exec_driver_sql("UPDATE jobs SET lease_expires_at = now() - interval '1 second'")
    with ExitStack() as stack:
        both = [stack.enter_context(closing(Scheduler(settings, clock=clock))) for _ in range(2)]
        start = threading.Barrier(2)

        def ticks(scheduler: Scheduler) -> None:
            start.wait()
            for _ in range(4):
                scheduler.tick()

        threads = [threading.Thread(target=ticks, args=(scheduler,)) for scheduler in both]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    dispatched = [job for job in jobs if read_job(database, job).dispatched_at is not None]
    assert dispatched == jobs[:3]
    for job in dispatched:
        assert [event.type for event in events(database, job)].count("job.dispatched") == 1
    for job in lost:
        assert [event.type for event in events(database, job)].count("job.queued") == 2
        assert read_job(database, job).lost_attempts == 1
    with closing(redis.Redis.from_url(settings.redis_url)) as broker:
        assert broker.llen("train.FR") == 3


def test_a_worker_that_ends_its_job_gets_the_next_within_a_second(settings: Settings, database: Database) -> None:
    add_worker(database, "FR")
    first, second = add_job(database, zone="FR"), add_job(database, zone="FR")
    lease_at = read_job(database, first).created_at
    claim_as_worker(database, first, at=lease_at)
    slow = settings.model_copy(update={"tick_seconds": 30.0})
    stop = threading.Event()
    running = Scheduler(slow)
    runner = threading.Thread(target=running.run, args=(stop,))
    runner.start()
    try:
        wait_until(lambda: read_job(database, second).reason is not None)
        with database.session() as session:
            connection = session.connection()
            connection.exec_driver_sql(f"UPDATE jobs SET status = 'succeeded' WHERE id = '{first}'")
            connection.exec_driver_sql("NOTIFY greentune_wake")
        took = wait_until(lambda: read_job(database, second).dispatched_at is not None)
        assert took < 1.0
        with database.session() as session:
            rows = session.connection().exec_driver_sql("SELECT id FROM workers WHERE role = 'scheduler'").all()
        assert [id for (id,) in rows] == [running._heartbeat.id]
    finally:
        stop.set()
        with database.session() as session:
            session.connection().exec_driver_sql("NOTIFY greentune_wake")
        runner.join()
    with database.session() as session:
        assert (
            session.connection().exec_driver_sql("SELECT count(*) FROM workers WHERE role = 'scheduler'").scalar() == 0
        )
