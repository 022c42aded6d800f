"""Faults of pydantic as faults of fields: those of a union such as `int | Literal["auto"]` as one, in plain words."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

Fault = Mapping[str, Any]
Location = tuple[int | str, ...]

LITERAL = "literal["
EXPECTED = re.compile(r"^(?:Input should be|expected) ")
# Types of faults whose messages have the names of Python's types and of our classes.
PLAIN_MESSAGES = {
    **dict.fromkeys(("list_type", "tuple_type"), "expected a list"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "expected an object"),
    "extra_forbidden": "there is no such field",
}
# pydantic's message says "items" of a text that is measured after a custom validator.
LENGTH_FAULTS = {"too_long": ("at most", "max_length"), "too_short": ("at least", "min_length")}
_ITEMS = re.compile(
    r"(?:Tuple|List|Set|Dictionary) should have (at (?:most|least) \d+) items? after validation, not (\d+)"
)


def merge_union_faults(faults: Sequence[Fault]) -> list[Fault]:
    """Return the faults with locations of fields alone, in words that `describe_fault` takes.

    pydantic reports each branch of a union on its own, with the branch in the location: `("size", "int")` and
    `("size", "literal['auto']")` become one fault of `("size",)` that names both. Faults within a value, such as one
    item of a list, replace those of its other branches.
    """
    faults = [{**fault, "msg": PLAIN_MESSAGES.get(fault["type"], fault["msg"])} for fault in faults]
    locations: list[Location] = [tuple(fault["loc"]) for fault in faults]
    unions = {location[:place] for location in locations if (place := _literal_place(location)) is not None}
    found: list[Fault] = []
    by_field: dict[Location, dict[str, Any]] = {}
    for fault, location in zip(faults, locations, strict=True):
        union = next((location[:size] for size in range(len(location)) if location[:size] in unions), None)
        if union is None:
            found.append(fault)
            continue
        field = (*union, *location[len(union) + 1 :])
        if field in by_field:
            by_field[field]["msg"] += f", or {EXPECTED.sub('', fault['msg'])}"
        else:
            by_field[field] = {**fault, "loc": field}
            found.append(by_field[field])
    described_within = {field[:size] for field in by_field for size in range(len(field))}
    return [fault for fault in found if fault["loc"] not in described_within or fault["loc"] not in unions]


def describe_fault(fault: Fault) -> str:
    """Return what is wrong by a fault of `merge_union_faults`, without Python's and pydantic's names for it."""
    if fault["type"] in LENGTH_FAULTS and isinstance(given := fault["input"], str):
        bound, name = LENGTH_FAULTS[fault["type"]]
        return f"given {len(given):,} characters: expected {bound} {fault['ctx'][name]:,}"
    message = _ITEMS.sub(r"given \2 items: expected \1", fault["msg"].removeprefix("Value error, "))
    return f"{message[0].lower()}{message[1:]}"


def _literal_place(location: Location) -> int | None:
    return next((at for at, part in enumerate(location) if isinstance(part, str) and part.startswith(LITERAL)), None)
