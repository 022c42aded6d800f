"""Chooses the zone with the lowest expected intensity for a job that requests none."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from greencore.carbon import Basis
from greencore.clock import HOUR
from planning.epoch_estimate import EpochEstimate
from runtime.site import UNKNOWN_ZONE
from store.intensity.readings import GridRepository
from store.tables import Worker

SHORTEST_RUN = timedelta(minutes=5)
MAX_LOOKAHEAD = timedelta(days=14)  # no forecast reaches further


@dataclass(frozen=True)
class Placement:
    """Chosen zone and the reason."""

    zone: str
    reason: str


def list_worker_zones(workers: Sequence[Worker]) -> list[str]:
    """List the zones with a live training worker."""
    return sorted({worker.zone for worker in workers if worker.zone is not None})


def list_candidate_pues(
    workers: Sequence[Worker], zones: Collection[str], requested_zone: str | None
) -> dict[str, float]:
    """Map the zones in which a job may run to the lowest PUE of the live workers there, 1 where there is none.

    The zones are the requested one; else those with a live worker; without any worker, all of `zones`.
    """
    possible = [requested_zone] if requested_zone is not None else list_worker_zones(workers) or zones
    return {
        zone: min((worker.pue for worker in workers if worker.zone == zone and worker.pue is not None), default=1.0)
        for zone in possible
    }


def choose_zone(
    session: Session,
    zones: Collection[str],
    bases: Mapping[str, Basis],
    epoch_estimate: EpochEstimate | None,
    epochs: float,
    *,
    at: datetime,
) -> Placement | None:
    """Choose of `zones` the one with the lowest expected intensity over the job's duration at ρ = 1; None of none.

    Intensities of different bases cannot be compared: zones with average intensities are preferred to those with
    marginal ones, and among these life-cycle emission factors; the reason names the others. Zones without a known
    intensity come last, and without any known one the first by name is chosen. Workers whose site is unknown are not
    compared: they get a job where no other zone has a worker.
    """
    known = [zone for zone in sorted(zones) if zone in bases]
    if not known:
        return None
    if known == [UNKNOWN_ZONE]:
        return Placement(UNKNOWN_ZONE, "the site of every worker is unknown: priced at the world's mean")
    known = [zone for zone in known if zone != UNKNOWN_ZONE]
    basis = min((bases[zone] for zone in known), key=lambda one: (one.signal, one.emission_factors != "lifecycle"))
    comparable = [zone for zone in known if bases[zone] == basis]
    others = ", ".join(f"{zone} ({bases[zone]})" for zone in known if zone not in comparable)
    not_compared = f"; not compared, on another basis: {others}" if others else ""
    hours = (
        max(min(epoch_estimate.epoch_hours * epochs, MAX_LOOKAHEAD / HOUR) * HOUR, SHORTEST_RUN)
        if epoch_estimate
        else SHORTEST_RUN
    )
    expected = {zone: _expected_intensity(session, zone, bases[zone], at, at + hours) for zone in comparable}
    best = min(comparable, key=lambda zone: (expected[zone] is None, expected[zone] or 0.0, zone))
    intensity = expected[best]
    if intensity is None:
        return Placement(
            best, f"of {len(comparable)} zones none has a known intensity, and {best} is the first{not_compared}"
        )
    span = f"over the {hours / HOUR:.2g} h that it is expected to take" if epoch_estimate is not None else "now"
    compared = f"the lowest of {len(comparable)} zones" if len(comparable) > 1 else "the only zone"
    return Placement(best, f"{intensity:.4g} gCO2e/kWh expected {span}: {compared}{not_compared}")


def _expected_intensity(session: Session, zone: str, basis: Basis, start: datetime, end: datetime) -> float | None:
    forecast = GridRepository(session).load_snapshot(zone, basis, start, end).forecast_or_newest(start)
    return forecast.mean(start, end).gco2e_per_kwh if len(forecast) else None
