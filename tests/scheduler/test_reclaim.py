"""Reclaiming of jobs whose worker falls silent, and killing of jobs that do not stop when asked."""

import base64
import json
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import redis

from runtime.settings import Settings
from scheduler import Scheduler
from scheduler.broker import Broker
from scheduler.reclaim import OutageDetector, kill_unresponsive_jobs, reclaim_lost_jobs
from store.database import Database
from store.lifecycle.actions import request_action
from store.lifecycle.leases import LeaseLost, renew
from store.lifecycle.status import Action, JobStatus
from store.repositories.jobs import JobRepository
from tests.carbon_provider_server import ManualClock
from tests.scheduler.stage import START, add_job, backdate_lease, claim_as_worker, events, read_job


@pytest.fixture
def broker(empty_broker: Settings) -> Iterator[Broker]:
    with closing(Broker(empty_broker)) as broker:
        yield broker


def ask(database: Database, job_id: str, action: Action) -> None:
    with database.session() as session:
        job = JobRepository(session).lock(job_id)
        assert job is not None
        request_action(session, job, action, by="alice", at=START)


def test_a_lost_job_is_queued_again_and_fails_after_too_many_losses(database: Database, settings: Settings) -> None:
    poisonous, other = add_job(database), add_job(database)
    held = claim_as_worker(database, other, at=START, worker="worker_2")
    for loss in range(1, settings.max_attempts + 1):
        lease = claim_as_worker(database, poisonous, at=START)
        assert lease.attempt == loss
        reclaim_lost_jobs(database, settings, at=START)
        assert read_job(database, poisonous).status is JobStatus.RUNNING
        backdate_lease(database, poisonous)
        reclaim_lost_jobs(database, settings, at=START)
        with database.session() as session, pytest.raises(LeaseLost):
            renew(session, lease, lease_seconds=60)
    job = read_job(database, poisonous)
    assert job.status is JobStatus.FAILED
    assert job.error is not None
    assert "GREENTUNE_MAX_ATTEMPTS" in job.error["detail"]
    with database.session() as session:
        assert renew(session, held, lease_seconds=60) == "run"


@pytest.mark.parametrize(
    ("action", "becomes"), [(Action.PAUSE, JobStatus.PAUSED), (Action.CANCEL, JobStatus.CANCELLED)]
)
def test_a_lost_job_that_was_asked_to_stop_gets_the_requested_status(
    database: Database, settings: Settings, action: Action, becomes: JobStatus
) -> None:
    job_id = add_job(database)
    claim_as_worker(database, job_id, at=START)
    ask(database, job_id, action)
    backdate_lease(database, job_id)
    reclaim_lost_jobs(database, settings, at=START)
    job = read_job(database, job_id)
    assert (job.status, job.control, job.lease_token) == (becomes, "run", None)
    assert job.reason == "worker worker_1 fell silent"


def test_a_scheduler_whose_clock_is_ahead_reclaims_no_job(
    empty_broker: Settings, database: Database, clock: ManualClock
) -> None:
    job_id = add_job(database)
    claim_as_worker(database, job_id, at=START)
    clock.advance(hours=24 * 365)
    with closing(Scheduler(empty_broker, clock=clock)) as scheduler:
        scheduler.tick()
    assert read_job(database, job_id).status is JobStatus.RUNNING


def test_after_an_outage_nothing_is_reclaimed_until_each_worker_could_have_renewed_its_lease() -> None:
    now = 0.0
    outage_detector = OutageDetector(60, monotonic=lambda: now)
    assert outage_detector.record_contact()
    now = 29
    assert outage_detector.record_contact()
    now = 29 + 31
    assert not outage_detector.record_contact()
    now = 85
    assert not outage_detector.record_contact()
    now = 110
    assert not outage_detector.record_contact()
    now = 120
    assert outage_detector.record_contact()


def test_a_scheduler_that_stood_still_reclaims_only_a_lease_later(
    empty_broker: Settings, database: Database, clock: ManualClock
) -> None:
    job_id = add_job(database)
    claim_as_worker(database, job_id, at=START)
    now = 0.0
    with closing(Scheduler(empty_broker, clock=clock)) as scheduler:
        scheduler._outage_detector = OutageDetector(60, monotonic=lambda: now)
        scheduler.tick()
        backdate_lease(database, job_id)
        now = 40.0
        scheduler.tick()
        assert read_job(database, job_id).status is JobStatus.RUNNING
        now = 65.0
        scheduler.tick()
        now = 90.0
        scheduler.tick()
        assert read_job(database, job_id).status is JobStatus.RUNNING
        now = 100.0
        scheduler.tick()
    assert read_job(database, job_id).status is JobStatus.QUEUED


def test_an_ignored_cancel_is_enforced_after_its_grace_period_and_again_after_each_further_one(
    empty_broker: Settings, broker: Broker, database: Database, clock: ManualClock
) -> None:
    job_id = add_job(database)
    claim_as_worker(database, job_id, at=START)
    with database.session() as session:
        job = JobRepository(session).lock(job_id)
        assert job is not None
        job.task_id = "task-1"
    ask(database, job_id, Action.CANCEL)
    grace = empty_broker.cancel_grace_seconds + empty_broker.lease_seconds
    with closing(redis.Redis.from_url(empty_broker.redis_url)) as listener, closing(listener.pubsub()) as heard:  # type: ignore[no-untyped-call]
        heard.psubscribe("*celery.pidbox")
        terminations = []
        for seconds in (grace - 1, 2, 1, grace):
            clock.advance(seconds=seconds)
            kill_unresponsive_jobs(database, broker, empty_broker, at=clock())
            terminations.append([event.type for event in events(database, job_id)].count("job.terminated"))
        assert terminations == [0, 1, 1, 2]
        orders: list[dict[str, Any]] = []
        deadline = time.monotonic() + 5
        while len(orders) < 2:
            assert time.monotonic() < deadline
            message = heard.get_message(ignore_subscribe_messages=True, timeout=1)
            orders += [] if message is None else [json.loads(base64.b64decode(json.loads(message["data"])["body"]))]
    for order in orders:
        assert order["method"] == "revoke"
        assert order["arguments"] == {"task_id": "task-1", "terminate": True, "signal": "SIGKILL"}
    backdate_lease(database, job_id)
    reclaim_lost_jobs(database, empty_broker, at=clock())
    assert read_job(database, job_id).status is JobStatus.CANCELLED


def test_a_pause_is_enforced_much_later(
    empty_broker: Settings, broker: Broker, database: Database, clock: ManualClock
) -> None:
    job_id = add_job(database)
    claim_as_worker(database, job_id, at=START)
    ask(database, job_id, Action.PAUSE)
    for graces, terminations in ((9, 0), (2, 1)):
        clock.advance(seconds=graces * (empty_broker.cancel_grace_seconds + empty_broker.lease_seconds))
        kill_unresponsive_jobs(database, broker, empty_broker, at=clock())
        assert [event.type for event in events(database, job_id)].count("job.terminated") == terminations
