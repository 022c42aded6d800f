"""A host of steady power with attempts on it, and what they and its idle time are billed."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from sqlalchemy import func, select

from greencore.carbon import PricedInterval
from greencore.carbon.accounting.pricing import price_by_reading
from greencore.carbon.series import IntensitySeries
from greencore.energy import EnergyInterval as Metered
from greencore.energy.interval import JOULES_PER_KWH
from store.accounting import metering
from store.accounting.energy_totals import idle_energy
from store.accounting.host_shares import IdleSample, store_idle_energy
from store.database import Database
from store.lifecycle.leases import Lease, claim
from store.tables import EnergyInterval, Job
from tests.scheduler.stage import add_job

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
CPU_W, RAM_W, GPU_W = 200.0, 40.0, 300.0


Answer = TypeVar("Answer")


class Host:
    """A host of steady power, whose monotonic clock a test sets, and the attempts that run on it."""

    def __init__(self, database: Database, name: str = "boot-1") -> None:
        self._database, self._name = database, name
        self.seconds = 0.0

    def start(self, *gpus: str, processes: int = 1) -> Lease:
        job_id = add_job(self._database, gpus=processes)
        with self._database.session() as session:
            lease = claim(session, job_id, worker_id="w", device="cpu", at=self.now, lease_seconds=60)
            assert lease is not None
            session.get_one(Job, job_id).zone = "X"
        self.transact(
            lambda session: metering.begin_sharing(
                session, lease, host=self._name, gpus=gpus, monotonic=lambda: self.seconds
            )
        )
        return lease

    def stop(self, lease: Lease) -> None:
        self.transact(lambda session: metering.end_sharing(session, lease, monotonic=lambda: self.seconds))

    def meter(self, lease: Lease, since: float, *, gpus: int = 0, wall_ahead: timedelta = timedelta(0)) -> bool:
        """Store an attempt's measurement since a time: the whole host, and its own GPUs."""
        seconds = self.seconds - since
        interval = Metered(
            start=NOON + timedelta(seconds=since) + wall_ahead,
            end=NOON + timedelta(seconds=self.seconds) + wall_ahead,
            cpu_kwh=CPU_W * seconds / JOULES_PER_KWH,
            gpu_kwh=gpus * GPU_W * seconds / JOULES_PER_KWH,
            ram_kwh=RAM_W * seconds / JOULES_PER_KWH,
            cpu_method="RAPL",
            gpu_method="NVML energy counter",
            ram_method="capacity estimate",
            monotonic_start=since,
        )
        return self.transact(lambda session: metering.store_energy(session, lease, 0, interval, price=priced))

    def sample(self, since: float, *, cpu_w: float = CPU_W, gpu_w: dict[str, float] | None = None) -> IdleSample:
        seconds = self.seconds - since
        return IdleSample(
            since,
            self.seconds,
            cpu_kwh=cpu_w * seconds / JOULES_PER_KWH,
            ram_kwh=RAM_W * seconds / JOULES_PER_KWH,
            gpu_kwh={uuid: watts * seconds / JOULES_PER_KWH for uuid, watts in (gpu_w or {}).items()},
        )

    def store_idle(self, *samples: IdleSample) -> int:
        return self.transact(lambda session: store_idle_energy(session, self._name, "X", samples, silent_seconds=30))

    def transact(self, work: Callable[..., Answer]) -> Answer:
        with self._database.session() as session:
            return work(session)

    @property
    def now(self) -> datetime:
        return NOON + timedelta(seconds=self.seconds)


def priced(part: Metered) -> list[PricedInterval]:
    return price_by_reading(part, IntensitySeries([]))


def billed(database: Database, lease: Lease, component: str = "cpu") -> float:
    """Return the joules of a component that a job was billed."""
    column = getattr(EnergyInterval, f"{component}_kwh")
    with database.session() as session:
        total = session.scalar(
            select(func.coalesce(func.sum(column), 0.0)).where(EnergyInterval.job_id == lease.job_id)
        )
    return float(total or 0.0) * JOULES_PER_KWH


def idle(database: Database, component: str = "cpu") -> float:
    with database.session() as session:
        return sum(row.kwh for row in idle_energy(session) if row.component == component) * JOULES_PER_KWH
