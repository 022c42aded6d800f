"""Energy totals of each zone by component (cpu, gpu, ram): used by jobs, and idle."""

from collections.abc import Mapping, Sequence

from sqlalchemy import func, literal, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from store.tables import EnergyTotal, IdleEnergy


def add_to_totals(session: Session, zone: str, kwh: Mapping[str, float]) -> None:
    """Add energy of a job, by component, to the totals of a zone."""
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
