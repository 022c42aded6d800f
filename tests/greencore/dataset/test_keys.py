"""Keys that other trainers read: refused where they change what is learned, otherwise named as ignored."""

from typing import Any

import pytest

from greencore.dataset import InvalidRow, find_ignored_keys, row_from_object
from greencore.dataset.earlier import select_earlier_keys
from greencore.dataset.keys import READ_KEYS

CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
TURNS = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
ROWS: list[dict[str, Any]] = [
    {"prompt": "a", "completion": "b"},
    {"messages": CHAT},
    {"conversations": TURNS},
    {"instruction": "a", "output": "b"},
    {"text": "a"},
]
CHANGING = (
    *("weight", "loss_weight", "train", "mask", "chosen", "rejected", "labels", "input_ids", "images", "history"),
    *("functions", "chat_template_kwargs", "suffix", "kto_tag"),
)


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("key", CHANGING)
def test_a_key_that_changes_what_is_learned_is_refused_with_its_reason(row: dict[str, Any], key: str) -> None:
    changing: tuple[Any, ...] = (0, 1.5, False, "x", [1], {"a": 1})
    for value in changing:
        with pytest.raises(InvalidRow, match="is not supported: ") as refusal:
            row_from_object(row | {key: value}, 1)
        assert refusal.value.field == key
    empty: tuple[Any, ...] = (None, "", [], {})
    for value in empty:
        assert row_from_object(row | {key: value}, 1) == row_from_object(row, 1)


@pytest.mark.parametrize("row", ROWS)
def test_tools_and_a_system_text_are_refused_where_they_are_not_read(row: dict[str, Any]) -> None:
    read = {"tools": "messages" in row or "conversations" in row, "system": "conversations" in row}
    for key, value in (("tools", [{"type": "function", "function": {"name": "f"}}]), ("system", "Be brief.")):
        if read[key]:
            assert row_from_object(row | {key: value}, 1) != row_from_object(row, 1)
        else:
            with pytest.raises(InvalidRow, match=f"{key}: is not supported"):
                row_from_object(row | {key: value}, 1)


def test_a_preference_is_refused_also_without_a_form() -> None:
    with pytest.raises(InvalidRow, match="chosen: is not supported: preferences are not learned"):
        row_from_object({"chosen": "a", "rejected": "b"}, 1)
    for row in ROWS[:-1]:
        for label in (False, True):
            with pytest.raises(InvalidRow, match="label: is not supported: preferences"):
                row_from_object(row | {"label": label}, 1)
    assert row_from_object({"text": "a", "label": False}, 1) == row_from_object({"text": "a"}, 1)
    assert find_ignored_keys({"text": "a", "label": False}) == {"label"}


def test_keys_that_are_not_read_are_named() -> None:
    call = {"index": 0, "function": {"name": "f", "arguments": "{}", "parsed": {}}}
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {}}], "id": 1},
        {"role": "assistant", "tool_calls": [call]},
    ]
    row_from_object({"messages": messages, "tools": None, "id": 1, "prompt": "a"}, 1)
    assert find_ignored_keys({"messages": messages, "tools": None, "id": 1, "prompt": "a"}) == {
        "id",
        "prompt",
        "messages[].id",
        "messages[].content[].cache_control",
        "messages[].tool_calls[].index",
        "messages[].tool_calls[].function.parsed",
    }
    assert find_ignored_keys({"conversations": [*TURNS, {**TURNS[0], "id": 2}]}) == {"conversations[].id"}
    assert find_ignored_keys({"instruction": "a", "input": "b", "output": "c", "text": "d"}) == {"text"}


def test_every_key_that_matters_is_read_from_columns() -> None:
    assert {"messages", "tools", "conversations", "instruction", "input", "output", "label", *CHANGING} <= READ_KEYS


def test_earlier_files_are_read_as_they_were() -> None:
    value = {
        "messages": [{**CHAT[0], "name": 5, "weight": 1}, {**CHAT[1], "weight": 0, "tool_calls": "x", "train": True}],
        "tools": 5,
        "weight": 0.5,
        "conversations": TURNS,
    }
    with pytest.raises(InvalidRow):
        row_from_object(value, 1)
    assert row_from_object(select_earlier_keys(value), 1) == row_from_object({"messages": CHAT}, 1)
    for row in ({"prompt": "a", "completion": "b"}, {"text": "a"}):
        assert row_from_object(select_earlier_keys(row | {"weight": 0, "images": [1]}), 1) == row_from_object(row, 1)
