"""Reevaluates the gates of deferred jobs, to queue them, and of running jobs, to pause them."""

from datetime import datetime
from functools import partial

import structlog
from sqlalchemy.orm import Session

from greencore.policy.gate.evaluate import GateDecision
from planning.epoch_estimate import estimate_epoch
from runtime.settings import Settings
from scheduler.job_gate import GATE_EVALUATION_INTERVAL, evaluate_job_gate
from scheduler.job_placement import GATE_NOT_EVALUATED, Fleet, evaluate_or_skip_job, evaluate_waiting_job
from store.database import Database
from store.lifecycle.queue import QueueRepository
from store.lifecycle.status import JobStatus
from store.lifecycle.transitions import transition
from store.repositories.jobs import JobRepository
from store.tables import Job

log = structlog.get_logger()

# Keeps a tick short; the remaining jobs are due in the next.
MAX_EVALUATIONS_PER_TICK = 50


def release_deferred_jobs(database: Database, fleet: Fleet, settings: Settings, *, at: datetime) -> None:
    """Queue each deferred job that is due and whose gate is open, or which no live worker could run."""
    with database.session() as session:
        for job in QueueRepository(session).lock_due_jobs(JobStatus.DEFERRED, due=at, limit=MAX_EVALUATIONS_PER_TICK):
            job.not_before = at + GATE_EVALUATION_INTERVAL
            decision = evaluate_or_skip_job(
                session, job, partial(evaluate_waiting_job, session, job, fleet, settings, at=at)
            )
            if decision is None and job.reason == GATE_NOT_EVALUATED:
                continue
            if decision is None or decision.opens:
                transition(
                    session, job, JobStatus.QUEUED, at=at, reason=job.reason if decision is None else decision.reason
                )
            else:
                job.reason = decision.reason


def pause_running_jobs(database: Database, settings: Settings, *, at: datetime) -> None:
    """Ask running jobs whose gate closes to stop at their next step and return to the queue.

    Only a gate of mode "pause" closes once a job has started.
    """
    with database.session() as session:
        for job in QueueRepository(session).lock_due_jobs(JobStatus.RUNNING, due=at, limit=MAX_EVALUATIONS_PER_TICK):
            job.not_before = at + GATE_EVALUATION_INTERVAL
            decision = evaluate_or_skip_job(session, job, partial(_evaluate_running_job, session, job, settings, at=at))
            if decision is not None and not decision.opens:
                job.control, job.control_at = "defer", at
                JobRepository(session).record(
                    job.id, "gate.closed", at=at, reason=decision.reason, saving=decision.saving
                )
                log.info("gate.closed", job=job.id, reason=decision.reason)


def _evaluate_running_job(session: Session, job: Job, settings: Settings, *, at: datetime) -> GateDecision:
    assert job.zone is not None
    estimate = estimate_epoch(session, job, settings, device=job.device)
    return evaluate_job_gate(session, job, estimate, settings, zone=job.zone, computing=True, at=at)
