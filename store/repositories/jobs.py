"""The job aggregate: submission, reading, and what the scheduler asks for."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, TypedDict, TypeVar, Unpack

from sqlalchemy import ARRAY, Select, any_, case, func, literal, select
from sqlalchemy.orm import Session

from greencore.policy import Policy, parse_stored_policy
from runtime.ids import new_id
from runtime.tracing import traceparent
from store.database import wake_scheduler
from store.lifecycle.status import FINAL, JobStatus
from store.lifecycle.transitions import transition
from store.repositories.pagination import Page
from store.tables import Artifact, EnergyInterval, Epoch, Event, Job

Query = TypeVar("Query", bound=Select[*tuple[Any, ...]])

# What jobs can be listed by in the order of their ids; the first whose columns are all asked for is taken.
LIST_INDEXES = (("owner", "status"), ("owner", "zone"), ("owner",), ("status",), ("zone",), ())


@dataclass(frozen=True)
class NewJob:
    """What a submission fixes; every name in it has been checked by the API."""

    owner: str | None
    model: str
    dataset_id: str
    method: str
    policy_name: str | None
    policy: Mapping[str, Any]
    zone: str | None
    deadline: datetime | None
    priority: int
    hyperparameters: Mapping[str, Any]
    labels: Mapping[str, str]
    epochs: int


class JobFilter(TypedDict, total=False):
    """Which jobs a list holds: those that meet all that is given. `after` is an id; those older than it are meant."""

    after: str | None
    owner: str | None
    status: JobStatus | None
    zone: str | None
    labels: Mapping[str, str] | None


class Revision(NamedTuple):
    """Whose a job is, and how often what can be read of it has changed."""

    owner: str | None
    number: int


@dataclass(frozen=True)
class EpochCost:
    """Metered energy of one epoch, all attempts together, and its emissions.

    `emissions_gco2e` is None where part of the energy, `unpriced_kwh`, has no price; `methods` says how each part was
    measured, every way that occurred.
    """

    cpu_kwh: float
    gpu_kwh: float
    ram_kwh: float
    emissions_gco2e: float | None
    methods: Mapping[str, str]
    unpriced_kwh: float = 0.0

    @property
    def energy_kwh(self) -> float:
        return self.cpu_kwh + self.gpu_kwh + self.ram_kwh


@dataclass(frozen=True)
class EmissionsBasis:
    """How far a job's emissions are known: the energy that has no price, and what the rest was priced with.

    `lost_kwh` is the part of the energy that was lost with an attempt, and is estimated. `estimated` is true where an
    intensity behind the price is itself an estimate; `methods` says how the energy of each component was found, every
    way that occurred.
    """

    unpriced_kwh: float
    estimated: bool
    sources: Sequence[str]
    methods: Mapping[str, Sequence[str]]
    lost_kwh: float = 0.0


def get_job_policy(job: Job) -> Policy:
    """The policy as it was at submission; see `adapt_policy_to_method`."""
    return adapt_policy_to_method(job.method, job.policy, share=method_share(job))


def adapt_policy_to_method(method: str, body: Mapping[str, Any], *, share: float) -> Policy:
    """A policy as a method follows it: one that is not adaptive keeps its gate, and `share` of all FLOPs as its ρ."""
    if method == "greentrainer":
        return parse_stored_policy(body)
    return parse_stored_policy({"kind": "constant", "rho": min(share, 1.0), "gate": body.get("gate", {})})


def method_share(job: Job) -> float:
    """The share of full fine-tuning's FLOPs that the job's method takes, as preparing it found; 1 for GreenTrainer."""
    estimate = job.estimate or {}
    spent, full = estimate.get("method_flops"), estimate.get("full_flops")
    return spent / full if spent and full else 1.0


class JobRepository:
    """Queries on jobs and on what belongs to them, inside the caller's transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, new: NewJob, *, at: datetime) -> Job:
        """Write a job as `validating`, its first event, and a wake-up for the scheduler."""
        job = Job(
            id=new_id("job"),
            status=JobStatus.VALIDATING,
            owner=new.owner,
            model=new.model,
            dataset_id=new.dataset_id,
            method=new.method,
            policy_name=new.policy_name,
            policy=dict(new.policy),
            zone_asked=new.zone,
            zone=new.zone,
            deadline=new.deadline,
            priority=new.priority,
            hyperparameters=dict(new.hyperparameters),
            labels=dict(new.labels),
            epochs=new.epochs,
            created_at=at,
            traceparent=traceparent(),
        )
        self._session.add(job)
        self._session.flush()
        self.record(job.id, "job.submitted", at=at)
        wake_scheduler(self._session)
        return job

    def record(self, job_id: str, event_type: str, *, at: datetime, **data: Any) -> None:
        """Append an event to a job's history."""
        self._session.add(Event(job_id=job_id, at=at, type=event_type, data=data))

    def get(self, job_id: str) -> Job | None:
        return self._session.get(Job, job_id)

    def lock(self, job_id: str) -> Job | None:
        """The job, held until the transaction ends, as it stands in the database now."""
        query = select(Job).where(Job.id == job_id).with_for_update().execution_options(populate_existing=True)
        return self._session.scalars(query).one_or_none()

    def page(self, *, limit: int, **which: Unpack[JobFilter]) -> Page[Job]:
        """Jobs newest first."""
        return Page.from_rows(self._session.scalars(_page(select(Job), limit, which)).all(), limit)

    def revisions(self, *, limit: int, **which: Unpack[JobFilter]) -> Page[tuple[str, int]]:
        """The ids and revisions of the jobs that `page` gives: they change with anything that can be read there."""
        rows = self._session.execute(_page(select(Job.id, Job.revision), limit, which))
        return Page.from_rows([(job_id, revision) for job_id, revision in rows], limit)

    def revision(self, job_id: str) -> Revision | None:
        """What there is to know of a job before it is read."""
        found = self._session.execute(select(Job.owner, Job.revision).where(Job.id == job_id)).one_or_none()
        return None if found is None else Revision(*found)

    def increment_revision(self, job: Job) -> None:
        """Count a change of what is read with a locked job, but lies in other tables."""
        job.revision = Job.revision + 1

    def epochs(self, job_id: str) -> Sequence[Epoch]:
        """A job's epochs in order."""
        return self._session.scalars(select(Epoch).where(Epoch.job_id == job_id).order_by(Epoch.number)).all()

    def epoch_page(self, job_id: str, *, limit: int, after: int = 0) -> Page[Epoch]:
        """A job's epochs in order, those after the number `after`."""
        query = select(Epoch).where(Epoch.job_id == job_id, Epoch.number > after).order_by(Epoch.number)
        return Page.from_rows(self._session.scalars(query.limit(limit + 1)).all(), limit)

    def epoch_costs(self, job_id: str, *, epochs: Collection[int] | None = None) -> dict[int, EpochCost]:
        """What each epoch cost, all or these, summed over its intervals; lost attempts burned energy, and count."""
        price = EnergyInterval.emissions_gco2e
        query = select(
            EnergyInterval.epoch,
            func.sum(EnergyInterval.cpu_kwh),
            func.sum(EnergyInterval.gpu_kwh),
            func.sum(EnergyInterval.ram_kwh),
            case((func.bool_and(price.is_not(None)), func.sum(price))),
            func.array_agg(EnergyInterval.method.distinct()),
            func.coalesce(func.sum(EnergyInterval.energy_kwh).filter(price.is_(None)), 0.0),
        ).where(EnergyInterval.job_id == job_id)
        if epochs is not None:
            query = query.where(EnergyInterval.epoch.in_(epochs))
        found = self._session.execute(query.group_by(EnergyInterval.epoch)).all()
        return {
            epoch: EpochCost(cpu_kwh, gpu_kwh, ram_kwh, emissions_gco2e, _joined(methods), unpriced_kwh)
            for epoch, cpu_kwh, gpu_kwh, ram_kwh, emissions_gco2e, methods, unpriced_kwh in found
        }

    def emissions_basis(self, job_ids: Collection[str]) -> dict[str, EmissionsBasis]:
        """What the emissions of each of these jobs rest on; jobs without metered energy are left out."""
        query = (
            select(
                EnergyInterval.job_id,
                func.coalesce(
                    func.sum(EnergyInterval.energy_kwh).filter(EnergyInterval.emissions_gco2e.is_(None)), 0.0
                ),
                func.bool_or(EnergyInterval.intensity_estimated),
                func.array_agg(EnergyInterval.intensity_source.distinct()),
                func.array_agg(EnergyInterval.method.distinct()),
                func.coalesce(func.sum(EnergyInterval.energy_kwh).filter(EnergyInterval.lost), 0.0),
            )
            .where(EnergyInterval.job_id.in_(job_ids))
            .group_by(EnergyInterval.job_id)
        )
        return {
            job_id: EmissionsBasis(
                unpriced_kwh=unpriced_kwh,
                estimated=estimated,
                sources=[source for source in sources if source is not None],
                methods=_by_component(methods),
                lost_kwh=lost_kwh,
            )
            for job_id, unpriced_kwh, estimated, sources, methods, lost_kwh in self._session.execute(query)
        }

    def events(self, job_id: str, *, limit: int, after: int | None = None) -> Page[Event]:
        """A job's events newest first, those older than the id `after`."""
        query = select(Event).where(Event.job_id == job_id).order_by(Event.id.desc()).limit(limit + 1)
        if after is not None:
            query = query.where(Event.id < after)
        return Page.from_rows(self._session.scalars(query).all(), limit)

    def newest_event_id(self, job_id: str) -> int:
        """The id of the newest of a job's events; 0 where there is none."""
        return self._session.scalar(select(func.max(Event.id)).where(Event.job_id == job_id)) or 0

    def artifacts(self, job_id: str) -> Sequence[Artifact]:
        return self._session.scalars(select(Artifact).where(Artifact.job_id == job_id).order_by(Artifact.name)).all()

    def artifact(self, job_id: str, name: str) -> Artifact | None:
        return self._session.get(Artifact, (job_id, name))

    def open_zones(self) -> set[str]:
        """The zones of the jobs that are not over."""
        query = select(Job.zone).where(Job.status.in_(set(JobStatus) - FINAL), Job.zone.is_not(None)).distinct()
        return {zone for zone in self._session.scalars(query) if zone is not None}

    def fail(self, job: Job, *, at: datetime, error: Mapping[str, Any]) -> None:
        """End a locked job with an error: `title`, `detail` and, where one is to blame, `field`."""
        job.error = dict(error)
        transition(self._session, job, JobStatus.FAILED, at=at, reason=str(error["detail"]))


def _page(query: Query, limit: int, which: JobFilter) -> Query:
    """One row more than a page holds, newest first.

    Left to itself, PostgreSQL goes through all jobs from the newest on as long as it expects to meet enough of those
    meant, and an owner's may all be old. As one of an array, and named in the order, what is asked for leaves only the
    index that has both.
    """
    given = {name: value for name in ("owner", "status", "zone") if (value := which.get(name)) is not None}
    index = next(names for names in LIST_INDEXES if given.keys() >= set(names))
    for name, value in given.items():
        column = Job.__table__.c[name]
        wanted = any_(literal([value], ARRAY(column.type))) if name in index else value
        query = query.where(column == wanted)
    if (after := which.get("after")) is not None:
        query = query.where(Job.id < after)
    if labels := which.get("labels"):
        query = query.where(Job.labels.contains(dict(labels)))
    return query.order_by(*(Job.__table__.c[name].desc() for name in index), Job.id.desc()).limit(limit + 1)


def _joined(methods: Sequence[Mapping[str, str]]) -> dict[str, str]:
    return {component: ", ".join(ways) for component, ways in _by_component(methods).items()}


def _by_component(methods: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    components = sorted({component for method in methods for component in method})
    return {
        component: sorted({method[component] for method in methods if component in method}) for component in components
    }
