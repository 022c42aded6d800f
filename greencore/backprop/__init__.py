"""Adaptive backpropagation (paper §3): tensor FLOPs, tensor importance, and selection within a budget."""

from greencore.backprop.cost.profile import Profile, TensorCost, profile
from greencore.backprop.cost.trace import TraceError
from greencore.backprop.importance import NotFinite, importance
from greencore.backprop.selection.importance_curve import ConcaveCurve, ImportanceCurve, importance_curve
from greencore.backprop.selection.select_tensors import BudgetTooSmall, Selection, select

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
