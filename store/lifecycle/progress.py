"""Writes of a worker to the job that it holds: decisions, progress, energy, results. All raise `LeaseLost`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from greencore.carbon import PricedInterval
from greencore.carbon.accounting.pricing import TRACKER_TOLERANCE, tracker_difference
from greencore.energy import EnergyInterval as MeteredInterval
from greencore.policy import RhoDecision
from store.accounting.energy_totals import add_job_energy
from store.database import wake_scheduler
from store.lifecycle.evaluations import remove_evaluations_after
from store.lifecycle.leases import Lease, lock_leased_job, record_attempt_event
from store.lifecycle.status import JobStatus
from store.lifecycle.transitions import transition
from store.repositories.jobs import JobRepository
from store.tables import Artifact, EnergyInterval, Epoch, Job, Step, Tensor

# A stopped job with any other status returns to the queue.
STATUS_AFTER_STOP = {JobStatus.PAUSING: JobStatus.PAUSED, JobStatus.CANCELLING: JobStatus.CANCELLED}


@dataclass(frozen=True)
class StepLoss:
    """One optimiser step (numbered from 1), the time of its end, and its finite loss."""

    number: int
    at: datetime
    loss: float


@dataclass(frozen=True)
class EpochMeasurement:
    """Measurements of a finished epoch, by column of `Epoch`; None where not measured."""

    rho_reached: float | None = None
    flops: float | None = None
    full_flops: float | None = None
    plain_full_flops: float | None = None
    probe_flops: float | None = None
    probe_seconds: float | None = None
    tensors_selected: int | None = None
    tensors_total: int | None = None
    selection: dict[str, float | None] | None = None
    importance: list[float | None] | None = None
    train_loss: float | None = None
    eval_loss: float | None = None


def start_training(
    session: Session, lease: Lease, *, at: datetime, steps: int, steps_done: int, epochs_done: int, precision: str
) -> None:
    """Record that the model is loaded, its precision, and the step of the checkpoint from which the run continues.

    Later steps were lost with their attempt: their rows are deleted, and they are repeated.
    """
    job = lock_leased_job(session, lease)
    job.steps, job.steps_done, job.epochs_done = steps, steps_done, epochs_done
    job.precision = precision
    session.execute(delete(Step).where(Step.job_id == lease.job_id, Step.number > steps_done))
    remove_evaluations_after(session, job, steps_done)
    data = {"steps_done": steps_done, "epochs_done": epochs_done, "precision": precision}
    record_attempt_event(session, lease, "training.started", at=at, **data)


def put_tensors(session: Session, lease: Lease, tensors: Sequence[Tensor]) -> None:
    """Store a job's tensors, given from output to input, unless an attempt has already."""
    lock_leased_job(session, lease)
    if session.scalar(select(Tensor.position).where(Tensor.job_id == lease.job_id).limit(1)) is None:
        for position, tensor in enumerate(tensors):
            tensor.job_id, tensor.position = lease.job_id, position
        session.add_all(tensors)


def choose_micro_batch(session: Session, lease: Lease, *, at: datetime, rows: int, reason: str) -> None:
    """Store the measured micro-batch; recorded where it is not the one of an earlier attempt."""
    job = lock_leased_job(session, lease)
    if job.micro_batch_size != rows:
        job.micro_batch_size = rows
        record_attempt_event(session, lease, "micro_batch.chosen", at=at, rows=rows, reason=reason)


def halve_micro_batch(session: Session, lease: Lease, *, at: datetime, before: int, after: int) -> None:
    """Store that a step ran out of memory and goes on in micro-batches of fewer rows."""
    job = lock_leased_job(session, lease)
    job.micro_batch_size = after
    data = {"before": before, "after": after, "step": job.steps_done + 1}
    record_attempt_event(session, lease, "micro_batch.halved", at=at, **data)


def resume_epoch(session: Session, lease: Lease, number: int) -> None:
    """Assign an epoch to this attempt, which continues it under the same decision.

    An early stop ended it where its attempt was lost before the checkpoint of that step.
    """
    lock_leased_job(session, lease)
    epoch = session.get(Epoch, (lease.job_id, number))
    if epoch is not None:
        epoch.attempt = lease.attempt
        epoch.finished_at = None


def start_epoch(session: Session, lease: Lease, number: int, decision: RhoDecision, *, at: datetime) -> None:
    """Store a new epoch with its ρ decision, replacing one begun by a lost attempt."""
    job = lock_leased_job(session, lease)
    job.rho = decision.rho
    begun = session.get(Epoch, (lease.job_id, number))
    if begun is not None:
        session.delete(begun)
        session.flush()
    session.add(
        Epoch(
            job_id=lease.job_id,
            number=number,
            attempt=lease.attempt,
            started_at=at,
            rho_asked=decision.rho,
            reason=decision.reason,
            intensity_gco2e_per_kwh=decision.intensity_gco2e_per_kwh,
            intensity_source=decision.source,
            intensity_step=decision.step,
            intensity_age_seconds=decision.age_seconds,
            intensity_estimated=decision.estimated,
        )
    )
    JobRepository(session).record(
        job.id, "epoch.started", at=at, epoch=number, rho=decision.rho, reason=decision.reason
    )


def report_step(
    session: Session, lease: Lease, *, steps: int, steps_done: int, loss: float | None, taken: Sequence[StepLoss] = ()
) -> Job:
    """Store the progress of the run and the steps `taken` since the last report; return the locked job."""
    job = lock_leased_job(session, lease)
    job.steps, job.steps_done = steps, steps_done
    if loss is not None:
        job.loss = loss
    rows = [{"job_id": lease.job_id, **vars(step)} for step in taken]
    if rows:
        statement = insert(Step).values(rows)
        new = {"at": statement.excluded.at, "loss": statement.excluded.loss}
        session.execute(statement.on_conflict_do_update(index_elements=["job_id", "number"], set_=new))
    return job


def finish_epoch(
    session: Session,
    lease: Lease,
    number: int,
    *,
    at: datetime,
    measured: EpochMeasurement,
    utility: Mapping[str, Any] | None,
) -> None:
    """Finish an epoch with its measurements, and store the fitted utility of ρ with the job."""
    job = lock_leased_job(session, lease)
    if utility is not None:
        job.utility = dict(utility)
    epoch = session.get_one(Epoch, (lease.job_id, number))
    for column, value in vars(measured).items():
        setattr(epoch, column, value)
    epoch.finished_at = at
    job.epochs_done = number
    JobRepository(session).record(
        job.id, "epoch.finished", at=at, epoch=number, rho_reached=epoch.rho_reached, loss=epoch.train_loss
    )


def add_energy(
    session: Session,
    lease: Lease,
    epoch: int,
    interval: MeteredInterval,
    pieces: Sequence[PricedInterval],
    *,
    evaluation: bool = False,
) -> None:
    """Store a metered interval, of an evaluation or not, divided by `price_by_reading`; add it to the totals."""
    job = lock_leased_job(session, lease)
    methods = {"cpu": interval.cpu_method, "gpu": interval.gpu_method, "ram": interval.ram_method}
    add_job_energy(
        session, job, interval, pieces, attempt=lease.attempt, epoch=epoch, methods=methods, evaluation=evaluation
    )
    JobRepository(session).increment_revision(job)


def add_tracker_total(session: Session, lease: Lease, *, at: datetime, tracker_kwh: float | None) -> None:
    """Add CodeCarbon's energy total of an attempt; record an event where it differs too much from the intervals'."""
    job = lock_leased_job(session, lease)
    ours_kwh = session.scalar(
        select(func.coalesce(func.sum(EnergyInterval.energy_kwh), 0.0)).where(
            EnergyInterval.job_id == job.id, EnergyInterval.attempt == lease.attempt
        )
    )
    assert ours_kwh is not None
    if tracker_kwh is not None:
        job.tracker_kwh = (job.tracker_kwh or 0.0) + tracker_kwh
    difference = tracker_difference(ours_kwh, tracker_kwh)
    if difference is not None and abs(difference) > TRACKER_TOLERANCE:
        reason = f"our intervals and CodeCarbon's own total differ by {difference:+.1%}: some may have been lost"
        data = {"ours_kwh": ours_kwh, "tracker_kwh": tracker_kwh, "difference": difference, "reason": reason}
        record_attempt_event(session, lease, "energy.differs", at=at, **data)


def succeed(
    session: Session,
    lease: Lease,
    *,
    at: datetime,
    artifacts: Sequence[Artifact],
    evaluation: Mapping[str, Any],
    reason: str | None = None,
) -> None:
    """End a job as succeeded, with its artifacts and evaluation, and the reason where it ended early."""
    job = lock_leased_job(session, lease)
    for artifact in artifacts:
        session.merge(artifact)
    job.evaluation = dict(evaluation)
    transition(session, job, JobStatus.SUCCEEDED, at=at, reason=reason, artifacts=len(artifacts))
    wake_scheduler(session)


def fail(session: Session, lease: Lease, *, at: datetime, error: Mapping[str, Any]) -> None:
    """End a job as failed, with an error: `title`, `detail` and optionally `field`."""
    JobRepository(session).fail(lock_leased_job(session, lease), at=at, error=error)
    wake_scheduler(session)


def release_job(session: Session, lease: Lease, *, at: datetime) -> JobStatus:
    """End a stopped attempt, and return the job's new status.

    The control flag is read under the row's lock, not taken from the worker: a pause may have become a cancel.
    """
    job = lock_leased_job(session, lease)
    wanted = "drain" if job.control == "run" else job.control
    reason = (job.gate or {}).get("reason") if wanted == "defer" else None
    to = STATUS_AFTER_STOP.get(job.status, JobStatus.QUEUED)
    transition(session, job, to, at=at, reason=reason or f"stopped by its worker: {wanted}")
    wake_scheduler(session)
    return to


def lose_attempt(session: Session, lease: Lease, *, at: datetime, reason: str, max_attempts: int) -> None:
    """End an attempt of which a process was lost: the job goes on from its checkpoint, unless it was the last one."""
    job = lock_leased_job(session, lease)
    return_lost_job(session, job, at=at, reason=reason, lost="its processes were lost", max_attempts=max_attempts)
    wake_scheduler(session)


def return_lost_job(session: Session, job: Job, *, at: datetime, reason: str, lost: str, max_attempts: int) -> None:
    """Move a locked job whose attempt was lost to the status that its worker would have set, or back to the queue.

    With `max_attempts` lost attempts it fails; `lost` says what they had in common.
    """
    job.lost_attempts += 1
    if job.status is JobStatus.CANCELLING:
        transition(session, job, JobStatus.CANCELLED, at=at, reason=reason, lost=job.lost_attempts)
    elif job.status is JobStatus.PAUSING:
        transition(session, job, JobStatus.PAUSED, at=at, reason=reason, lost=job.lost_attempts)
    elif job.lost_attempts >= max_attempts:
        times = f"{job.lost_attempts} times" if job.lost_attempts > 1 else "once"
        detail = (
            f"{lost} {times}, the limit of GREENTUNE_MAX_ATTEMPTS: it may need more memory than there is; a retry "
            "resumes from its last checkpoint"
        )
        JobRepository(session).fail(job, at=at, error={"title": "The workers of this job keep dying", "detail": detail})
    else:
        transition(session, job, JobStatus.QUEUED, at=at, reason=reason, lost=job.lost_attempts)


def cancel_killed_job(session: Session, lease: Lease, *, at: datetime, after_seconds: float) -> None:
    """Cancel a job whose process was terminated because it did not stop."""
    reason = f"did not stop within {after_seconds:g} s, and was terminated"
    transition(session, lock_leased_job(session, lease), JobStatus.CANCELLED, at=at, reason=reason)
    wake_scheduler(session)
