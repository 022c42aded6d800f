"""What is wrong with a policy, field by field; and a decision that cannot be made."""

from collections.abc import Sequence
from dataclasses import dataclass

from greencore.carbon.errors import CarbonError


@dataclass(frozen=True, slots=True)
class FieldError:
    """One fault: `field` is its path in the policy, such as `steps[1].rho`; `message` what is expected."""

    field: str
    message: str


class PolicyError(ValueError):
    """A policy that cannot be used; `.errors` lists every fault that was found, at least one."""

    def __init__(self, errors: Sequence[FieldError]) -> None:
        super().__init__("; ".join(f"{error.field}: {error.message}" for error in errors))
        self.errors = list(errors)


class IntensityMissing(CarbonError):
    """There is no intensity reading, and the policy's `on_missing` is "fail"."""
