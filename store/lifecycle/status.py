"""Where a job can stand, the one table of allowed transitions, and which of them may be asked for."""

from collections.abc import Mapping
from enum import StrEnum


class JobStatus(StrEnum):
    """Status of a job; `ALLOWED_TRANSITIONS` has the transitions between them."""

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
# Over, unless somebody asks for another try: only that leads out of it.
FINAL = frozenset({S.SUCCEEDED, S.FAILED, S.CANCELLED})
HELD_BY_A_WORKER = frozenset({S.RUNNING, S.PAUSING, S.CANCELLING})


class Action(StrEnum):
    """What may be asked for of a job."""

    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"
    RETRY = "retry"


# Where each action leads at once. A worker that holds the job is asked first, and takes it the rest of the way; a
# retried job that has no estimate yet is validated anew.
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
