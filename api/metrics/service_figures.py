"""Figures of the service for operators, in a few queries; the same in every process."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, case, column, func, literal, select, true, values
from sqlalchemy.orm import Session
from sqlalchemy.types import Text

from store.accounting.energy_totals import energy_totals
from store.intensity.provider_health import ProviderRepository
from store.lifecycle.status import FINAL, HELD_BY_A_WORKER, JobStatus
from store.tables import EnergyInterval, EnergyTotal, IdleEnergy, IntensityReading, Job, Provider, Worker

OPEN_STATUSES = frozenset(JobStatus) - FINAL
# Waiting for the service; a paused job waits for its owner.
WAITING_STATUSES = (JobStatus.VALIDATING, JobStatus.QUEUED, JobStatus.DEFERRED)
SIGNALS = ("average", "marginal")
# An older reading is of a signal that its zone no longer has.
MAX_READING_AGE = timedelta(days=8)


@dataclass(frozen=True)
class JobCount:
    """The jobs of a zone (empty: not placed yet) at a status, and their emissions as priced now."""

    zone: str
    status: JobStatus
    jobs: int
    emissions_gco2e: float


@dataclass(frozen=True)
class OpenJobs:
    """The open jobs of a zone at a status, by the database's clock.

    `oldest_seconds` is how long the oldest has waited since it was submitted or last queued; `rho` the mean ρ, None
    where none has one; `lease_seconds_left` of the lease that runs out first, below 0 once it has; `gpus` the devices
    that they hold.
    """

    zone: str
    status: JobStatus
    oldest_seconds: float
    rho: float | None
    lease_seconds_left: float | None
    gpus: int


@dataclass(frozen=True)
class NewestIntensity:
    """The newest reading of a zone's signal, and the seconds since its interval began."""

    zone: str
    signal: str
    source: str
    gco2e_per_kwh: float
    age_seconds: float


@dataclass(frozen=True)
class ProcessCount:
    """The processes of a role in a zone (empty: of no zone): those alive, those silent, and the longest silence.

    `gpus` are the devices that the living ones give to jobs.
    """

    zone: str
    role: str
    alive: int
    silent: int
    longest_silence_seconds: float
    gpus: int


@dataclass(frozen=True)
class ServiceMetrics:
    """All figures at one moment; `at` is the database's time, to compare those in `providers` with.

    `unpriced_kwh` is the energy of each zone that has no price.
    """

    at: datetime
    counts: Sequence[JobCount]
    open_jobs: Sequence[OpenJobs]
    intensities: Sequence[NewestIntensity]
    energy: Sequence[EnergyTotal]
    idle_energy: Sequence[IdleEnergy]
    providers: Sequence[Provider]
    processes: Sequence[ProcessCount]
    unpriced_kwh: dict[str, float]


class MetricsRepository:
    """Queries over all owners, for operators only, in the caller's transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def collect(self, *, zones: Collection[str], lease_seconds: float) -> ServiceMetrics:
        """Return all figures; `zones` selects the intensities, and a worker silent for `lease_seconds` is lost."""
        now = self._session.scalar(select(func.now()))
        assert now is not None
        energy, idle = energy_totals(self._session)
        return ServiceMetrics(
            at=now,
            counts=self._counts(),
            open_jobs=self._open_jobs(),
            intensities=self._intensities(zones),
            energy=energy,
            idle_energy=idle,
            unpriced_kwh=self._unpriced_kwh(),
            providers=ProviderRepository(self._session).all(),
            processes=self._processes(lease_seconds),
        )

    def _counts(self) -> Sequence[JobCount]:
        query = select(_zone(), Job.status, func.count(), func.sum(Job.emissions_gco2e)).group_by(_zone(), Job.status)
        return [JobCount(*row) for row in self._session.execute(query)]

    def _unpriced_kwh(self) -> dict[str, float]:
        # By the zone in which it was used, like the energy itself: a job may have continued in another.
        query = (
            select(EnergyInterval.zone, func.sum(EnergyInterval.energy_kwh))
            .where(EnergyInterval.emissions_gco2e.is_(None))
            .group_by(EnergyInterval.zone)
        )
        return dict(self._session.execute(query).all())

    def _open_jobs(self) -> Sequence[OpenJobs]:
        since = case((Job.status == JobStatus.VALIDATING, Job.created_at), else_=Job.queued_at)
        query = (
            select(
                _zone(),
                Job.status,
                _seconds(func.now() - func.min(func.coalesce(since, Job.created_at))),
                func.avg(Job.rho),
                _seconds(func.min(Job.lease_expires_at) - func.now()),
                func.sum(Job.gpus),
            )
            .where(Job.status.in_(OPEN_STATUSES))
            .group_by(_zone(), Job.status)
        )
        return [
            OpenJobs(zone, status, max(0.0, oldest), rho, *((left, gpus) if status in HELD_BY_A_WORKER else (None, 0)))
            for zone, status, oldest, rho, left, gpus in self._session.execute(query)
        ]

    def _intensities(self, zones: Collection[str]) -> Sequence[NewestIntensity]:
        """Return the newest reading by zone and signal, with one index lookup for each."""
        pairs = [(zone, signal) for zone in sorted(zones) for signal in SIGNALS]
        if not pairs:
            return []
        asked = values(column("zone", Text), column("signal", Text), name="asked").data(pairs)
        newest = (
            select(IntensityReading)
            .where(
                IntensityReading.zone == asked.c.zone,
                IntensityReading.signal == asked.c.signal,
                IntensityReading.start.between(func.now() - MAX_READING_AGE, func.now()),
            )
            .order_by(IntensityReading.start.desc())
            .limit(1)
            .lateral("newest")
        )
        found = newest.c
        age = _seconds(func.now() - found.start)
        query = select(found.zone, found.signal, found.source, found.gco2e_per_kwh, age).select_from(
            asked.join(newest, true())
        )
        return [NewestIntensity(*row) for row in self._session.execute(query)]

    def _processes(self, lease_seconds: float) -> Sequence[ProcessCount]:
        silence = _seconds(func.now() - Worker.last_seen_at)
        query = select(Worker.role, Worker.zone, silence, Worker.gpus)
        seen: dict[tuple[str, str], list[tuple[float, int]]] = {}
        for role, zone, seconds, gpus in self._session.execute(query):
            seen.setdefault((zone or "", role), []).append((max(0.0, seconds), gpus))
        return [
            ProcessCount(
                zone,
                role,
                alive=sum(seconds <= lease_seconds for seconds, _ in processes),
                silent=sum(seconds > lease_seconds for seconds, _ in processes),
                longest_silence_seconds=max(seconds for seconds, _ in processes),
                gpus=sum(gpus for seconds, gpus in processes if seconds <= lease_seconds),
            )
            for (zone, role), processes in sorted(seen.items())
        ]

    def unserved_zones(self, *, lease_seconds: float) -> Mapping[str, int]:
        """Return the number of queued jobs by zone without a live training worker.

        Jobs without a requested zone count under the empty name, if no training worker is alive at all.
        """
        alive = Worker.role == "train", Worker.last_seen_at >= func.now() - timedelta(seconds=lease_seconds)
        served = set(self._session.scalars(select(Worker.zone).where(*alive)))
        asked = func.coalesce(Job.zone_asked, "")
        query = select(asked, func.count()).where(Job.status == JobStatus.QUEUED).group_by(asked).order_by(asked)
        return {
            zone: count for zone, count in self._session.execute(query) if (zone not in served if zone else not served)
        }


def _zone() -> ColumnElement[str]:
    return func.coalesce(Job.zone, Job.zone_asked, literal("", literal_execute=True))


def _seconds(interval: ColumnElement[Any]) -> ColumnElement[float]:
    return func.extract("epoch", interval).cast(Job.energy_kwh.type)
