"""Statuses of a job, the table of allowed transitions, and the transitions of each action."""

from collections.abc import Mapping
from enum import StrEnum


class JobStatus(StrEnum):
    """Status of a job."""

    VALIDATING = "validating"
    QUEUED = "queued"
    DEFERRED = "deferred"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


S = JobStatus
ALLOWED_TRANSITIONS: dict[JobStatus, frozenset[JobStatus]] = {
    S.VALIDATING: frozenset({S.QUEUED, S.FAILED, S.CANCELLED}),
    S.QUEUED: frozenset({S.DEFERRED, S.RUNNING, S.PAUSED, S.CANCELLED, S.FAILED}),
    S.DEFERRED: frozenset({S.QUEUED, S.PAUSED, S.CANCELLED, S.FAILED}),
    S.RUNNING: frozenset({S.SUCCEEDED, S.FAILED, S.PAUSING, S.CANCELLING, S.QUEUED}),
    S.PAUSING: frozenset({S.PAUSED, S.SUCCEEDED, S.FAILED, S.CANCELLING, S.QUEUED}),
    S.PAUSED: frozenset({S.QUEUED, S.CANCELLED}),
    S.CANCELLING: frozenset({S.CANCELLED, S.SUCCEEDED, S.FAILED}),
    S.CANCELLED: frozenset({S.VALIDATING, S.QUEUED}),
    S.SUCCEEDED: frozenset(),
    S.FAILED: frozenset({S.VALIDATING, S.QUEUED}),
}
# Ended; only a retry leaves these.
FINAL = frozenset({S.SUCCEEDED, S.FAILED, S.CANCELLED})
HELD_BY_A_WORKER = frozenset({S.RUNNING, S.PAUSING, S.CANCELLING})


class Action(StrEnum):
    """An action that may be requested of a job."""

    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"
    RETRY = "retry"


# Immediate target of each action by status. A worker that holds the job completes the action; a retried job without an
# estimate is validated again.
ACTION_TRANSITIONS: Mapping[Action, Mapping[JobStatus, JobStatus]] = {
    Action.CANCEL: {
        S.VALIDATING: S.CANCELLED,
        S.QUEUED: S.CANCELLED,
        S.DEFERRED: S.CANCELLED,
        S.PAUSED: S.CANCELLED,
        S.RUNNING: S.CANCELLING,
        S.PAUSING: S.CANCELLING,
    },
    Action.PAUSE: {S.QUEUED: S.PAUSED, S.DEFERRED: S.PAUSED, S.RUNNING: S.PAUSING},
    Action.RESUME: {S.PAUSED: S.QUEUED},
    Action.RETRY: {S.FAILED: S.QUEUED, S.CANCELLED: S.QUEUED},
}
