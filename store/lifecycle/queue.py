"""The job queue: waiting jobs in fair order, held devices, due gates, and jobs to reclaim."""

import heapq
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby

from sqlalchemy import ColumnElement, and_, bindparam, func, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute

from runtime.site import explain_missing_worker
from store.database import Repository, lock_row
from store.lifecycle.status import HELD_BY_A_WORKER, JobStatus
from store.tables import Job

# Gates are evaluated at least every quarter of an hour: a later time was set before a jump of the clock.
MAX_EVALUATION_DELAY = timedelta(hours=1)
# An arbitrary number, used by no other lock of this database.
DISPATCH_LOCK = 0x6EE7_0002
GATE_MODE: ColumnElement[str] = Job.policy["gate"]["mode"].astext
HAS_PAUSE_ABOVE: ColumnElement[bool] = Job.policy["gate"]["pause_above"].astext.is_not(None)
# Whether a job's gate may pause it while it runs.
MAY_PAUSE = or_(GATE_MODE == "pause", and_(GATE_MODE == "none", HAS_PAUSE_ABOVE))


@dataclass(frozen=True)
class WaitingJob:
    """A job to dispatch; `zone` is its last placement."""

    id: str
    owner: str | None
    priority: int
    zone_asked: str | None
    zone: str | None
    signal: str | None
    reason: str | None
    gpus: int = 1


@dataclass(frozen=True)
class DispatchedJob:
    """A job whose message is on its way to a worker of its zone."""

    id: str
    owner: str | None
    zone: str | None
    gpus: int


def fair_order(waiting: Iterable[WaitingJob], held: Mapping[str | None, int]) -> Iterator[WaitingJob]:
    """Yield waiting jobs by priority, then by devices held by the owner (fewest first), then by age.

    `held` counts the devices that each owner's jobs hold. A caller that dispatches a job adds its own before taking the
    next one, so that the owner's further jobs move behind those of owners who hold fewer.
    """
    ranked = sorted(waiting, key=lambda job: (-job.priority, job.id))
    for _, rank in groupby(ranked, key=lambda job: job.priority):
        of_owner: dict[str | None, deque[WaitingJob]] = {}
        for job in rank:
            of_owner.setdefault(job.owner, deque()).append(job)
        # Ids are unique, so that owners, which may be None, are never compared.
        owners = [(held.get(owner, 0), jobs[0].id, owner) for owner, jobs in of_owner.items()]
        heapq.heapify(owners)
        while owners:
            _, _, owner = heapq.heappop(owners)
            jobs = of_owner[owner]
            yield jobs.popleft()
            if jobs:
                heapq.heappush(owners, (held.get(owner, 0), jobs[0].id, owner))


class QueueRepository(Repository):
    """Queries of the scheduler on jobs that wait, run or are lost."""

    def try_lock_dispatch(self) -> bool:
        """Try to become the only dispatching transaction: two would fill each free worker twice."""
        return bool(self._session.scalar(select(func.pg_try_advisory_xact_lock(DISPATCH_LOCK))))

    def list_waiting(
        self, status: JobStatus, *, at: datetime, redispatch_after: timedelta, zones: Collection[str] | None = None
    ) -> Sequence[WaitingJob]:
        """Return the jobs of a status not dispatched within `redispatch_after`; with `zones`, those that request
        none or one of these."""
        columns = Job.id, Job.owner, Job.priority, Job.zone_asked, Job.zone, Job.signal, Job.reason, Job.gpus
        query = select(*columns).where(Job.status == status, ~_recently_dispatched(at, redispatch_after))
        if zones is not None:
            query = query.where(or_(Job.zone_asked.is_(None), Job.zone_asked.in_(zones)))
        return [WaitingJob(*row) for row in self._session.execute(query)]

    def list_dispatched(
        self, status: JobStatus, *, at: datetime, redispatch_after: timedelta
    ) -> Sequence[DispatchedJob]:
        """Return each job of a status dispatched within `redispatch_after`, and not yet claimed."""
        query = (
            select(Job.id, Job.owner, Job.zone, Job.gpus)
            .where(Job.status == status, _recently_dispatched(at, redispatch_after))
            .order_by(Job.id)
        )
        return [DispatchedJob(*row) for row in self._session.execute(query)]

    def held_by_worker(self) -> Counter[str | None]:
        """Return the number of devices of each worker that jobs hold."""
        return self._count_held(Job.worker_id)

    def held_by_owner(self) -> Counter[str | None]:
        """Return the number of devices that each owner's jobs hold."""
        return self._count_held(Job.owner)

    def _count_held(self, column: InstrumentedAttribute[str | None]) -> Counter[str | None]:
        query = select(column, func.sum(Job.gpus)).where(Job.status.in_(HELD_BY_A_WORKER)).group_by(column)
        return Counter(dict(iter(self._session.execute(query))))

    def lock(self, job_id: str, status: JobStatus) -> Job | None:
        """Return the job locked; None where another transaction has locked it, or its status has changed."""
        query = select(Job).where(Job.id == job_id, Job.status == status)
        return lock_row(self._session, query, skip_locked=True)

    def clear_dispatch(self, *job_ids: str) -> None:
        """Mark these jobs, or without any all waiting ones, as not dispatched, so that they are dispatched at once."""
        query = update(Job).where(
            Job.status.in_((JobStatus.VALIDATING, JobStatus.QUEUED)), Job.dispatched_at.is_not(None)
        )
        query = query.where(Job.id.in_(job_ids)) if job_ids else query
        self._session.execute(query.values(dispatched_at=None).execution_options(synchronize_session=False))

    def set_waiting_reasons(self, reasons: Mapping[str, str]) -> None:
        """Set the reason for which each of these queued jobs waits, by job id."""
        if reasons:
            statement = update(Job).where(Job.id == bindparam("job_id"), Job.status == JobStatus.QUEUED)
            self._session.connection().execute(
                statement.values(reason=bindparam("why")),
                [{"job_id": job_id, "why": why} for job_id, why in reasons.items()],
            )

    def set_unserved_zone_reasons(self, zones: Collection[str], *, at: datetime, redispatch_after: timedelta) -> None:
        """Set the reason of queued jobs that request a zone other than the served `zones`."""
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

    def lock_due_jobs(self, status: JobStatus, *, due: datetime, limit: int) -> Sequence[Job]:
        """Return locked deferred jobs whose gate evaluation is due, or running ones whose gate may pause them.

        Running jobs with a control request are left out.
        """
        pausable = (MAY_PAUSE, Job.control == "run") if status is JobStatus.RUNNING else ()
        query = (
            select(Job)
            .where(Job.status == status, _evaluation_due(due), *pausable)
            .order_by(Job.priority.desc(), Job.id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        return self._session.scalars(query).all()

    def has_grid_dependent_jobs(self, *, at: datetime, redispatch_after: timedelta) -> bool:
        """Return whether a job is due whose placement or gate depends on carbon intensity."""
        gated = or_(GATE_MODE != "none", HAS_PAUSE_ABOVE)
        due = or_(
            and_(Job.status == JobStatus.DEFERRED, _evaluation_due(at)),
            and_(Job.status == JobStatus.RUNNING, _evaluation_due(at), MAY_PAUSE),
            and_(
                Job.status == JobStatus.QUEUED,
                ~_recently_dispatched(at, redispatch_after),
                or_(Job.zone_asked.is_(None), gated),
            ),
        )
        return self._session.scalar(select(Job.id).where(due).limit(1)) is not None

    def lock_lost_jobs(self) -> Sequence[Job]:
        """Return locked jobs whose lease has expired by the database's clock."""
        query = (
            select(Job)
            .where(Job.status.in_(HELD_BY_A_WORKER), Job.lease_expires_at < func.now())
            .order_by(Job.id)
            .with_for_update(skip_locked=True)
        )
        return self._session.scalars(query).all()

    def lock_unresponsive_jobs(self, *, cancelled_before: datetime, paused_before: datetime) -> Sequence[Job]:
        """Return locked jobs that were asked to stop before these times and still run."""
        asked = or_(
            and_(Job.status == JobStatus.CANCELLING, Job.control_at < cancelled_before),
            and_(Job.status == JobStatus.PAUSING, Job.control_at < paused_before),
        )
        return self._session.scalars(select(Job).where(asked).order_by(Job.id).with_for_update(skip_locked=True)).all()


def _evaluation_due(at: datetime) -> ColumnElement[bool]:
    return or_(Job.not_before.is_(None), Job.not_before <= at, Job.not_before > at + MAX_EVALUATION_DELAY)


def _recently_dispatched(at: datetime, redispatch_after: timedelta) -> ColumnElement[bool]:
    """Return the condition of a recent dispatch; a time as far in the future, from another clock, counts too."""
    sent = and_(
        Job.dispatched_at.is_not(None),
        Job.dispatched_at > at - redispatch_after,
        Job.dispatched_at < at + redispatch_after,
    )
    return func.coalesce(sent, False)
