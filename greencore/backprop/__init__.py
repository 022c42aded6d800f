"""Adaptive backpropagation (paper §3): what each tensor's gradient costs, what it is worth, and which to train."""

from greencore.backprop.importance import NotFinite, importance
from greencore.backprop.profile import Profile, TensorCost, profile
from greencore.backprop.selection import BudgetTooSmall, Selection, select
from greencore.backprop.trace import TraceError

__all__ = [
    "BudgetTooSmall",
    "NotFinite",
    "Profile",
    "Selection",
    "TensorCost",
    "TraceError",
    "importance",
    "profile",
    "select",
]
