"""Parsing of rows: their form, recognised by their keys, and errors with line number and field."""

import json
from collections.abc import Mapping

from greencore.dataset.keys import find_form, refuse_row_keys
from greencore.dataset.messages import parse_conversations, parse_messages
from greencore.dataset.rows import InvalidRow, PromptRow, Row, TextRow
from greencore.dataset.values import Place, check_text, shown

ROW_FORMS = '{"prompt", "completion"}, {"messages"}, {"instruction", "output"}, {"conversations"} or {"text"}'


def parse_row(line: str | bytes, number: int) -> Row:
    """Parse one line of JSON into a row. Raises `InvalidRow` with the line number and the field."""
    return row_from_object(parse_object(line, number), number)


def parse_object(line: str | bytes, number: int) -> Mapping[str, object]:
    """Parse one line of UTF-8 JSON into an object. Raises `InvalidRow` with the line number."""
    try:
        value = json.loads(line if isinstance(line, str) else line.decode())
    except json.JSONDecodeError as error:
        raise InvalidRow(number, None, f"not JSON: {error.msg} at column {error.colno}") from error
    except UnicodeDecodeError as error:
        raise InvalidRow(number, None, f"not UTF-8: byte {error.start} cannot be decoded") from error
    except (ValueError, RecursionError) as error:  # thousands of digits in a number, or of nested brackets
        raise InvalidRow(number, None, f"not usable JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidRow(number, None, f"expected an object, {ROW_FORMS}, got {type(value).__name__}")
    return value


def row_from_object(value: Mapping[str, object], number: int) -> Row:
    """Convert a JSON object to a row. Raises `InvalidRow` with the line number and the field.

    Keys without a value are as absent. A row in several forms is read in the first of `keys.MARKERS`. An instruction
    becomes a prompt, its input after a blank line; a ShareGPT row becomes messages.
    """
    form = find_form(value)
    refuse_row_keys(value, form, number)
    place = Place(number)
    if form == "messages":
        return parse_messages(value, number)
    if form == "sharegpt":
        return parse_conversations(value, number)
    if form == "prompt":
        prompt = check_text(value.get("prompt"), place / "prompt", required=False)
        return PromptRow(prompt, check_text(value.get("completion"), place / "completion"), number)
    if form == "instruction":
        return _parse_instruction(value, place)
    if form == "text":
        return TextRow(check_text(value.get("text"), place / "text"), number)
    keys = ", ".join(sorted(value))
    raise InvalidRow(number, None, f"expected {ROW_FORMS}, got the keys {shown(keys)}")


def _parse_instruction(value: Mapping[str, object], place: Place) -> PromptRow:
    instruction = check_text(value.get("instruction"), place / "instruction", required=False)
    given = value.get("input")
    further = "" if given is None else check_text(given, place / "input", required=False)
    prompt = "\n\n".join(part for part in (instruction, further) if part.strip())
    return PromptRow(prompt, check_text(value.get("output"), place / "output"), place.line)
