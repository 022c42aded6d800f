"""All kinds of policy, and their union by `kind`."""

from typing import Annotated

from pydantic import Field

from greencore.policy.kinds.by_intensity import Constant, IntensityPolicy, Linear, Step, Steps
from greencore.policy.kinds.fields import FixedRho, Gate, Smoothing
from greencore.policy.kinds.percentile import Percentile
from greencore.policy.kinds.planned import Budget, Price
from greencore.policy.kinds.policy import Policy, RhoRangePolicy

__all__ = [
    "POLICY_KINDS",
    "AnyPolicy",
    "Budget",
    "Constant",
    "FixedRho",
    "Gate",
    "IntensityPolicy",
    "Linear",
    "Percentile",
    "Policy",
    "PolicyBody",
    "Price",
    "RhoRangePolicy",
    "Smoothing",
    "Step",
    "Steps",
]

POLICY_KINDS = ("constant", "steps", "linear", "percentile", "budget", "price")

AnyPolicy = Constant | Steps | Linear | Percentile | Budget | Price
PolicyBody = Annotated[AnyPolicy, Field(discriminator="kind")]
