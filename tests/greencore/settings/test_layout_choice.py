"""What `auto` makes of packing and grouping, by the FLOPs of each layout."""

import pytest

from greencore.settings.hyperparameters import Hyperparameters
from greencore.settings.layout_choice import LayoutName, resolve_layout


@pytest.mark.parametrize(
    ("packed", "grouped", "packs", "layout"),
    [
        (0.8, 0.5, True, "packed"),
        (0.8, 0.9, False, "grouped"),
        (0.81, 0.9, True, "grouped"),
        (0.81, 0.91, True, "padded"),
        (1.4, 1.0, True, "padded"),
    ],
)
def test_auto_takes_what_saves_enough(packed: float, grouped: float, packs: bool, layout: LayoutName) -> None:
    costs: dict[LayoutName, float] = {"padded": 1.0, "packed": packed, "grouped": grouped}
    assert (
        resolve_layout(Hyperparameters(packing="auto", group_by_length="auto"), costs.__getitem__, packs=lambda: packs)
        == layout
    )


def test_what_is_asked_for_is_not_compared() -> None:
    def refuse(_: LayoutName) -> float:
        raise AssertionError

    for settings, layout in (
        ({"packing": True}, "packed"),
        ({"group_by_length": True}, "grouped"),
        ({"packing": False, "group_by_length": False}, "padded"),
    ):
        assert resolve_layout(Hyperparameters.model_validate(settings), refuse, packs=lambda: True) == layout


def test_one_may_be_left_to_auto_alone() -> None:
    costs: dict[LayoutName, float] = {"padded": 1.0, "packed": 0.5, "grouped": 0.5}
    for settings, layout in (({"group_by_length": "auto"}, "grouped"), ({"packing": "auto"}, "packed")):
        chosen = resolve_layout(Hyperparameters.model_validate(settings), costs.__getitem__, packs=lambda: True)
        assert chosen == layout
