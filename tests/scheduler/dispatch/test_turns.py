"""Fair order: against brute force, and on a real queue."""

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from greencore.carbon import Basis
from runtime.settings import Settings
from scheduler.broker import Broker
from scheduler.job_placement import Fleet
from scheduler.training_dispatch import TrainingDispatcher
from store.database import Database
from store.lifecycle.queue import WaitingJob, fair_order
from store.lifecycle.status import JobStatus
from store.repositories.workers import WorkerRepository
from store.tables import Job
from tests.scheduler.stage import START, add_job, add_worker, claim_as_worker

OWNERS = st.sampled_from(["alice", "bob", "carol", None])


def waiting(number: int, owner: str | None, priority: int) -> WaitingJob:
    return WaitingJob(f"job_{number:03d}", owner, priority, "A", "A", None, None)


@given(
    jobs=st.lists(st.tuples(OWNERS, st.integers(0, 2)), max_size=12), held=st.dictionaries(OWNERS, st.integers(0, 3))
)
def test_each_turn_is_the_highest_priority_then_the_owner_who_holds_least_then_the_oldest(
    jobs: Sequence[tuple[str | None, int]], held: dict[str | None, int]
) -> None:
    left = [waiting(number, owner, priority) for number, (owner, priority) in enumerate(jobs)]
    counted = Counter(held)
    for job in fair_order(left, counted):
        assert job == min(left, key=lambda other: (-other.priority, counted[other.owner], other.id))
        left.remove(job)
        counted[job.owner] += 1
    assert left == []


@example(queued=[("alice", 0), ("alice", 0), ("bob", 0)], workers=2, busy_for=None)
@example(queued=[("alice", 0), ("bob", 0), ("bob", 0)], workers=3, busy_for="alice")
@example(queued=[("alice", 0), ("alice", 1)], workers=1, busy_for=None)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    queued=st.lists(st.tuples(st.sampled_from(["alice", "bob", "carol"]), st.integers(0, 1)), min_size=1, max_size=7),
    workers=st.integers(1, 4),
    busy_for=st.sampled_from([None, "alice"]),
)
def test_no_owner_gets_a_second_worker_while_another_waits_and_no_priority_is_inverted(
    empty_broker: Settings, database: Database, queued: list[tuple[str, int]], workers: int, busy_for: str | None
) -> None:
    with database.session() as session:
        session.execute(text("TRUNCATE jobs, workers CASCADE"))
    for number in range(workers):
        add_worker(database, "FR", name=f"worker_{number}")
    held: Counter[str] = Counter()
    if busy_for is not None:
        claim_as_worker(database, add_job(database, zone="FR", owner=busy_for), at=START, worker="worker_0")
        held[busy_for] += 1
    for owner, priority in queued:
        add_job(database, zone="FR", owner=owner, priority=priority)
    with closing(Broker(empty_broker)) as broker, database.session() as session:
        live = WorkerRepository(session).list_live(within=timedelta(seconds=empty_broker.lease_seconds))
        fleet = Fleet(live, {"FR": Basis()})
        TrainingDispatcher(database, broker, empty_broker).dispatch(fleet, at=START)
    with database.session() as session:
        jobs = session.query(Job).where(Job.status == JobStatus.QUEUED).all()
    sent = [job for job in jobs if job.dispatched_at is not None]
    left = [job for job in jobs if job.dispatched_at is None]
    assert len(sent) == min(len(jobs), workers - held.total())
    assert all(job.reason is not None and job.reason.startswith("waits for a free worker: ") for job in left)
    assert not left or min((job.priority for job in sent), default=1) >= max(job.priority for job in left)
    for rank in (0, 1):
        holds = held + Counter(job.owner for job in sent if job.priority >= rank)
        for waits in (job for job in left if job.priority == rank):
            for other in (job for job in sent if job.priority == rank and job.owner != waits.owner):
                assert holds[other.owner] <= holds[waits.owner] + 1
