"""What `auto` makes of `packing` and `group_by_length`: the layout of a run's batches."""

from collections.abc import Callable
from typing import Literal

from greencore.settings.hyperparameters import Hyperparameters

LayoutName = Literal["padded", "packed", "grouped"]

# `auto` chooses a layout that saves at least these shares of the FLOPs (benchmarks.training.layouts)
PACKING_MIN_SAVING = 0.2  # a packed step takes up to 1.2 times as long as one of equal FLOPs, for its mask
GROUPING_MIN_SAVING = 0.1


def resolve_layout(
    settings: Hyperparameters, predict_cost: Callable[[LayoutName], float], *, packs: Callable[[], bool]
) -> LayoutName:
    """Return the layout that the settings ask for; for `auto` by the FLOPs of each, which `predict_cost` gives.

    They may be relative. `packs` returns whether method and model keep packed rows apart; it is asked where `auto`
    would choose packing.
    """
    if settings.packing is True:
        return "packed"
    if settings.group_by_length is True:
        return "grouped"
    if "auto" not in (settings.packing, settings.group_by_length):
        return "padded"
    padded = predict_cost("padded")
    if settings.packing == "auto" and predict_cost("packed") <= (1 - PACKING_MIN_SAVING) * padded and packs():
        return "packed"
    if settings.group_by_length == "auto" and predict_cost("grouped") <= (1 - GROUPING_MIN_SAVING) * padded:
        return "grouped"
    return "padded"
