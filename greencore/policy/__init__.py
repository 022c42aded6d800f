"""From carbon intensity to a decision: how much of an epoch's work is worth doing."""

from greencore.policy.decision import Decision, decide
from greencore.policy.errors import FieldError, IntensityMissing, PolicyError
from greencore.policy.models import Constant, FixedRho, Linear, Policy, PolicyBody, Step, Steps
from greencore.policy.parsing import parse_policy

__all__ = [
    "Constant",
    "Decision",
    "FieldError",
    "FixedRho",
    "IntensityMissing",
    "Linear",
    "Policy",
    "PolicyBody",
    "PolicyError",
    "Step",
    "Steps",
    "decide",
    "parse_policy",
]
