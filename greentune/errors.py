"""What can go wrong between a program and the service; nothing here needs more than Python itself."""

from collections.abc import Sequence
from dataclasses import dataclass


class ServiceError(Exception):
    """What was asked for did not come; the text says why."""


class Unreachable(ServiceError):
    """The service does not answer at this address."""


class UnexpectedAnswer(ServiceError):
    """Something answers, but not as this client knows the service."""


class ChecksumMismatch(ServiceError):
    """What was downloaded is not the file that the job has recorded."""


class StillRunning(ServiceError):
    """A job was not over within the time that it was waited for."""


@dataclass(frozen=True)
class FieldFault:
    """One fault: the path of the field, such as `policy.steps[1].rho`, and what is expected there."""

    field: str
    message: str


class Problem(ServiceError):
    """The service has answered with a problem as RFC 9457 has it.

    `errors` names each field at fault where the status is 422, and each part that is missing where it is 503.
    """

    def __init__(self, status: int, title: str, detail: str, errors: Sequence[FieldFault] = ()) -> None:
        super().__init__(detail or title)
        self.status = status
        self.title = title
        self.detail = detail
        self.errors = tuple(errors)
