"""Estimates the energy that an attempt used after its last stored interval and did not store."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from greencore.carbon import IntensitySeries
from greencore.carbon.accounting.pricing import price_by_reading
from greencore.energy import LONGEST_INTERVAL_SECONDS
from greencore.energy import EnergyInterval as Metered
from greencore.energy.interval import JOULES_PER_KWH
from runtime.site import UNKNOWN_ZONE
from store.accounting.energy_totals import add_job_energy, add_to_idle_energy
from store.accounting.host_shares import leave_host
from store.database import database_now
from store.tables import EnergyInterval, Epoch, Event, Job, MeteredAttempt

# Power of a device without measurements; `GREENTUNE_ASSUMED_POWER_W` replaces it.
ASSUMED_POWER_W = {"gpu": 500.0, "cpu": 60.0}
# A shorter time is that of a write.
SHORTEST_SECONDS = 0.1

MEAN_POWER = "the attempt's mean power"
ASSUMED_POWER = "the device's assumed power"


def get_assumed_gpu_power(device: str | None, assumed_power_w: float | None) -> float:
    """Return the watts assumed of a GPU without a meter: 0 for a CPU, else the operator's figure or our own."""
    return 0.0 if device in (None, "cpu") else assumed_power_w or ASSUMED_POWER_W["gpu"]


class _Power(NamedTuple):
    """Watts by component, and their basis: measured or assumed."""

    watts: Mapping[str, float]
    basis: str


def end_attempt_metering(session: Session, job: Job, *, at: datetime) -> None:
    """Close the metering of a locked job's attempt, and store an estimate of the energy that it did not store.

    The estimate starts where stored energy ended and ends at the newest renewal of the lease, after which nothing is
    known. It is stored in intervals of at most a minute, marked `lost` and without a price, which settlement adds. Does
    nothing where the attempt has closed its meter itself.
    """
    attempt = session.get(MeteredAttempt, (job.id, job.attempts), populate_existing=True)
    if attempt is None or attempt.ended_at is not None:
        return
    now = database_now(session)
    attempt.ended_at = now
    died = attempt.host is not None and attempt.host_until is None
    leave_host(session, attempt)
    if died:
        _add_unclaimed_share_to_idle(session, job, attempt, at=now)
    stored_until = session.scalar(select(func.max(EnergyInterval.finished_at)).where(*_of(attempt)))
    since, seconds = attempt.unstored_since, attempt.unstored_seconds
    if stored_until is not None and stored_until > since:
        seconds -= (stored_until - since).total_seconds()
        since = stored_until
    if seconds < SHORTEST_SECONDS:
        return
    power = _power(session, attempt, job.device)
    kwh = {component: watts * seconds / JOULES_PER_KWH for component, watts in power.watts.items()}
    method = f"lost with its worker: estimate by {power.basis}"
    lost = Metered(
        start=since,
        end=since + timedelta(seconds=seconds),
        cpu_kwh=kwh["cpu"],
        gpu_kwh=kwh["gpu"],
        ram_kwh=kwh["ram"],
        cpu_method=method,
        gpu_method=method,
        ram_method=method,
    )
    pieces = [
        piece
        for part in lost.split(LONGEST_INTERVAL_SECONDS)
        for piece in price_by_reading(part, IntensitySeries([]), pue=attempt.pue)
    ]
    unfinished = select(Epoch.number).where(
        Epoch.job_id == job.id, Epoch.attempt == attempt.attempt, Epoch.finished_at.is_(None)
    )
    epoch = session.scalar(unfinished.limit(1)) or 0
    methods = {component: method for component, used in kwh.items() if used} or {"cpu": method}
    add_job_energy(session, job, lost, pieces, attempt=attempt.attempt, epoch=epoch, methods=methods, lost=True)
    reason = f"the last {seconds:.0f} s of attempt {attempt.attempt}, by {power.basis}"
    data = {"attempt": attempt.attempt, "seconds": seconds, "energy_kwh": sum(kwh.values()), "reason": reason}
    session.add(Event(job_id=job.id, at=at, type="energy.lost", data=data))


def _of(attempt: MeteredAttempt) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return EnergyInterval.job_id == attempt.job_id, EnergyInterval.attempt == attempt.attempt


def _power(session: Session, attempt: MeteredAttempt, device: str | None) -> _Power:
    seconds = func.extract("epoch", EnergyInterval.finished_at - EnergyInterval.started_at)
    sums = [func.sum(column) for column in (EnergyInterval.cpu_kwh, EnergyInterval.gpu_kwh, EnergyInterval.ram_kwh)]
    *kwh, stored_seconds = session.execute(select(*sums, func.sum(seconds)).where(*_of(attempt))).one()
    if stored_seconds:
        watts = [used * JOULES_PER_KWH / float(stored_seconds) for used in kwh]
        return _Power(dict(zip(("cpu", "gpu", "ram"), watts, strict=True)), MEAN_POWER)
    kind = "cpu" if device in (None, "cpu") else "gpu"
    assumed_w = ASSUMED_POWER_W[kind] if attempt.assumed_power_w is None else attempt.assumed_power_w
    assumed_w *= attempt.devices if kind == "gpu" else 1
    return _Power({"cpu": 0.0, "gpu": 0.0, "ram": 0.0, kind: assumed_w}, ASSUMED_POWER)


def _add_unclaimed_share_to_idle(session: Session, job: Job, attempt: MeteredAttempt, *, at: datetime) -> None:
    """Add the host share that other attempts left to a dead attempt, before its death was known, to idle energy.

    That is its share of the time that they have stored since; of later time they are billed all. Adds nothing where no
    other attempt was seen since: the host itself may be down.
    """
    silent = at - attempt.seen_at
    query = select(MeteredAttempt).where(
        MeteredAttempt.host == attempt.host,
        MeteredAttempt.host_until.is_(None),
        MeteredAttempt.seen_at > attempt.seen_at + silent / 2,
    )
    others = session.scalars(query.execution_options(populate_existing=True)).all()
    if not others:
        return
    power = _power(session, attempt, job.device)
    if power.basis == MEAN_POWER:
        weights = [other.devices for other in others]
        since = attempt.host_seen or 0.0
        stored = [min(max(0.0, _stored_until(session, other) - since), silent.total_seconds()) for other in others]
        seconds = sum(weight * each for weight, each in zip(weights, stored, strict=True)) / sum(weights)
        left = {part: power.watts[part] * seconds / JOULES_PER_KWH for part in ("cpu", "ram")}
        add_to_idle_energy(session, job.zone or UNKNOWN_ZONE, left)


def _stored_until(session: Session, attempt: MeteredAttempt) -> float:
    """Return the second of the host's monotonic clock up to which a running attempt's energy is stored."""
    newest = session.scalar(select(func.max(EnergyInterval.finished_at)).where(*_of(attempt)))
    since = 0.0 if newest is None else max(0.0, (newest - attempt.unstored_since).total_seconds())
    return (attempt.host_seen or 0.0) - attempt.unstored_seconds + since
