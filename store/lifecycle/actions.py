"""Actions of an owner on a job: cancel, pause, resume and retry."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy.orm import Session

from store.database import wake_scheduler
from store.lifecycle.status import ACTION_TRANSITIONS, HELD_BY_A_WORKER, Action, JobStatus
from store.lifecycle.transitions import transition
from store.repositories.datasets import DatasetRepository
from store.repositories.lineage import LineageRepository, ResultRemoved
from store.tables import Job


class ActionRefused(Exception):
    """An action is not possible in a job's present status, or no longer possible."""

    def __init__(self, job: Job, action: Action, why: str) -> None:
        others = " and ".join(list_possible_actions(job)) or "none"
        super().__init__(f"cannot {action} {job.id}: {why}; possible actions: {others}")


def list_possible_actions(job: Job) -> Sequence[Action]:
    """Return the actions possible in a job's status; a deleted dataset may still prevent a retry."""
    return [
        action
        for action, targets in ACTION_TRANSITIONS.items()
        if job.status in targets and not (action is Action.RETRY and job.files_removed_at is not None)
    ]


def request_action(session: Session, job: Job, action: Action, *, by: str, at: datetime) -> None:
    """Apply an action requested by `by` to a locked job: at once, or, where a worker holds it, by asking the worker.

    Raises `ActionRefused`.
    """
    to = ACTION_TRANSITIONS[action].get(job.status)
    if to is None:
        raise ActionRefused(job, action, f"it is {job.status}")
    if action is Action.RETRY:
        _check_inputs(session, job)
        # Its epochs, energy and checkpoints are kept: the run resumes from them.
        job.error = job.evaluation = job.settled_at = job.counterfactuals = None
        job.lost_attempts = 0
        to = to if job.estimate is not None else JobStatus.VALIDATING
    if action in (Action.RESUME, Action.RETRY):
        # Time paused or ended does not count towards the gate's longest delay.
        job.gate = job.not_before = None
        job.released_at = at
        if job.started_at is None:
            job.ready_at = None  # it could not have run before: its counterfactuals start here
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
    """Lock the datasets and the base's result for a retry. Raises `ActionRefused` where something was removed."""
    if job.files_removed_at is not None:
        removed = job.files_removed_at.isoformat(timespec="seconds")
        raise ActionRefused(job, Action.RETRY, f"its files were removed at {removed}, submit it again")
    datasets = DatasetRepository(session)
    for name, dataset_id in (("dataset", job.dataset_id), ("validation dataset", job.validation_dataset_id)):
        if dataset_id is not None and datasets.lock_for_use(dataset_id) is None:
            raise ActionRefused(job, Action.RETRY, f"its {name} {dataset_id} was deleted, submit it with another")
    if job.base_job_id is not None:
        lineage = LineageRepository(session)
        try:
            lineage.lock_needed_results(lineage.list_bases(job)[0])
        except ResultRemoved as removed:
            raise ActionRefused(job, Action.RETRY, str(removed)) from removed
