"""Parsing of JSON Lines rows, valid and invalid."""

from pathlib import Path

import pytest

from greencore.dataset import (
    InvalidRow,
    Message,
    MessagesRow,
    PromptRow,
    TextRow,
    enumerate_rows,
    find_form,
    load_rows,
    parse_row,
    read_rows,
    row_from_object,
)


def test_the_forms_of_a_row() -> None:
    lines: list[str | bytes] = [
        '{"prompt": "2 + 2 =", "completion": " 4"}',
        "",
        '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}',
        b'{"text": "Gr\xc3\xbcn"}',
        '{"instruction": "Add.", "input": "2 + 2", "output": "4"}',
        '{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}',
    ]
    assert list(read_rows(lines)) == [
        PromptRow("2 + 2 =", " 4"),
        MessagesRow((Message("user", "Hi"), Message("assistant", "Hello"))),
        TextRow("Grün"),
        PromptRow("Add.\n\n2 + 2", "4"),
        MessagesRow((Message("user", "Hi"), Message("assistant", "Hello"))),
    ]


@pytest.mark.parametrize(
    ("line", "field", "message"),
    [
        ("{", None, "not JSON"),
        ("[1]", None, "expected an object"),
        (b'{"text": "\xff"}', None, "not UTF-8"),
        ("[" * 100_000, None, "not usable JSON"),
        ('{"text": ' + "9" * 5000 + "}", None, "not usable JSON"),
        ('{"text": "\\ud800"}', "text", "surrogate"),
        ('{"text": "a\\u0000"}', "text", "character 1 is NUL"),
        ('{"text": "a"}'.encode("utf-16-be"), None, "not JSON"),
        ('{"text": 3}', "text", "must be text, got int"),
        ('{"text": "  "}', "text", "is empty"),
        ('{"prompt": "a"}', "completion", "is missing"),
        ('{"prompt": "a", "completion": ""}', "completion", "is empty"),
        ('{"prompt": "a", "completion": " \\n\\t"}', "completion", "is empty"),
        ('{"completion": "a"}', "prompt", "is missing"),
        ('{"question": "a"}', None, "got the keys"),
        ('{"messages": []}', "messages", "at least one"),
        ('{"messages": [{"role": "assistant", "content": " "}]}', "messages[0].content", "not empty"),
        ('{"messages": [{"role": "robot", "content": "x"}]}', "messages[0].role", "must be one of"),
        ('{"messages": [{"role": "user", "content": "x"}]}', "messages", "has no assistant's message"),
    ],
)
def test_an_invalid_row_names_its_line_and_field(line: str | bytes, field: str | None, message: str) -> None:
    with pytest.raises(InvalidRow, match=message) as refusal:
        parse_row(line, 7)
    assert (refusal.value.line, refusal.value.field) == (7, field)
    assert str(refusal.value).startswith("line 7: ")


@pytest.mark.parametrize(
    ("value", "prompt"),
    [
        ({"instruction": "Add.", "output": "4"}, "Add."),
        ({"instruction": "Add.", "input": None, "output": "4"}, "Add."),
        ({"instruction": "Add.", "input": " ", "output": "4"}, "Add."),
        ({"instruction": "", "input": "2 + 2", "output": "4"}, "2 + 2"),
        ({"instruction": "Add.\n", "input": "2 + 2", "output": "4", "text": "whole"}, "Add.\n\n\n2 + 2"),
    ],
)
def test_an_instruction_and_its_input_are_a_prompt(value: dict[str, object], prompt: str) -> None:
    assert row_from_object(value, 1) == PromptRow(prompt, "4")


@pytest.mark.parametrize(
    ("value", "form"),
    [
        ({"messages": [], "prompt": "a", "text": "b"}, "messages"),
        ({"messages": None, "text": "b"}, "text"),
        ({"messages": None}, "messages"),
        ({"conversations": [], "text": "b"}, "sharegpt"),
        ({"completion": "a", "instruction": "b"}, "prompt"),
        ({"output": "a"}, "instruction"),
        ({"input": "a"}, None),
    ],
)
def test_a_form_is_found_by_keys_that_have_a_value(value: dict[str, object], form: str | None) -> None:
    assert find_form(value) == form


def test_an_error_is_short_however_long_the_row_and_nested_its_values() -> None:
    nested: object = "x"
    for _ in range(100_000):
        nested = [nested]
    for value in ({"k" * 10_000: 1}, {"messages": [{"role": "r" * 10_000}]}, {"messages": [{"role": nested}]}):
        with pytest.raises(InvalidRow) as refusal:
            row_from_object(value, 1)
        assert len(str(refusal.value)) < 300


def test_a_byte_order_mark_is_accepted_only_at_the_start() -> None:
    line = b'\xef\xbb\xbf{"text": "a"}'
    assert list(enumerate_rows([line])) == [(1, TextRow("a"))]
    with pytest.raises(InvalidRow, match="line 2: not JSON"):
        list(read_rows([line, line]))


def test_blank_lines_count_in_line_numbers() -> None:
    with pytest.raises(InvalidRow, match="line 3: not JSON"):
        list(read_rows(['{"text": "a"}', "", "oops"]))


def test_a_file_without_a_row_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("\n\n")
    with pytest.raises(ValueError, match=r"rows\.jsonl holds no row"):
        load_rows(tmp_path / "rows.jsonl")
