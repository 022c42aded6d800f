"""Predicts how much a run's evaluations during training take, from measured ones, else from their FLOPs."""

import math
from dataclasses import dataclass

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from greencore.settings.hyperparameters import Hyperparameters
from greencore.settings.run_length import RunLength
from store.lifecycle.status import JobStatus
from store.tables import Evaluation, Job

RECENT_EVALUATIONS = 20
RECENT_JOBS = 5
# A forward pass takes a third of a step that trains every tensor, whose backward pass takes twice as much.
FORWARD_SHARE = 1 / 3


@dataclass(frozen=True)
class EvaluationWork:
    """Evaluations of a run during training: their number, and the held-out rows and FLOPs of each."""

    number: int
    rows: int
    flops: float


def count_evaluations(
    hyperparameters: Hyperparameters, *, length: RunLength, held_out_rows: int, training_rows: int, epoch_flops: float
) -> EvaluationWork:
    """Count the evaluations of a run, with FLOPs as of the training rows' forward passes; generation is not counted."""
    whole = length.steps if hyperparameters.eval_unit == "steps" else length.whole_epochs
    number = math.ceil(whole / hyperparameters.eval_every) if held_out_rows else 0
    return EvaluationWork(number, held_out_rows, epoch_flops * FORWARD_SHARE * held_out_rows / max(training_rows, 1))


def measure_evaluations(session: Session, model: str, device: str | None, *, gpus: int) -> tuple[float, float] | None:
    """Return the mean hours and kWh of a held-out row in the newest evaluations of this model; None without any.

    Each of several devices evaluates all rows: the time is that of any number of them, the energy that of `gpus`.
    They are those of its newest finished jobs that were evaluated: sorting all evaluations takes too long for each job
    that waits.
    """
    jobs = (
        select(Job.id, Job.gpus)
        .where(Job.model == model, Job.device == device, Job.status == JobStatus.SUCCEEDED)
        .where(exists().where(Evaluation.job_id == Job.id))
        .order_by(Job.finished_at.desc())
        .limit(RECENT_JOBS)
        .subquery()
    )
    kwh_of_all = (Evaluation.energy_kwh * gpus / jobs.c.gpus).label("energy_kwh")
    recent = (
        select(Evaluation.seconds, kwh_of_all, Evaluation.rows)
        .join(jobs, jobs.c.id == Evaluation.job_id)
        .where(Evaluation.seconds > 0, Evaluation.energy_kwh.is_not(None))
        .order_by(Evaluation.at.desc())
        .limit(RECENT_EVALUATIONS)
        .subquery()
    )
    totals = select(func.sum(recent.c.seconds), func.sum(recent.c.energy_kwh), func.sum(recent.c.rows))
    seconds, kwh, rows = session.execute(totals).one()
    return (seconds / rows / 3600, kwh / rows) if rows else None
