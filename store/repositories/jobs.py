"""Jobs: submission, reads of a job and its epochs, energy, events and artifacts, and job lists."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, TypedDict, TypeVar, Unpack

from sqlalchemy import ARRAY, Select, any_, case, func, literal, select, text

from greencore.policy import Policy, parse_stored_policy
from runtime.ids import new_id
from runtime.tracing import traceparent
from store.database import Repository, lock_row, wake_scheduler
from store.lifecycle.status import FINAL, JobStatus
from store.lifecycle.transitions import transition
from store.repositories.pagination import Page, load_newest, load_page
from store.tables import Artifact, EnergyInterval, Epoch, Evaluation, Event, Job, Tensor

Query = TypeVar("Query", bound=Select[*tuple[Any, ...]])

# Indexes for lists in the order of ids; the first whose columns are all filtered by is used.
LIST_INDEXES = (
    ("owner", "name"),
    ("name",),
    ("owner", "status"),
    ("owner", "zone"),
    ("owner", "model"),
    ("owner",),
    ("status",),
    ("zone",),
    ("model",),
    (),
)
MAX_OPEN_COUNT = 1000
OPEN_STATUSES = tuple(status for status in JobStatus if status not in FINAL)
# Ordered as an index and filtered by arrays, so that PostgreSQL reads no more of that index than is counted, as in
# `_filter_jobs`.
COUNT_ALL_QUERY = text("""
    SELECT status, (SELECT count(*) FROM (
        SELECT FROM jobs WHERE jobs.status = ANY(ARRAY[asked.status]) ORDER BY jobs.status, jobs.id LIMIT :limit
    ) AS met) FROM unnest(CAST(:statuses AS varchar[])) AS asked (status)
""")
COUNT_OF_OWNER_QUERY = text("""
    SELECT status, (SELECT count(*) FROM (
        SELECT FROM jobs
        WHERE jobs.owner = ANY(ARRAY[CAST(:owner AS varchar)]) AND jobs.status = ANY(ARRAY[asked.status])
        ORDER BY jobs.owner, jobs.status, jobs.id LIMIT :limit
    ) AS met) FROM unnest(CAST(:statuses AS varchar[])) AS asked (status)
""")
UNPRICED_KWH = func.coalesce(func.sum(EnergyInterval.energy_kwh).filter(EnergyInterval.emissions_gco2e.is_(None)), 0.0)


@dataclass(frozen=True)
class NewJob:
    """A submission, by column of `Job`; the API has checked every name in it."""

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
    validation_dataset_id: str | None = None
    name: str | None = None
    base_job_id: str | None = None
    hyperparameters_asked: Mapping[str, Any] | None = None
    gpus_asked: int | None = 1
    gpus: int = 1


class JobFilter(TypedDict, total=False):
    """Filters of a job list, all of which must match; `after` is an id, and matches older jobs."""

    after: str | None
    owner: str | None
    status: JobStatus | None
    zone: str | None
    name: str | None
    model: str | None
    labels: Mapping[str, str] | None


class Revision(NamedTuple):
    """Owner of a job, and the number of its visible changes."""

    owner: str | None
    number: int


@dataclass(frozen=True)
class EpochCost:
    """Metered energy of one epoch over all attempts, and its emissions.

    `emissions_gco2e` is None where part of the energy, `unpriced_kwh`, has no price; `methods` lists the metering
    methods of each component.
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
    """Basis of a job's emissions: energy without a price, and the intensity sources of the rest.

    `lost_kwh` is the energy lost with an attempt, an estimate; `evaluation_kwh` that of evaluations. `estimated`
    is true where any intensity is an estimate; `methods` lists the metering methods of each component.
    """

    unpriced_kwh: float
    estimated: bool
    sources: Sequence[str]
    methods: Mapping[str, Sequence[str]]
    lost_kwh: float = 0.0
    evaluation_kwh: float = 0.0


def get_job_policy(job: Job) -> Policy:
    """Return the policy of a job's submission, adapted by `adapt_policy_to_method`."""
    return adapt_policy_to_method(job.method, job.policy, share=method_share(job))


def adapt_policy_to_method(method: str, body: Mapping[str, Any], *, share: float) -> Policy:
    """Return the policy for a method: one that is not adaptive keeps the gate, with `share` of all FLOPs as its ρ."""
    if method == "greentrainer":
        return parse_stored_policy(body)
    return parse_stored_policy({"kind": "constant", "rho": min(share, 1.0), "gate": body.get("gate", {})})


def method_share(job: Job) -> float:
    """Return the method's share of full fine-tuning's FLOPs, measured during preparation; 1 for GreenTrainer."""
    estimate = job.estimate or {}
    spent, full = estimate.get("method_flops"), estimate.get("full_flops")
    return spent / full if spent and full else 1.0


def whole_epochs(job: Job) -> float:
    """Return a job's length in whole epochs, of which `max_steps` may leave a fraction of the last."""
    per_epoch = (job.estimate or {}).get("steps_per_epoch")
    return job.steps / per_epoch if per_epoch and job.steps else float(job.epochs)


def share_left(job: Job) -> float:
    """Return the share of a job's steps that are not done, from 0 to 1; 1 before their number is known."""
    return max(1 - job.steps_done / job.steps, 0.0) if job.steps else 1.0


class JobRepository(Repository):
    """Queries on jobs and on what belongs to them."""

    def add(self, new: NewJob, *, at: datetime) -> Job:
        """Insert a job as `validating` with its first event, and wake the scheduler."""
        job = Job(
            id=new_id("job"),
            status=JobStatus.VALIDATING,
            zone_asked=new.zone,
            created_at=at,
            traceparent=traceparent(),
            **vars(new),
        )
        self._session.add(job)
        self._session.flush()
        self.record(job.id, "job.submitted", at=at)
        wake_scheduler(self._session)
        return job

    def set_method(
        self, job: Job, method: str, *, hyperparameters: Mapping[str, Any], reason: str, at: datetime
    ) -> None:
        """Set the method that was chosen for a locked job, and the hyperparameters of the run by it."""
        job.method, job.hyperparameters, job.method_reason = method, dict(hyperparameters), reason
        self.record(job.id, "method.chosen", at=at, method=method, reason=reason)

    def record(self, job_id: str, event_type: str, *, at: datetime, **data: Any) -> None:
        """Append an event to a job's history."""
        self._session.add(Event(job_id=job_id, at=at, type=event_type, data=data))

    def get(self, job_id: str) -> Job | None:
        return self._session.get(Job, job_id)

    def lock(self, job_id: str) -> Job | None:
        """Return the job locked, with its present values."""
        return lock_row(self._session, select(Job).where(Job.id == job_id))

    def page(self, *, limit: int, **which: Unpack[JobFilter]) -> Page[Job]:
        """Return jobs newest first."""
        return load_page(self._session, _filter_jobs(select(Job), which), limit=limit)

    def revisions(self, *, limit: int, **which: Unpack[JobFilter]) -> Page[tuple[str, int]]:
        """Return the ids and revisions of the jobs of `page`, which change with any visible value."""
        rows = self._session.execute(_filter_jobs(select(Job.id, Job.revision), which).limit(limit + 1))
        return Page.from_rows([(job_id, revision) for job_id, revision in rows], limit)

    def revision(self, job_id: str) -> Revision | None:
        """Return a job's owner and revision, to check access and cache validity before reading it."""
        found = self._session.execute(select(Job.owner, Job.revision).where(Job.id == job_id)).one_or_none()
        return None if found is None else Revision(*found)

    def increment_revision(self, job: Job) -> None:
        """Increment a locked job's revision, for a change in another table that is read with the job."""
        job.revision = Job.revision + 1

    def epochs(self, job_id: str) -> Sequence[Epoch]:
        """Return a job's epochs in order."""
        return self._session.scalars(select(Epoch).where(Epoch.job_id == job_id).order_by(Epoch.number)).all()

    def epoch_page(self, job_id: str, *, limit: int, after: int = 0) -> Page[Epoch]:
        """Return a job's epochs in order, those after the number `after`."""
        query = select(Epoch).where(Epoch.job_id == job_id, Epoch.number > after).order_by(Epoch.number)
        return load_page(self._session, query, limit=limit)

    def selections(self, job_id: str, *, limit: int, after: int | None = None) -> Page[Epoch]:
        """Return epochs with a selection, newest first, those with a number below `after`."""
        query = select(Epoch).where(Epoch.job_id == job_id, Epoch.selection.is_not(None))
        return load_newest(self._session, query, Epoch.number, limit=limit, after=after)

    def evaluation_page(self, job_id: str, *, limit: int, after: int = 0) -> Page[Evaluation]:
        """Return a job's evaluations during training in order, those after the step `after`."""
        query = select(Evaluation).where(Evaluation.job_id == job_id, Evaluation.step > after).order_by(Evaluation.step)
        return load_page(self._session, query, limit=limit)

    def newest_evaluations(self, job_id: str, *, limit: int) -> Page[Evaluation]:
        """Return a job's evaluations during training, newest first."""
        query = select(Evaluation).where(Evaluation.job_id == job_id)
        return load_newest(self._session, query, Evaluation.step, limit=limit)

    def tensors(self, job_id: str) -> Sequence[Tensor]:
        """Return a job's tensors from output to input; empty until training starts, and for jobs of old versions."""
        return self._session.scalars(select(Tensor).where(Tensor.job_id == job_id).order_by(Tensor.position)).all()

    def epoch_costs(self, job_id: str, *, epochs: Collection[int] | None = None) -> dict[int, EpochCost]:
        """Return the cost of all epochs, or of `epochs`, by number, lost attempts included."""
        price = EnergyInterval.emissions_gco2e
        query = select(
            EnergyInterval.epoch,
            func.sum(EnergyInterval.cpu_kwh),
            func.sum(EnergyInterval.gpu_kwh),
            func.sum(EnergyInterval.ram_kwh),
            case((func.bool_and(price.is_not(None)), func.sum(price))),
            func.array_agg(EnergyInterval.method.distinct()),
            UNPRICED_KWH,
        ).where(EnergyInterval.job_id == job_id)
        if epochs is not None:
            query = query.where(EnergyInterval.epoch.in_(epochs))
        found = self._session.execute(query.group_by(EnergyInterval.epoch)).all()
        return {
            epoch: EpochCost(cpu_kwh, gpu_kwh, ram_kwh, emissions_gco2e, _joined(methods), unpriced_kwh)
            for epoch, cpu_kwh, gpu_kwh, ram_kwh, emissions_gco2e, methods, unpriced_kwh in found
        }

    def emissions_basis(self, job_ids: Collection[str]) -> dict[str, EmissionsBasis]:
        """Return the basis of the emissions of each job; jobs without metered energy are left out."""
        query = (
            select(
                EnergyInterval.job_id,
                UNPRICED_KWH,
                func.bool_or(EnergyInterval.intensity_estimated),
                func.array_agg(EnergyInterval.intensity_source.distinct()),
                func.array_agg(EnergyInterval.method.distinct()),
                func.coalesce(func.sum(EnergyInterval.energy_kwh).filter(EnergyInterval.lost), 0.0),
                func.coalesce(func.sum(EnergyInterval.energy_kwh).filter(EnergyInterval.evaluation), 0.0),
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
                evaluation_kwh=evaluation_kwh,
            )
            for job_id, unpriced_kwh, estimated, sources, methods, lost_kwh, evaluation_kwh in self._session.execute(
                query
            )
        }

    def events(self, job_id: str, *, limit: int, after: int | None = None) -> Page[Event]:
        """Return a job's events newest first, those older than the id `after`."""
        query = select(Event).where(Event.job_id == job_id)
        return load_newest(self._session, query, Event.id, limit=limit, after=after)

    def newest_event_id(self, job_id: str) -> int:
        """Return the id of a job's newest event; 0 without events."""
        return self._session.scalar(select(func.max(Event.id)).where(Event.job_id == job_id)) or 0

    def artifacts(self, job_id: str) -> Sequence[Artifact]:
        return self._session.scalars(select(Artifact).where(Artifact.job_id == job_id).order_by(Artifact.name)).all()

    def artifact(self, job_id: str, name: str) -> Artifact | None:
        return self._session.get(Artifact, (job_id, name))

    def count_open(self, *, owner: str | None, most: int = MAX_OPEN_COUNT) -> Mapping[JobStatus, int]:
        """Return the number of open jobs of an owner, or of all, by status in lifecycle order; `most` + 1 means more.

        Statuses without jobs are left out.
        """
        values = {"statuses": [status.value for status in OPEN_STATUSES], "limit": most + 1}
        query = COUNT_ALL_QUERY if owner is None else COUNT_OF_OWNER_QUERY.bindparams(owner=owner)
        counts = {row.status: row[1] for row in self._session.execute(query, values)}
        return {status: counts[status.value] for status in OPEN_STATUSES if counts[status.value]}

    def open_zones(self) -> set[str]:
        """Return the zones of open jobs."""
        query = select(Job.zone).where(Job.status.in_(OPEN_STATUSES), Job.zone.is_not(None)).distinct()
        return {zone for zone in self._session.scalars(query) if zone is not None}

    def fail(self, job: Job, *, at: datetime, error: Mapping[str, Any]) -> None:
        """End a locked job with an error: `title`, `detail` and optionally `field`."""
        job.error = dict(error)
        transition(self._session, job, JobStatus.FAILED, at=at, reason=str(error["detail"]))


def _filter_jobs(query: Query, which: JobFilter) -> Query:
    """Filter a query on jobs, and order it newest first.

    PostgreSQL would otherwise scan all jobs from the newest on if it expects enough matches, while an owner's may all
    be old. A filter as an array, with its column in the order, can use only the index that has both.
    """
    given = {
        name: value for name in ("owner", "status", "zone", "name", "model") if (value := which.get(name)) is not None
    }
    index = next(names for names in LIST_INDEXES if given.keys() >= set(names))
    for name, value in given.items():
        column = Job.__table__.c[name]
        wanted = any_(literal([value], ARRAY(column.type))) if name in index else value
        query = query.where(column == wanted)
    if (after := which.get("after")) is not None:
        query = query.where(Job.id < after)
    if labels := which.get("labels"):
        query = query.where(Job.labels.contains(dict(labels)))
    return query.order_by(*(Job.__table__.c[name].desc() for name in index), Job.id.desc())


def _joined(methods: Sequence[Mapping[str, str]]) -> dict[str, str]:
    return {component: ", ".join(ways) for component, ways in _by_component(methods).items()}


def _by_component(methods: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    components = sorted({component for method in methods for component in method})
    return {
        component: sorted({method[component] for method in methods if component in method}) for component in components
    }
