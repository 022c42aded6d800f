"""Adds energy to jobs and to the totals of each zone by component (cpu, gpu, ram): used by jobs, and idle."""

from collections.abc import Mapping, Sequence

from sqlalchemy import func, literal, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from greencore.carbon import PricedInterval
from greencore.energy import EnergyInterval as MeteredInterval
from runtime.site import UNKNOWN_ZONE
from store.tables import EnergyInterval, EnergyTotal, IdleEnergy, Job


def add_job_energy(
    session: Session,
    job: Job,
    interval: MeteredInterval,
    pieces: Sequence[PricedInterval],
    *,
    attempt: int,
    epoch: int,
    methods: Mapping[str, str],
    lost: bool = False,
    evaluation: bool = False,
) -> None:
    """Store an interval of a locked job in priced pieces, and add it to the job and to the totals of its zone.

    The energy of a piece without a price is counted now, its emissions once it is priced.
    """
    zone = job.zone or UNKNOWN_ZONE
    for piece in pieces:
        share = piece.energy_kwh / interval.energy_kwh if interval.energy_kwh else 1 / len(pieces)
        session.add(
            EnergyInterval(
                job_id=job.id,
                epoch=epoch,
                attempt=attempt,
                started_at=piece.start,
                finished_at=piece.end,
                cpu_kwh=interval.cpu_kwh * share,
                gpu_kwh=interval.gpu_kwh * share,
                ram_kwh=interval.ram_kwh * share,
                method=dict(methods),
                zone=zone,
                intensity_gco2e_per_kwh=piece.intensity_gco2e_per_kwh,
                intensity_source=", ".join(piece.sources) or None,
                intensity_estimated=piece.estimated,
                pue=piece.pue,
                emissions_gco2e=piece.emissions_gco2e,
                lost=lost,
                evaluation=evaluation,
            )
        )
        job.emissions_gco2e += piece.emissions_gco2e or 0.0
    job.energy_kwh += interval.energy_kwh
    kwh = {"cpu": interval.cpu_kwh, "gpu": interval.gpu_kwh, "ram": interval.ram_kwh}
    _add(session, EnergyTotal, zone, kwh)


def add_to_idle_energy(session: Session, zone: str, kwh: Mapping[str, float]) -> None:
    """Add energy that no job used, by component, to the idle energy of a zone."""
    _add(session, IdleEnergy, zone, kwh)


def energy_totals(session: Session) -> tuple[Sequence[EnergyTotal], Sequence[IdleEnergy]]:
    """Return the energy used by jobs and the idle energy, by zone and component, in one consistent read."""
    used = select(EnergyTotal.zone, EnergyTotal.component, EnergyTotal.kwh, literal(False))
    unused = select(IdleEnergy.zone, IdleEnergy.component, IdleEnergy.kwh, literal(True))
    rows = sorted(tuple(row) for row in session.execute(used.union_all(unused)))
    return (
        [EnergyTotal(zone=zone, component=part, kwh=kwh) for zone, part, kwh, is_idle in rows if not is_idle],
        [IdleEnergy(zone=zone, component=part, kwh=kwh) for zone, part, kwh, is_idle in rows if is_idle],
    )


def idle_energy(session: Session) -> Sequence[IdleEnergy]:
    """Return the idle energy by zone and component."""
    return session.scalars(select(IdleEnergy).order_by(IdleEnergy.zone, IdleEnergy.component)).all()


def idle_energy_by_zone(session: Session) -> dict[str, float]:
    """Return the idle energy by zone, summed over components."""
    query = select(IdleEnergy.zone, func.sum(IdleEnergy.kwh)).group_by(IdleEnergy.zone)
    return dict(iter(session.execute(query)))


def _add(session: Session, table: type[EnergyTotal | IdleEnergy], zone: str, kwh: Mapping[str, float]) -> None:
    """Upsert the totals, ordered by component to prevent deadlocks."""
    rows = [{"zone": zone, "component": component, "kwh": added} for component, added in sorted(kwh.items())]
    added = insert(table).values(rows)
    session.execute(
        added.on_conflict_do_update(index_elements=["zone", "component"], set_={"kwh": table.kwh + added.excluded.kwh})
    )
