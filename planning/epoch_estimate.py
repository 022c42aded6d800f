"""Estimates the duration and energy of a job's epochs from measured epochs, else from assumptions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import stdev

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from greencore.clock import HOUR
from greencore.settings.hyperparameters import Hyperparameters
from greencore.settings.run_length import compute_run_length
from planning.evaluation_work import RECENT_JOBS, EvaluationWork, count_evaluations, measure_evaluations
from runtime.settings import Settings
from store.accounting.lost_energy import ASSUMED_POWER_W
from store.lifecycle.status import JobStatus
from store.repositories.jobs import whole_epochs
from store.tables import EnergyInterval, Epoch, Event, Job

RECENT_EPOCHS = 20
# Orders of magnitude for a device without measurements: a data-centre GPU and a few CPU cores that train a
# transformer. `GREENTUNE_ASSUMED_TFLOPS` and `GREENTUNE_ASSUMED_POWER_W` override them.
ASSUMED_TFLOPS = {"gpu": 100.0, "cpu": 0.05}
ASSUMED_STARTUP_HOURS = 1 / 60
# Factor by which the assumptions may be wrong.
ASSUMED_SPREAD = 10.0
# 95 % quantile of Student's t by degrees of freedom, for an interval that holds nine epochs in ten.
STUDENT_T = (6.31, 2.92, 2.35, 2.13, 2.02, 1.94, 1.89, 1.86, 1.83, 1.81)
STUDENT_T_BEYOND = 1.72

METERED_SECONDS = func.extract("epoch", EnergyInterval.finished_at - EnergyInterval.started_at)


@dataclass(frozen=True)
class EpochEstimate:
    """One epoch at ρ = 1: hours of computing and kWh (before PUE); `startup_hours` until a started job trains.

    `outside_hours` and `outside_kwh` are those of a whole job outside of its steps: loading, evaluation, saving;
    `evaluation_hours` and `evaluation_kwh` are their part of evaluations during training. `basis` describes the source
    of the figures; `assumed`: nothing was measured yet. In nine cases of ten, hours and kWh are within a factor of
    `spread` (at least 1) either way.
    """

    epoch_hours: float
    epoch_kwh: float
    startup_hours: float
    basis: str
    assumed: bool = False
    spread: float = 1.0
    outside_hours: float = 0.0
    outside_kwh: float = 0.0
    evaluation_hours: float = 0.0
    evaluation_kwh: float = 0.0

    def with_evaluations(self, hours: float, kwh: float) -> "EpochEstimate":
        """Return the estimate with the evaluations of a run during training added."""
        return replace(
            self,
            outside_hours=self.outside_hours + hours,
            outside_kwh=self.outside_kwh + kwh,
            evaluation_hours=hours,
            evaluation_kwh=kwh,
        )


@dataclass(frozen=True)
class EpochSample:
    """Conditions on the epochs to estimate from; the lowest spread, and the spread of a single epoch."""

    basis: str
    conditions: Sequence[ColumnElement[bool]]
    least_spread: float
    single_spread: float


def estimate_epoch(session: Session, job: Job, settings: Settings, *, device: str | None) -> EpochEstimate | None:
    """Estimate an epoch of a job on its number of a device ("cpu" or a GPU's name; None where it is not known yet).

    From the job's own finished epochs; else from the newest epochs of the same model on that device, or of any model,
    by FLOPs; else from assumptions. None before the job is prepared, since its FLOPs are unknown.
    """
    if not job.estimate:
        return None
    own = EpochSample("its own epochs", [Job.id == job.id], 1.05, 1.2)
    startup = next(iter(list_startup_hours(session, job, events=3)), ASSUMED_STARTUP_HOURS)
    return estimate_epoch_from_flops(
        session,
        settings,
        model=job.model,
        epoch_flops=job.estimate["full_flops"] / whole_epochs(job),
        evaluations=_count_job_evaluations(job),
        device=device or job.device,
        startup_hours=startup,
        own=own,
        gpus=job.gpus,
    )


def estimate_epoch_from_flops(
    session: Session,
    settings: Settings,
    *,
    model: str,
    epoch_flops: float,
    device: str | None,
    startup_hours: float = ASSUMED_STARTUP_HOURS,
    own: EpochSample | None = None,
    evaluations: EvaluationWork | None = None,
    gpus: int = 1,
) -> EpochEstimate:
    """Estimate an epoch of `epoch_flops` (every tensor trained) on `gpus` of the device.

    `own` are the job's own epochs, if it exists. Without epochs on as many, those on another number count, with the
    same work of each device.

    `evaluations` are those of the whole run during training, of all rows on each device.
    """
    found = _estimate_epoch_alone(
        session,
        settings,
        model=model,
        epoch_flops=epoch_flops,
        device=device,
        startup_hours=startup_hours,
        own=own,
        gpus=gpus,
    )
    if evaluations is None or not evaluations.number:
        return found
    measured = measure_evaluations(session, model, device, gpus=gpus)
    if measured is not None:
        hours, kwh = (of_row * evaluations.rows * evaluations.number for of_row in measured)
    else:
        share = gpus * evaluations.flops * evaluations.number / epoch_flops if epoch_flops else 0.0
        hours, kwh = share * found.epoch_hours, share * found.epoch_kwh
    return found.with_evaluations(hours, kwh)


def _estimate_epoch_alone(
    session: Session,
    settings: Settings,
    *,
    model: str,
    epoch_flops: float,
    device: str | None,
    startup_hours: float,
    own: EpochSample | None,
    gpus: int,
) -> EpochEstimate:
    samples = [own] if own is not None else []
    if device is not None:
        on_it, as_many = Job.device == device, Job.gpus == gpus
        of_model, of_others = (
            "recent epochs of its model on this device",
            "recent epochs of other models on this device",
        )
        scaled = f"scaled to {gpus} GPU{'s' if gpus > 1 else ''} from runs on another number"
        samples += [
            EpochSample(of_model, [Job.model == model, on_it, as_many], 1.1, 1.5),
            EpochSample(f"{of_model}, {scaled}", [Job.model == model, on_it], 1.5, 2.0),
            EpochSample(of_others, [on_it, as_many], 2.0, 3.0),
            EpochSample(f"{of_others}, {scaled}", [on_it], 2.5, 4.0),
        ]
    for sample in samples:
        measured = _measured(session, sample, gpus=gpus)
        if measured is not None:
            hours_per_flop, kwh_per_flop, spread = measured
            hours, kwh = epoch_flops * hours_per_flop, epoch_flops * kwh_per_flop
            outside = _measure_overhead(session, model, device, gpus) or (startup_hours, startup_hours * kwh / hours)
            return EpochEstimate(hours, kwh, startup_hours, sample.basis, False, spread, *outside)
    kind = "cpu" if device in (None, "cpu") else "gpu"
    number = gpus if kind == "gpu" else 1  # processes share their host's processor
    tflops = number * (settings.assumed_tflops or ASSUMED_TFLOPS[kind])
    power_w = number * (settings.assumed_power_w or ASSUMED_POWER_W[kind])
    hours = epoch_flops / (tflops * 1e12) / 3600
    return EpochEstimate(
        hours,
        hours * power_w / 1000,
        startup_hours,
        f"assumptions: {tflops:g} TFLOP/s, {power_w:g} W",
        True,
        ASSUMED_SPREAD,
        startup_hours,
        startup_hours * power_w / 1000,
    )


def _count_job_evaluations(job: Job) -> EvaluationWork | None:
    """Count the evaluations of a prepared job; None where its rows were not counted, by an earlier version."""
    estimate = job.estimate or {}
    if "held_out_rows" not in estimate or "training_rows" not in estimate:
        return None
    hyperparameters, rows = Hyperparameters.model_validate(job.hyperparameters), estimate["training_rows"]
    return count_evaluations(
        hyperparameters,
        length=compute_run_length(hyperparameters, training_rows=estimate.get("training_examples") or rows),
        held_out_rows=estimate["held_out_rows"],
        training_rows=rows,
        epoch_flops=estimate["full_flops"] / whole_epochs(job),
    )


def list_metered_epochs(
    session: Session, *conditions: ColumnElement[bool], gpus: int, with_evaluations: bool = False
) -> list[tuple[float, float, float]]:
    """List (FLOPs, seconds, kWh) of the newest `RECENT_EPOCHS` finished epochs; a pause does not count as time.

    The seconds of a job on another number of devices are those that `gpus` would take for the same work of each.

    Time and energy are those of the steps, or, `with_evaluations`, of evaluations within the epochs as well.
    """
    counted = [] if with_evaluations else [EnergyInterval.evaluation.is_(False)]
    recent = (
        select(
            Epoch.job_id, Epoch.number, (Epoch.flops + func.coalesce(Epoch.probe_flops, 0.0)).label("flops"), Job.gpus
        )
        .join(Job, Job.id == Epoch.job_id)
        .where(Epoch.finished_at.is_not(None), Epoch.flops > 0, *conditions)
        .order_by(Epoch.finished_at.desc())
        .limit(RECENT_EPOCHS)
        .subquery()
    )
    metered = (
        select(recent.c.flops, func.sum(METERED_SECONDS), func.sum(EnergyInterval.energy_kwh), recent.c.gpus)
        .join(EnergyInterval, (EnergyInterval.job_id == recent.c.job_id) & (EnergyInterval.epoch == recent.c.number))
        .where(*counted)
        .group_by(recent.c.job_id, recent.c.number, recent.c.flops, recent.c.gpus)
    )
    return [(flops, float(seconds) * of / gpus, kwh) for flops, seconds, kwh, of in session.execute(metered)]


def list_startup_hours(session: Session, job: Job, *, events: int | None = None) -> list[float]:
    """List the hours from claim to training of a job's attempts, newest first, from its newest `events` (None: all)."""
    query = (
        select(Event.type, Event.at)
        .where(Event.job_id == job.id, Event.type.in_(["job.running", "training.started"]))
        .order_by(Event.id.desc())
        .limit(events)
    )
    return [
        (started.at - claimed.at) / HOUR
        for started, claimed in pairwise(session.execute(query).all())
        if (claimed.type, started.type) == ("job.running", "training.started")
    ]


def _measured(session: Session, sample: EpochSample, *, gpus: int) -> tuple[float, float, float] | None:
    """Return hours and kWh per FLOP of the sample's epochs, and their spread; None without any."""
    epochs = list_metered_epochs(session, *sample.conditions, gpus=gpus)
    total_flops, total_seconds, total_kwh = (
        (sum(values) for values in zip(*epochs, strict=True)) if epochs else (0, 0, 0)
    )
    if not total_flops or not total_seconds:
        return None
    spread = max(
        _spread([seconds / flops for flops, seconds, _ in epochs], sample),
        _spread([kwh / flops for flops, _, kwh in epochs], sample),
    )
    return total_seconds / 3600 / total_flops, total_kwh / total_flops, spread


def _spread(values: Sequence[float], sample: EpochSample) -> float:
    """Return the factor by which the next value may differ from the mean: a log-normal prediction interval."""
    logarithms = [math.log(value) for value in values if value > 0]
    count = len(logarithms)
    if count < 2:
        return sample.single_spread
    quantile = STUDENT_T[count - 2] if count - 2 < len(STUDENT_T) else STUDENT_T_BEYOND
    return min(
        max(math.exp(quantile * stdev(logarithms) * math.sqrt(1 + 1 / count)), sample.least_spread), ASSUMED_SPREAD
    )


def _measure_overhead(session: Session, model: str, device: str | None, gpus: int) -> tuple[float, float] | None:
    """Return the mean hours and kWh outside of epochs of the newest jobs of this model; None without any.

    The time is that of any number of devices, each of which loads and evaluates all; the energy is that of `gpus`.
    """
    recent = (
        select(Job.id, Job.gpus)
        .where(Job.model == model, Job.device == device, Job.status == JobStatus.SUCCEEDED)
        .order_by(Job.finished_at.desc())
        .limit(RECENT_JOBS)
        .subquery()
    )
    kwh_of_all = func.sum(EnergyInterval.energy_kwh * gpus / recent.c.gpus)
    totals = select(func.count(EnergyInterval.job_id.distinct()), func.sum(METERED_SECONDS), kwh_of_all)
    jobs, seconds, kwh = session.execute(
        totals.join(recent, recent.c.id == EnergyInterval.job_id).where(EnergyInterval.epoch == 0)
    ).one()
    return (float(seconds) / jobs / 3600, kwh / jobs) if jobs else None
