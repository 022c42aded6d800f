"""Looks at a job that waits: the zone where it would run, whether its gate lets it, and when it would be over."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from greencore.carbon import Signal
from greencore.policy.gating import Look
from scheduler.gates import is_gated, look_at_gate
from store.eta import expected_end_of_waiting, keep
from store.grid import signal_named
from store.pace import pace
from store.placement import place, zones_of
from store.settings import Settings
from store.site import none_alive
from store.tables import Job, Worker
from store.workers import WorkerRepository

log = structlog.get_logger()

NOT_LOOKED_AT = "its gate could not be looked at, which is tried again"


@dataclass(frozen=True)
class Fleet:
    """The live training workers, and the signal of each zone that has a source."""

    workers: Sequence[Worker]
    signals: Mapping[str, Signal]

    def zones(self, signal: str | None = None) -> list[str]:
        """The zones that are served; where a signal is given, only those that are measured by it."""
        served = (zone for zone in zones_of(self.workers) if zone in self.signals)
        return [zone for zone in served if signal in (None, self.signals[zone])]


def live_workers(session: Session, settings: Settings) -> Sequence[Worker]:
    """The training workers that were seen within the time of a lease."""
    return WorkerRepository(session).live(within=timedelta(seconds=settings.lease_seconds))


def nobody_serves(zone_asked: str | None, signal: str | None, served: Collection[str]) -> str:
    """Why a job waits that no live worker, all of which are in the zones `served`, could run."""
    if zone_asked is not None:
        return f"waits for a worker in zone {zone_asked}{none_alive(served)}"
    return f"waits for a worker{f' of a zone with a {signal} intensity' if signal is not None else ''}: none is alive"


def guarded(session: Session, job: Job, look: Callable[[], Look | None]) -> Look | None:
    """What a look at one job finds. No job may hold up the others: one whose look fails is left as it was, with a
    reason, and found to be None. Raises `DBAPIError` alone."""
    try:
        with session.begin_nested():
            return look()
    except DBAPIError:
        raise
    except Exception as fault:
        log.exception("job.not_looked_at", job=job.id, exc_info=fault)
        job.reason = NOT_LOOKED_AT
        return None


def look_at_waiting(session: Session, job: Job, fleet: Fleet, settings: Settings, *, at: datetime) -> Look | None:
    """Place a locked job and look at its gate; None, with the reason in the job, where no worker could run it."""
    # What has been priced by one signal stays with it.
    zones = fleet.zones(job.signal) if job.zone_asked is None else fleet.zones()
    if not zones or (job.zone_asked is not None and job.zone_asked not in zones):
        job.reason = nobody_serves(job.zone_asked, job.signal, zones)
        return None
    expected = pace(session, job, settings, device=job.device or fleet.workers[0].device)
    zone, why = job.zone_asked, "no gate"
    if zone is None:
        placement = place(session, zones, fleet.signals, expected, job.epochs, at=at)
        assert placement is not None
        zone, why = placement.zone, placement.reason
    job.zone = zone
    job.signal = job.signal or fleet.signals[zone]
    found = Look(True, None, 0.0, False, False, False, why)
    if is_gated(job):
        signal = signal_named(job.signal)
        found = look_at_gate(session, job, expected, settings, zone=zone, signal=signal, computing=False, at=at)
    there = sum(worker.zone == zone for worker in fleet.workers)
    keep(job, expected_end_of_waiting(session, job, expected, workers=there, at=at))
    return found
