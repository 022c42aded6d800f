"""Adaptive backpropagation (paper §3): what each tensor's gradient costs, what it is worth, and which to train."""

from greencore.backprop.curve import ConcaveCurve, ImportanceCurve, importance_curve
from greencore.backprop.importance import NotFinite, importance
from greencore.backprop.profile import Profile, TensorCost, profile
from greencore.backprop.selection import BudgetTooSmall, Selection, select
from greencore.backprop.trace import TraceError

__all__ = [
    "BudgetTooSmall",
    "ConcaveCurve",
    "ImportanceCurve",
    "NotFinite",
    "Profile",
    "Selection",
    "TensorCost",
    "TraceError",
    "importance",
    "importance_curve",
    "profile",
    "select",
]
