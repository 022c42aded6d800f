"""Conversations: roles, contents, tools, weights, and what of them is refused."""

import json
from typing import Any

import pytest

from greencore.dataset import InvalidRow, Message, MessagesRow, row_from_object
from greencore.dataset.containers import ColumnMapping
from greencore.dataset.messages import MAX_MESSAGES, MAX_PARTS
from greencore.dataset.tool_calls import MAX_TOOL_CALLS, MAX_TOOLS
from greencore.dataset.values import MAX_JSON_DEPTH, MAX_NAME_CHARACTERS

USER = {"role": "user", "content": "Weather in Paris?"}
ANSWER = {"role": "assistant", "content": "Sunny."}
FUNCTION = {"name": "weather", "arguments": '{"city": "Paris"}'}
CALL = {"id": "call_1", "type": "function", "function": FUNCTION}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}, "strict": True}}


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def parse(messages: Any, **others: Any) -> MessagesRow:
    row = row_from_object({"messages": messages, **others}, 7)
    assert isinstance(row, MessagesRow)
    return row


def test_a_conversation_with_tools_is_read_whole() -> None:
    row = parse(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "developer", "content": [{"type": "text", "text": "Use "}, {"type": "text", "text": "tools."}]},
            {**USER, "name": "ann"},
            {"role": "assistant", "content": None, "tool_calls": [CALL], "refusal": None, "audio": None},
            {"role": "tool", "content": "", "tool_call_id": "call_1"},
            {**ANSWER, "weight": 0},
            {**USER, "tool_calls": None, "weight": None},
            {**ANSWER, "weight": 1.0, "tool_calls": []},
        ],
        tools=[TOOL],
    )
    calls = '[{"type":"function","id":"call_1","function":{"name":"weather","arguments":{"city":"Paris"}}}]'
    assert row.messages == (
        Message("system", "Be brief."),
        Message("developer", "Use tools."),
        Message("user", "Weather in Paris?", name="ann"),
        Message("assistant", "", tool_calls=calls),
        Message("tool", "", tool_call_id="call_1"),
        Message("assistant", "Sunny.", weight=0),
        Message("user", "Weather in Paris?"),
        Message("assistant", "Sunny."),
    )
    assert row.tools is not None
    assert json.loads(row.tools) == [TOOL]
    assert hash(row)


def test_equal_conversations_are_equal_however_they_are_written() -> None:
    bare = {"function": {"name": "weather", "arguments": {"city": "Paris"}}}
    plain = parse([USER, {"role": "assistant", "tool_calls": [bare]}], tools=json.dumps([TOOL["function"]]))
    full = parse(
        [{**USER, "weight": 0}, {"role": "assistant", "content": "", "tool_calls": [{**bare, "type": "function"}]}],
        tools=[TOOL],
    )
    assert plain == full


def test_turns_after_the_last_learned_one_are_accepted() -> None:
    assert len(parse([USER, ANSWER, USER, {**ANSWER, "weight": 0}]).messages) == 4


@pytest.mark.parametrize(
    ("message", "field", "reason"),
    [
        ({"role": "function", "content": "x"}, "role", "must be one of system, developer, user, assistant, tool"),
        ({"role": ["user"], "content": "x"}, "role", "got list"),
        ({"role": "user", "content": None}, "content", "must be text that is not empty"),
        ({"role": "assistant", "content": " ", "tool_calls": []}, "content", "must be text that is not empty"),
        ({"role": "user", "content": []}, "content", "must be text that is not empty"),
        ({"role": "user", "content": ["x"]}, "content[0]", "must be an object"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
            "content[0].type",
            "only text can be learned, got 'image_url'",
        ),
        ({"role": "user", "content": [{"type": "text", "text": 1}]}, "content[0].text", "must be text"),
        ({**ANSWER, "content": [{"type": "text", "text": "a", "weight": 0}]}, "content[0].weight", "to the message"),
        ({**ANSWER, "content": [{"type": "text", "text": "a", "train": False}]}, "content[0].train", "a weight of 0"),
        ({**ANSWER, "content": [{"type": "text", "text": "a", "mask": 1}]}, "content[0].mask", "a weight of 0 or 1"),
        ({"role": "user", "content": [{"type": "text", "text": "a\0"}]}, "content", "NUL"),
        ({"role": "user", "content": [{}] * (MAX_PARTS + 1)}, "content", "more than 1000"),
        ({**USER, "weight": 1}, "weight", "only the assistant's messages are learned"),
        ({**ANSWER, "weight": 0.5}, "weight", "must be 0 or 1"),
        ({**ANSWER, "weight": True}, "weight", "must be 0 or 1"),
        ({**ANSWER, "weight": "1"}, "weight", "must be 0 or 1"),
        ({**ANSWER, "weight": 10**400}, "weight", "must be 0 or 1"),
        ({**USER, "tool_calls": [CALL]}, "tool_calls", "belong to the assistant's messages"),
        ({**USER, "tool_call_id": "call_1"}, "tool_call_id", "belongs to a tool's message"),
        ({**USER, "name": ""}, "name", "is empty"),
        ({**USER, "name": "n" * (MAX_NAME_CHARACTERS + 1)}, "name", "more than 256"),
        ({**USER, "name": "\ud800"}, "name", "surrogate"),
        ({**ANSWER, "train": False}, "train", "a weight of 0 or 1"),
        ({**ANSWER, "loss_weight": 0}, "loss_weight", "a weight of 0 or 1"),
        ({**ANSWER, "reasoning_content": "hm"}, "reasoning_content", "<think>"),
        ({**ANSWER, "function_call": FUNCTION}, "function_call", "give tool_calls"),
        ({**ANSWER, "refusal": "no"}, "refusal", "give it as content"),
        ({**USER, "images": ["x"]}, "images", "only text"),
    ],
)
def test_an_invalid_message_names_its_field(message: Any, field: str, reason: str) -> None:
    with pytest.raises(InvalidRow, match=reason) as refusal:
        parse([USER, message, ANSWER])
    assert (refusal.value.line, refusal.value.field) == (7, f"messages[1].{field}")


@pytest.mark.parametrize(
    ("call", "field", "reason"),
    [
        (5, "", "must be an object"),
        ({"type": "custom", "function": FUNCTION}, ".type", "must be 'function', got 'custom'"),
        ({"type": "function"}, ".function", "is missing"),
        ({"function": {"arguments": "{}"}}, ".function.name", "is missing"),
        ({"function": {"name": "x" * 300, "arguments": "{}"}}, ".function.name", "more than 256"),
        ({"function": {"name": "f", "arguments": 5}}, ".function.arguments", "must be an object, .*, got int"),
        ({"function": {"name": "f", "arguments": "null"}}, ".function.arguments", "must be an object, .*, got null"),
        ({"function": {"name": "f", "arguments": "{"}}, ".function.arguments", "is not JSON"),
        ({"function": {"name": "f", "arguments": "[" * 100_000}}, ".function.arguments", "is not JSON"),
        ({"function": {"name": "f", "arguments": "[1]"}}, ".function.arguments", "must be an object"),
        ({"id": 5, "function": FUNCTION}, ".id", "must be text"),
        ({"id": "", "function": FUNCTION}, ".id", "is empty"),
    ],
)
def test_an_invalid_tool_call_names_its_field(call: Any, field: str, reason: str) -> None:
    with pytest.raises(InvalidRow, match=reason) as refusal:
        parse([USER, {"role": "assistant", "tool_calls": [CALL, call]}])
    assert refusal.value.field == f"messages[1].tool_calls[1]{field}"


@pytest.mark.parametrize("given", [{}, {"arguments": ""}, {"arguments": " "}, {"arguments": None}])
def test_a_call_without_arguments_has_an_empty_object_of_them(given: Any) -> None:
    whole = [{"type": "function", "function": {"name": "f", "arguments": {}}}]
    call = {"function": {"name": "f", **given}}
    assert parse([USER, {"role": "assistant", "tool_calls": [call]}]).messages[1].tool_calls == json.dumps(
        whole, separators=(",", ":")
    )
    turns = [{"from": "human", "value": "a"}, {"from": "function_call", "value": json.dumps({"name": "f", **given})}]
    row = row_from_object({"conversations": turns}, 7)
    assert row == parse([{**USER, "content": "a"}, {"role": "assistant", "tool_calls": whole}])


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"a": nested(MAX_JSON_DEPTH)}, "nested more than 32"),
        ({"a": float("nan")}, "a number that JSON cannot have"),
        ({"a": float("inf")}, "a number that JSON cannot have"),
        ({"a": "\ud800"}, "surrogate"),
        ({"\0": 1}, "NUL"),
    ],
)
def test_arguments_and_tools_are_json_that_can_be_stored(value: Any, reason: str) -> None:
    with pytest.raises(InvalidRow, match=reason):
        parse([USER, {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": value}}]}])
    with pytest.raises(InvalidRow, match=reason):
        parse([USER, ANSWER], tools=[{"function": {"name": "f", "parameters": value}}])


@pytest.mark.parametrize(
    ("tools", "field", "reason"),
    [
        ("{}", "tools", "must be a list"),
        ("[", "tools", "is not JSON"),
        (5, "tools", "must be a list, got int"),
        (["weather"], "tools[0]", "must be an object"),
        ([{"type": "web_search"}], "tools[0].type", "must be 'function', got 'web_search'"),
        ([{}], "tools[0].function", "is missing"),
        ([{"function": {}}], "tools[0].function.name", "is missing"),
        ([TOOL] * (MAX_TOOLS + 1), "tools", "more than 128"),
    ],
)
def test_invalid_tools_name_their_field(tools: Any, field: str, reason: str) -> None:
    with pytest.raises(InvalidRow, match=reason) as refusal:
        parse([USER, ANSWER], tools=tools)
    assert refusal.value.field == field


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([USER, {**ANSWER, "weight": 0}], "weight 0 in every assistant's message"),
        ([ANSWER, USER], "no message before the assistant's"),
        ([ANSWER, USER, {**ANSWER, "weight": 0}], "no message before the assistant's"),
        ([USER, USER], "no assistant's message"),
        ([USER] * (MAX_MESSAGES + 1), "more than 10000"),
        ([USER, {"role": "assistant", "tool_calls": [CALL] * (MAX_TOOL_CALLS + 1)}], "more than 128"),
    ],
)
def test_a_conversation_without_anything_to_learn_or_too_long_is_refused(messages: Any, reason: str) -> None:
    with pytest.raises(InvalidRow, match=reason):
        parse(messages)


def test_a_share_gpt_row_is_read_as_messages() -> None:
    row = row_from_object(
        {
            "conversations": [
                {"from": "human", "value": "Weather in Paris?", "weight": None},
                {"from": "function_call", "value": json.dumps(FUNCTION)},
                {"from": "observation", "value": "sunny"},
                {"from": "gpt", "value": "Sunny.", "weight": 0},
                {"from": "user", "value": "Twice?"},
                {"from": "function_call", "value": json.dumps([FUNCTION, FUNCTION]), "weight": 1},
                {"from": "tool", "value": ""},
                {"from": "assistant", "value": "Yes."},
            ],
            "system": "Be brief.",
            "tools": json.dumps([TOOL["function"]]),
        },
        1,
    )
    call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Paris"}}}
    assert row == parse(
        [
            {"role": "system", "content": "Be brief."},
            USER,
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "content": "sunny"},
            {**ANSWER, "weight": 0},
            {"role": "user", "content": "Twice?"},
            {"role": "assistant", "tool_calls": [call, call]},
            {"role": "tool", "content": ""},
            {"role": "assistant", "content": "Yes."},
        ],
        tools=[TOOL],
    )


@pytest.mark.parametrize(
    ("changed", "field", "reason"),
    [
        ({"from": "robot"}, ".from", "must be one of system, human, user, gpt"),
        ({"from": ["gpt"]}, ".from", "got list"),
        ({"value": None}, ".value", "must be text that is not empty"),
        ({"from": "function_call", "value": "weather()"}, ".value", "is not JSON"),
        ({"from": "function_call", "value": "[]"}, ".value", "calls no function"),
        ({"from": "function_call", "value": '{"name": "f", "arguments": 5}'}, ".value.arguments", "got int"),
        ({"weight": 2}, ".weight", "must be 0 or 1"),
        ({"train": True}, ".train", "a weight of 0 or 1"),
    ],
)
def test_an_invalid_turn_of_share_gpt_names_its_field(changed: Any, field: str, reason: str) -> None:
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello", **changed}]
    with pytest.raises(InvalidRow, match=reason) as refusal:
        row_from_object({"conversations": turns}, 1)
    assert refusal.value.field == f"conversations[1]{field}"


def test_the_other_form_of_conversation_is_read_by_a_mapping_that_the_error_names() -> None:
    turns = [{"from": "human", "value": USER["content"]}, {"from": "gpt", "value": ANSWER["content"]}]
    for key, given, field in (("conversations", [USER, ANSWER], "from"), ("messages", turns, "role")):
        with pytest.raises(InvalidRow, match="map them with columns, ") as refusal:
            row_from_object({key: given}, 7)
        assert refusal.value.field == f"{key}[0].{field}"
        columns = json.loads(refusal.value.message.rpartition("columns, ")[2])
        assert row_from_object(ColumnMapping.parse(columns).map_object({key: given}), 7) == parse([USER, ANSWER])


def test_a_share_gpt_row_has_one_system_message() -> None:
    turns = [{"from": name, "value": name} for name in ("system", "human", "gpt")]
    with pytest.raises(InvalidRow, match="system: is given beside a first turn from system"):
        row_from_object({"conversations": turns, "system": "Be brief."}, 1)
    assert row_from_object({"conversations": turns, "system": ""}, 1) == MessagesRow(
        (Message("system", "system"), Message("user", "human"), Message("assistant", "gpt"))
    )
