"""Where a job can stand, and the one table of allowed transitions."""

from enum import StrEnum


class JobStatus(StrEnum):
    """Where a job stands; see `ALLOWED` for the ways between."""

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
ALLOWED: dict[JobStatus, frozenset[JobStatus]] = {
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
