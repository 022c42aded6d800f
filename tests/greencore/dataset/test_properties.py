"""Properties of parsing: any JSON gives a row or an `InvalidRow`, and rows survive being written and read."""

import json
from contextlib import suppress
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from greencore.dataset import (
    InvalidRow,
    Message,
    MessagesRow,
    PromptRow,
    Row,
    TextRow,
    find_ignored_keys,
    parse_row,
    row_from_object,
    row_to_object,
)
from greencore.dataset.keys import FORM_KEYS, READ_KEYS, REFUSED_MESSAGE_KEYS
from greencore.dataset.messages import ROLES, SHARE_GPT_ROLES
from greencore.dataset.tool_calls import parse_tool_calls, parse_tools
from greencore.dataset.values import Place

MESSAGE_KEYS = (
    "role",
    "content",
    "from",
    "value",
    "weight",
    "tool_calls",
    "name",
    "tool_call_id",
    *REFUSED_MESSAGE_KEYS,
)
INNER_KEYS = ("type", "text", "id", "function", "arguments", "name")
WORDS = st.sampled_from(
    (*ROLES, *SHARE_GPT_ROLES, "function", "text", "", " ", "{}", "[]", '{"name": "f"}', "\0", "\ud800")
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | WORDS
KEYS = st.sampled_from((*READ_KEYS, *MESSAGE_KEYS, *INNER_KEYS)) | st.text(max_size=3)
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=30
)
NEAR_CALLS = st.lists(
    st.fixed_dictionaries(
        {"function": st.fixed_dictionaries({"name": st.just("f") | JSON, "arguments": st.just("{}") | JSON})},
        optional={"id": st.just("a") | JSON, "type": st.just("function") | JSON},
    )
    | JSON,
    max_size=3,
)
NEAR_MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(ROLES), "content": st.text(max_size=5) | JSON},
        optional={"tool_calls": NEAR_CALLS, "weight": st.sampled_from((0, 1)) | JSON, "name": st.text(max_size=5)},
    )
    | st.fixed_dictionaries({"from": st.sampled_from(list(SHARE_GPT_ROLES)), "value": st.text(max_size=5) | JSON})
    | st.dictionaries(st.sampled_from(MESSAGE_KEYS), JSON, max_size=4),
    max_size=5,
)
NEAR_ROWS = st.dictionaries(st.sampled_from(sorted(frozenset().union(*FORM_KEYS.values()))), JSON | NEAR_MESSAGES)

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
SAID = TEXTS.filter(str.strip)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
ARGUMENTS = st.dictionaries(TEXTS, VALUES, max_size=3)
TOOLS = st.none() | st.lists(
    st.builds(
        lambda name, schema: {"type": "function", "function": {"name": name, "parameters": schema}}, SAID, VALUES
    ),
    min_size=1,
    max_size=3,
).map(lambda tools: parse_tools(tools, Place(1)))
CALLS = st.lists(
    st.builds(
        lambda name, arguments, extra: {"function": {"name": name, "arguments": arguments}} | extra,
        SAID,
        ARGUMENTS,
        st.fixed_dictionaries({}, optional={"id": SAID}),
    ),
    min_size=1,
    max_size=3,
).map(lambda calls: parse_tool_calls(calls, Place(1)))
NAMES = st.none() | SAID
MESSAGES = st.one_of(
    st.builds(Message, st.sampled_from(("system", "developer", "user")), SAID, name=NAMES),
    st.builds(Message, st.just("tool"), TEXTS, name=NAMES, tool_call_id=NAMES),
    st.builds(Message, st.just("assistant"), SAID, weight=st.sampled_from((0, 1)), name=NAMES),
    st.builds(Message, st.just("assistant"), TEXTS, CALLS, st.sampled_from((0, 1))),
)
ANSWERS = st.builds(Message, st.just("assistant"), SAID) | st.builds(Message, st.just("assistant"), TEXTS, CALLS)
CONVERSATIONS = st.builds(
    lambda before, answer, after, tools: MessagesRow((*before, answer, *after), tools),
    st.lists(MESSAGES, min_size=1, max_size=4),
    ANSWERS,
    st.lists(MESSAGES, max_size=3),
    TOOLS,
)
ROWS = st.builds(PromptRow, TEXTS, SAID) | st.builds(TextRow, SAID) | CONVERSATIONS


def parse(value: dict[str, Any]) -> Row | InvalidRow:
    """Return the row of an object, or the error that it gives."""
    try:
        return row_from_object(value, 3)
    except InvalidRow as error:
        return error


@given(NEAR_ROWS | st.dictionaries(KEYS, JSON, max_size=5))
def test_any_object_gives_a_row_or_an_invalid_row(value: dict[str, Any]) -> None:
    parsed = parse(value)
    if isinstance(parsed, InvalidRow):
        assert parsed.line == 3
        assert len(str(parsed).encode()) < 400
    else:
        find_ignored_keys(value)
        line = json.dumps(row_to_object(parsed), ensure_ascii=False).encode()
        assert parse_row(line, 3) == parsed


@given(JSON)
def test_any_json_gives_a_row_or_an_invalid_row(value: Any) -> None:
    with suppress(InvalidRow):
        parse_row(json.dumps(value), 1)


@given(ROWS)
def test_a_row_written_and_read_is_equal(row: Row) -> None:
    assert row_from_object(row_to_object(row), 1) == row
    assert parse_row(json.dumps(row_to_object(row)), 1) == row
    assert hash(parse_row(json.dumps(row_to_object(row)), 1)) == hash(row)
    assert find_ignored_keys(row_to_object(row)) == set()
