"""The queue: who waits, who holds a worker, and in which order the waiting are served."""

import heapq
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby

from sqlalchemy import ColumnElement, and_, bindparam, func, or_, select, update
from sqlalchemy.orm import Session

from runtime.site import explain_missing_worker
from store.lifecycle.status import HELD_BY_A_WORKER, JobStatus
from store.tables import Job

# A gate is looked at again within a quarter of an hour: a later time was set by a clock that has jumped since.
MAX_EVALUATION_DELAY = timedelta(hours=1)
# Any number that nothing else in this database locks.
DISPATCH_LOCK = 0x6EE7_0002


@dataclass(frozen=True)
class WaitingJob:
    """A job to be sent; `zone` is where it was placed last, `gate_evaluated` whether its gate said anything."""

    id: str
    owner: str | None
    priority: int
    zone_asked: str | None
    zone: str | None
    signal: str | None
    reason: str | None
    gate_evaluated: bool


def fair_order(waiting: Iterable[WaitingJob], held: Mapping[str | None, int]) -> Iterator[WaitingJob]:
    """Yield the jobs in the order in which they are served: by priority, then whose owner holds least, then the oldest.

    `held` counts what each owner holds. Where the caller serves a job it counts it there before it asks for the next,
    and the owner's further jobs fall back behind those of owners who hold less.
    """
    ranked = sorted(waiting, key=lambda job: (-job.priority, job.id))
    for _, rank in groupby(ranked, key=lambda job: job.priority):
        of_owner: dict[str | None, deque[WaitingJob]] = {}
        for job in rank:
            of_owner.setdefault(job.owner, deque()).append(job)
        # An id is there once, so that owners are never compared.
        owners = [(held.get(owner, 0), jobs[0].id, owner) for owner, jobs in of_owner.items()]
        heapq.heapify(owners)
        while owners:
            _, _, owner = heapq.heappop(owners)
            jobs = of_owner[owner]
            yield jobs.popleft()
            if jobs:
                heapq.heappush(owners, (held.get(owner, 0), jobs[0].id, owner))


class QueueRepository:
    """Queries of the scheduler on jobs that wait, run or are lost, inside the caller's transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def try_lock_dispatch(self) -> bool:
        """Whether this transaction alone dispatches until it ends: two that did would fill each free worker twice."""
        return bool(self._session.scalar(select(func.pg_try_advisory_xact_lock(DISPATCH_LOCK))))

    def list_waiting(
        self, status: JobStatus, *, at: datetime, redispatch_after: timedelta, zones: Collection[str] | None = None
    ) -> Sequence[WaitingJob]:
        """The jobs of a status whose message was not sent within `redispatch_after`; of those that ask for a zone,
        only the ones of `zones`, where these are given."""
        query = select(
            Job.id, Job.owner, Job.priority, Job.zone_asked, Job.zone, Job.signal, Job.reason, Job.gate.is_not(None)
        ).where(Job.status == status, ~_recently_dispatched(at, redispatch_after))
        if zones is not None:
            query = query.where(or_(Job.zone_asked.is_(None), Job.zone_asked.in_(zones)))
        return [WaitingJob(*row) for row in self._session.execute(query)]

    def list_dispatched(
        self, status: JobStatus, *, at: datetime, redispatch_after: timedelta
    ) -> Sequence[tuple[str | None, str | None]]:
        """Owner and zone of each job of a status whose message was sent within `redispatch_after`, not claimed yet."""
        query = (
            select(Job.owner, Job.zone)
            .where(Job.status == status, _recently_dispatched(at, redispatch_after))
            .order_by(Job.id)
        )
        return [(owner, zone) for owner, zone in self._session.execute(query)]

    def busy_workers(self) -> set[str]:
        """The workers that hold a job."""
        query = select(Job.worker_id).where(Job.status.in_(HELD_BY_A_WORKER), Job.worker_id.is_not(None))
        return {worker_id for worker_id in self._session.scalars(query) if worker_id is not None}

    def held_by_owner(self) -> Counter[str | None]:
        """How many workers each owner's jobs hold."""
        query = select(Job.owner, func.count()).where(Job.status.in_(HELD_BY_A_WORKER)).group_by(Job.owner)
        return Counter(dict(iter(self._session.execute(query))))

    def lock(self, job_id: str, status: JobStatus) -> Job | None:
        """The job, held until the transaction ends; None where another holds it, or it has left its status."""
        query = (
            select(Job)
            .where(Job.id == job_id, Job.status == status)
            .with_for_update(skip_locked=True)
            .execution_options(populate_existing=True)
        )
        return self._session.scalars(query).one_or_none()

    def clear_dispatch(self, *job_ids: str) -> None:
        """Take it that no message is under way for these jobs, or, without any, for all that wait to be taken up."""
        query = update(Job).where(
            Job.status.in_((JobStatus.VALIDATING, JobStatus.QUEUED)), Job.dispatched_at.is_not(None)
        )
        query = query.where(Job.id.in_(job_ids)) if job_ids else query
        self._session.execute(query.values(dispatched_at=None).execution_options(synchronize_session=False))

    def set_waiting_reasons(self, reasons: Mapping[str, str]) -> None:
        """Say of each of these queued jobs, by its id, why it waits."""
        if reasons:
            said = update(Job).where(Job.id == bindparam("job_id"), Job.status == JobStatus.QUEUED)
            self._session.connection().execute(
                said.values(reason=bindparam("why")),
                [{"job_id": job_id, "why": why} for job_id, why in reasons.items()],
            )

    def set_unserved_zone_reasons(self, zones: Collection[str], *, at: datetime, redispatch_after: timedelta) -> None:
        """Say of each queued job that asks for a zone other than `zones` that nobody serves it."""
        why = func.concat("waits for a worker in zone ", Job.zone_asked, explain_missing_worker(zones))
        unserved = (
            select(Job.id)
            .where(
                Job.status == JobStatus.QUEUED,
                Job.zone_asked.not_in(zones),
                ~_recently_dispatched(at, redispatch_after),
                Job.reason.is_distinct_from(why),
            )
            .with_for_update(skip_locked=True)
        )
        self._session.execute(
            update(Job).where(Job.id.in_(unserved)).values(reason=why).execution_options(synchronize_session=False)
        )

    def lock_due_deferred_jobs(self, *, due: datetime, limit: int) -> Sequence[Job]:
        """Locked jobs that wait for their gate, and whose next look is due."""
        return self._due(JobStatus.DEFERRED, due, limit)

    def lock_due_running_jobs(self, *, due: datetime, limit: int) -> Sequence[Job]:
        """Locked jobs that run undisturbed, and whose gate may pause them and is due for a look."""
        return self._due(JobStatus.RUNNING, due, limit, _may_pause(), Job.control == "run")

    def has_grid_dependent_jobs(self, *, at: datetime, redispatch_after: timedelta) -> bool:
        """Whether a job is to be looked at whose zone or gate depends on what is known of the grid."""
        gated = or_(_mode() != "none", Job.policy["gate"]["pause_above"].astext.is_not(None))
        due = or_(
            and_(Job.status == JobStatus.DEFERRED, _evaluation_due(at)),
            and_(Job.status == JobStatus.RUNNING, _evaluation_due(at), _may_pause()),
            and_(
                Job.status == JobStatus.QUEUED,
                ~_recently_dispatched(at, redispatch_after),
                or_(Job.zone_asked.is_(None), gated),
            ),
        )
        return self._session.scalar(select(Job.id).where(due).limit(1)) is not None

    def _due(self, status: JobStatus, due: datetime, limit: int, *conditions: ColumnElement[bool]) -> Sequence[Job]:
        query = (
            select(Job)
            .where(Job.status == status, _evaluation_due(due), *conditions)
            .order_by(Job.priority.desc(), Job.id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        return self._session.scalars(query).all()

    def lock_lost_jobs(self) -> Sequence[Job]:
        """Locked jobs whose worker has let its lease run out, by the database's clock, by which it was taken."""
        query = (
            select(Job)
            .where(Job.status.in_(HELD_BY_A_WORKER), Job.lease_expires_at < func.now())
            .order_by(Job.id)
            .with_for_update(skip_locked=True)
        )
        return self._session.scalars(query).all()

    def lock_unresponsive_jobs(self, *, cancelled_before: datetime, paused_before: datetime) -> Sequence[Job]:
        """Locked jobs that were asked to stop before these times and have not."""
        asked = or_(
            and_(Job.status == JobStatus.CANCELLING, Job.control_at < cancelled_before),
            and_(Job.status == JobStatus.PAUSING, Job.control_at < paused_before),
        )
        return self._session.scalars(select(Job).where(asked).order_by(Job.id).with_for_update(skip_locked=True)).all()


def _mode() -> ColumnElement[str]:
    mode: ColumnElement[str] = Job.policy["gate"]["mode"].astext
    return mode


def _may_pause() -> ColumnElement[bool]:
    """Whether a job's gate may close on it while it runs."""
    return or_(_mode() == "pause", and_(_mode() == "none", Job.policy["gate"]["pause_above"].astext.is_not(None)))


def _evaluation_due(at: datetime) -> ColumnElement[bool]:
    return or_(Job.not_before.is_(None), Job.not_before <= at, Job.not_before > at + MAX_EVALUATION_DELAY)


def _recently_dispatched(at: datetime, redispatch_after: timedelta) -> ColumnElement[bool]:
    """A time in the future was set by another's clock, or by one that has jumped since: it counts for as long, too."""
    sent = and_(
        Job.dispatched_at.is_not(None),
        Job.dispatched_at > at - redispatch_after,
        Job.dispatched_at < at + redispatch_after,
    )
    return func.coalesce(sent, False)
