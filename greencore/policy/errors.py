"""Errors of policies: invalid fields, and a missing intensity."""

from collections.abc import Sequence
from dataclasses import dataclass

from greencore.carbon.errors import CarbonError


@dataclass(frozen=True, slots=True)
class FieldError:
    """Error in one field: its path in the policy, such as `steps[1].rho`, and the expected value."""

    field: str
    message: str


class PolicyError(ValueError):
    """A policy is invalid; `.errors` lists every error found, at least one."""

    def __init__(self, errors: Sequence[FieldError]) -> None:
        super().__init__("; ".join(f"{error.field}: {error.message}" for error in errors))
        self.errors = list(errors)


class IntensityMissing(CarbonError):
    """There is no intensity reading, and the policy's `on_missing` is "fail"."""
