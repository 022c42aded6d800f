"""What an owner may ask of a job: to cancel, pause, resume or retry it."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy.orm import Session

from store.database import wake_scheduler
from store.lifecycle.status import ACTION_TRANSITIONS, HELD_BY_A_WORKER, Action, JobStatus
from store.lifecycle.transitions import transition
from store.repositories.datasets import DatasetRepository
from store.tables import Job


class ActionRefused(Exception):
    """What was asked of a job cannot be done where it stands, or any more."""

    def __init__(self, job: Job, action: Action, why: str) -> None:
        others = " and ".join(list_possible_actions(job)) or "nothing"
        super().__init__(f"cannot {action} {job.id}: {why}; what can be asked of it now: {others}")
        self.job_id, self.status, self.action = job.id, job.status, action


def list_possible_actions(job: Job) -> Sequence[Action]:
    """What can be asked of a job as it stands; a dataset that was deleted meanwhile may still prevent a retry."""
    return [
        action
        for action, ways in ACTION_TRANSITIONS.items()
        if job.status in ways and not (action is Action.RETRY and job.files_removed_at is not None)
    ]


def request_action(session: Session, job: Job, action: Action, *, by: str, at: datetime) -> None:
    """Do what `by` asks of a locked job: at once where no worker holds it, else by asking its worker.

    Raises `ActionRefused`.
    """
    to = ACTION_TRANSITIONS[action].get(job.status)
    if to is None:
        raise ActionRefused(job, action, f"it is {job.status}")
    if action is Action.RETRY:
        _check_inputs(session, job)
        _forget_end(job)
        to = to if job.estimate is not None else JobStatus.VALIDATING
    if action in (Action.RESUME, Action.RETRY):
        _release(job, at)
    transition(session, job, to, at=at, reason=_reason(action, to, by), by=by)
    if to in HELD_BY_A_WORKER:
        job.control, job.control_at = str(action), at
    job.eta = None
    wake_scheduler(session)


def _reason(action: Action, to: JobStatus, by: str) -> str:
    return {
        Action.CANCEL: f"asked by {by} to stop" if to is JobStatus.CANCELLING else f"cancelled by {by}",
        Action.PAUSE: f"asked by {by} to pause" if to is JobStatus.PAUSING else f"paused by {by}",
        Action.RESUME: f"resumed by {by}",
        Action.RETRY: f"retried by {by}",
    }[action]


def _check_inputs(session: Session, job: Job) -> None:
    """Raises `ActionRefused` where what a retry needs is gone; keeps the dataset until this transaction ends."""
    if job.files_removed_at is not None:
        removed = job.files_removed_at.isoformat(timespec="seconds")
        raise ActionRefused(job, Action.RETRY, f"its files were removed at {removed}, submit it anew")
    if DatasetRepository(session).lock_for_use(job.dataset_id) is None:
        raise ActionRefused(job, Action.RETRY, f"its dataset {job.dataset_id} was deleted, submit it with another")


def _forget_end(job: Job) -> None:
    """Take back what says that a job is over. Its epochs, energy and checkpoints stay: the run goes on from them."""
    job.error = job.evaluation = None
    job.settled_at = job.counterfactuals = None
    job.lost_attempts = 0


def _release(job: Job, at: datetime) -> None:
    """Begin the gate's plan anew: the time in the owner's hands is none of its delay."""
    job.gate = job.not_before = None
    job.released_at = at
    if job.started_at is None:
        # It could not have run before: what it would have emitted otherwise is reckoned from here.
        job.ready_at = None
