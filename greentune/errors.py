"""Errors of the client; imports only the standard library."""

from collections.abc import Sequence
from dataclasses import dataclass


class ServiceError(Exception):
    """Base class: a call failed; the text gives the reason."""


class Unreachable(ServiceError):
    """The service does not answer at this address."""


class UnexpectedAnswer(ServiceError):
    """An answer does not have the format of the service."""


class ChecksumMismatch(ServiceError):
    """A downloaded file differs from the artifact that the job recorded."""


class StillRunning(ServiceError):
    """A job was not over within the timeout."""


class StillCounting(ServiceError):
    """The tokens of a dataset were not counted within the timeout."""


@dataclass(frozen=True)
class FieldFault:
    """One fault: the path of the field, such as `policy.steps[1].rho`, and the expected value."""

    field: str
    message: str


class Problem(ServiceError):
    """The service answered with a problem (RFC 9457).

    `errors` names each faulty field for the status 422, and each missing part for 503.
    """

    def __init__(self, status: int, title: str, detail: str, errors: Sequence[FieldFault] = ()) -> None:
        super().__init__(detail or title)
        self.status = status
        self.title = title
        self.detail = detail
        self.errors = tuple(errors)
