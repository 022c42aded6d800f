"""Chooses the zone of a job that leaves it open: where its run is expected to emit least."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from greencore.carbon import Signal
from store.grid import GridRepository
from store.pace import Pace
from store.tables import Worker

HOUR = timedelta(hours=1)
SHORTEST_RUN = timedelta(minutes=5)
LONGEST_LOOK = timedelta(days=14)  # no forecast reaches further


@dataclass(frozen=True)
class Placement:
    """A zone, and why it was chosen."""

    zone: str
    reason: str


def zones_of(workers: Sequence[Worker]) -> list[str]:
    """Every zone that a live worker serves."""
    return sorted({zone for worker in workers for zone in worker.zones})


def place(
    session: Session,
    zones: Collection[str],
    signals: Mapping[str, Signal],
    pace: Pace | None,
    epochs: int,
    *,
    at: datetime,
) -> Placement | None:
    """Of `zones`, the one whose intensity is expected to be lowest over the job's duration at ρ = 1; None of none.

    An average and a marginal intensity cannot be compared: where zones have either, those with an average are
    compared. A zone of which nothing is known comes last, and without any knowledge the first by name is taken.
    """
    known = [zone for zone in sorted(zones) if zone in signals]
    if not known:
        return None
    comparable = [zone for zone in known if signals[zone] == "average"] or known
    hours = max(min(pace.epoch_hours * epochs, LONGEST_LOOK / HOUR) * HOUR, SHORTEST_RUN) if pace else SHORTEST_RUN
    expected = {zone: _expected(session, zone, signals[zone], at, at + hours) for zone in comparable}
    best = min(comparable, key=lambda zone: (expected[zone] is None, expected[zone] or 0.0, zone))
    intensity = expected[best]
    if intensity is None:
        return Placement(best, f"of {len(comparable)} zones none has a known intensity, and {best} is the first")
    span = f"over the {hours / HOUR:.2g} h that it is expected to take" if pace is not None else "now"
    compared = f"the lowest of {len(comparable)} zones" if len(comparable) > 1 else "the only zone"
    return Placement(best, f"{intensity:.4g} gCO2e/kWh expected {span}: {compared}")


def _expected(session: Session, zone: str, signal: Signal, start: datetime, end: datetime) -> float | None:
    outlook = GridRepository(session).knowledge(zone, signal, start, end).outlook_or_newest(start)
    return outlook.mean(start, end).gco2e_per_kwh if len(outlook) else None
