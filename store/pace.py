"""How long an epoch of a job takes and what energy it needs: measured where it can be, assumed where it cannot."""

from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from store.settings import Settings
from store.tables import EnergyInterval, Epoch, Event, Job

HOUR = timedelta(hours=1)
RECENT_EPOCHS = 20
# Orders of magnitude for a device that has not run anything yet: what a data-centre GPU, and a few cores, sustain in
# training a transformer. `GREENTUNE_ASSUMED_TFLOPS` and `GREENTUNE_ASSUMED_POWER_W` put the operator's in their place.
ASSUMED_TFLOPS = {"gpu": 100.0, "cpu": 0.05}
ASSUMED_POWER_W = {"gpu": 500.0, "cpu": 60.0}
ASSUMED_STARTUP_HOURS = 1 / 60


@dataclass(frozen=True)
class Pace:
    """One epoch at ρ = 1: hours of computing and kWh (before PUE); `startup_hours` until a started job trains.

    `basis` says in words what the figures rest on, `assumed` that nothing was measured yet.
    """

    epoch_hours: float
    epoch_kwh: float
    startup_hours: float
    basis: str
    assumed: bool = False


def pace(session: Session, job: Job, settings: Settings, *, device: str | None) -> Pace | None:
    """The pace of a job on a device ("cpu" or a GPU's name; None where it is not known yet).

    From its own finished epochs; else from the newest epochs of the same model on that device, or of any model, by
    FLOPs; else assumed. None before the job is prepared, when its FLOPs are not known.
    """
    if not job.estimate:
        return None
    epoch_flops = job.estimate["full_flops"] / job.epochs
    where = device or job.device
    ways: list[tuple[str, list[ColumnElement[bool]]]] = [("its own epochs", [Job.id == job.id])]
    if where is not None:
        ways.append(("recent epochs of its model on this device", [Job.model == job.model, Job.device == where]))
        ways.append(("recent epochs of other models on this device", [Job.device == where]))
    startup = _startup_hours(session, job)
    for basis, conditions in ways:
        measured = _measured(session, conditions)
        if measured is not None:
            hours_per_flop, kwh_per_flop = measured
            return Pace(epoch_flops * hours_per_flop, epoch_flops * kwh_per_flop, startup, basis)
    kind = "cpu" if where in (None, "cpu") else "gpu"
    tflops = settings.assumed_tflops or ASSUMED_TFLOPS[kind]
    power_w = settings.assumed_power_w or ASSUMED_POWER_W[kind]
    hours = epoch_flops / (tflops * 1e12) / 3600
    return Pace(hours, hours * power_w / 1000, startup, f"what is assumed: {tflops:g} TFLOP/s, {power_w:g} W", True)


def _measured(session: Session, conditions: list[ColumnElement[bool]]) -> tuple[float, float] | None:
    """Hours and kWh per FLOP over the newest finished epochs; metered time, in which a pause does not count."""
    recent = (
        select(Epoch.job_id, Epoch.number, (Epoch.flops + func.coalesce(Epoch.probe_flops, 0.0)).label("flops"))
        .join(Job, Job.id == Epoch.job_id)
        .where(Epoch.finished_at.is_not(None), Epoch.flops > 0, *conditions)
        .order_by(Epoch.finished_at.desc())
        .limit(RECENT_EPOCHS)
        .subquery()
    )
    seconds = func.extract("epoch", EnergyInterval.finished_at - EnergyInterval.started_at)
    metered = (
        select(recent.c.flops, func.sum(seconds).label("seconds"), func.sum(EnergyInterval.energy_kwh).label("kwh"))
        .join(EnergyInterval, (EnergyInterval.job_id == recent.c.job_id) & (EnergyInterval.epoch == recent.c.number))
        .group_by(recent.c.job_id, recent.c.number, recent.c.flops)
        .subquery()
    )
    totals = select(func.sum(metered.c.flops), func.sum(metered.c.seconds), func.sum(metered.c.kwh))
    flops, total_seconds, total_kwh = session.execute(totals).one()
    if not flops or not total_seconds:
        return None
    return float(total_seconds) / 3600 / flops, float(total_kwh) / flops


def _startup_hours(session: Session, job: Job) -> float:
    """From being claimed to training, as its last attempt had it."""
    query = (
        select(Event.type, Event.at)
        .where(Event.job_id == job.id, Event.type.in_(["job.running", "training.started"]))
        .order_by(Event.id.desc())
        .limit(3)
    )
    events = session.execute(query).all()
    for (later, ended), (earlier, began) in pairwise(events):
        if (earlier, later) == ("job.running", "training.started"):
            return float((ended - began) / HOUR)
    return ASSUMED_STARTUP_HOURS
