"""Records the evaluations during a run, and the best of them; written by the lease holder. All raise `LeaseLost`."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from store.lifecycle.leases import Lease, lock_leased_job, record_attempt_event
from store.repositories.jobs import JobRepository
from store.tables import EnergyInterval, Epoch, Evaluation, Job


@dataclass(frozen=True)
class MeasuredEvaluation:
    """One evaluation, by column of `Evaluation`; `epoch_ended` is the epoch whose last step it evaluated, or None."""

    step: int
    epoch: float
    loss: float
    accuracy: float | None
    rouge1: float | None
    rouge2: float | None
    rouge_l: float | None
    rouge_rows: int | None
    rows: int
    seconds: float
    epoch_ended: int | None


def record_evaluation(
    session: Session, lease: Lease, measured: MeasuredEvaluation, *, metered_from: datetime, at: datetime
) -> None:
    """Store an evaluation with the energy metered since `metered_from`, and update the job's best one.

    One that a lost attempt made of the same step is replaced.
    """
    job = lock_leased_job(session, lease)
    energy = select(func.sum(EnergyInterval.energy_kwh)).where(
        EnergyInterval.job_id == job.id,
        EnergyInterval.attempt == lease.attempt,
        EnergyInterval.evaluation,
        EnergyInterval.started_at >= metered_from,
    )
    columns = {name: value for name, value in vars(measured).items() if name != "epoch_ended"}
    session.merge(Evaluation(job_id=job.id, at=at, energy_kwh=session.scalar(energy), **columns))
    if measured.epoch_ended is not None:
        epoch = session.get(Epoch, (job.id, measured.epoch_ended))
        if epoch is not None:
            epoch.eval_loss = measured.loss
    _replace_best(session, job, measured)
    JobRepository(session).increment_revision(job)


def remove_evaluations_after(session: Session, job: Job, step: int) -> None:
    """Remove the evaluations of a locked job after a step, which were lost with their attempt and are repeated."""
    session.execute(delete(Evaluation).where(Evaluation.job_id == job.id, Evaluation.step > step))
    _find_best(session, job)


def record_early_stop(session: Session, lease: Lease, *, step: int, reason: str, at: datetime) -> None:
    """Record that training ended early, and end the epoch that it ended within."""
    job = lock_leased_job(session, lease)
    unfinished = select(Epoch).where(Epoch.job_id == job.id, Epoch.finished_at.is_(None))
    for epoch in session.scalars(unfinished):
        epoch.finished_at = at
        job.epochs_done = max(job.epochs_done, epoch.number)
    record_attempt_event(session, lease, "training.stopped_early", at=at, step=step, reason=reason, best=job.best)


def _replace_best(session: Session, job: Job, measured: MeasuredEvaluation) -> None:
    """Update the best evaluation by a new one; one that repeats the step of the best may be worse than others."""
    if job.best is None or job.best["step"] == measured.step:
        _find_best(session, job)
    elif (measured.loss, measured.step) < (job.best["loss"], job.best["step"]):
        job.best = {"step": measured.step, "epoch": measured.epoch, "loss": measured.loss}


def _find_best(session: Session, job: Job) -> None:
    session.flush()
    lowest = select(Evaluation).where(Evaluation.job_id == job.id).order_by(Evaluation.loss, Evaluation.step).limit(1)
    best = session.scalars(lowest).one_or_none()
    job.best = None if best is None else {"step": best.step, "epoch": best.epoch, "loss": best.loss}
