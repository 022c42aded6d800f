"""Parsing of rows: the three forms, recognised by their keys, and errors with line number and field."""

import json
from collections.abc import Mapping

from greencore.dataset.rows import InvalidRow, Message, MessagesRow, PromptRow, Row, TextRow

ROW_FORMS = '{"prompt", "completion"}, {"messages": [{"role", "content"}, …]} or {"text"}'
ROLES = ("system", "user", "assistant")
MAX_SHOWN_CHARACTERS = 120  # of a row's value, in an error


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
    """Convert a JSON object to a row. Raises `InvalidRow` with the line number and the field."""
    if "messages" in value:
        return _messages_row(value["messages"], number)
    if "prompt" in value or "completion" in value:
        prompt = _text(value, "prompt", number)
        return PromptRow(prompt, _text(value, "completion", number, required=True), number)
    if "text" in value:
        return TextRow(_text(value, "text", number, required=True), number)
    raise InvalidRow(number, None, f"expected {ROW_FORMS}, got the keys {_shown(', '.join(sorted(value)))}")


def _text(value: Mapping[str, object], field: str, number: int, *, required: bool = False) -> str:
    text = value.get(field)
    if not isinstance(text, str):
        raise InvalidRow(number, field, "is missing" if text is None else f"must be text, got {type(text).__name__}")
    _check_characters(text, field, number)
    if required and not text.strip():
        raise InvalidRow(number, field, "is empty: there is nothing to learn from it")
    return text


def _check_characters(text: str, field: str, number: int) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRow(number, field, f"character {error.start} is half of a surrogate pair") from error
    if "\0" in text:
        raise InvalidRow(number, field, f"character {text.index(chr(0))} is NUL, which cannot be stored")


def _messages_row(value: object, number: int) -> MessagesRow:
    if not isinstance(value, list) or not value:
        raise InvalidRow(number, "messages", "must be a list with at least one message")
    messages = []
    for index, message in enumerate(value):
        field = f"messages[{index}]"
        if not isinstance(message, dict):
            raise InvalidRow(number, field, 'must be an object, {"role", "content"}')
        role = message.get("role")
        if role not in ROLES:
            raise InvalidRow(number, f"{field}.role", f"must be one of {', '.join(ROLES)}, got {_shown(role)}")
        content = message.get("content")
        if not isinstance(content, str) or not content.strip():
            raise InvalidRow(number, f"{field}.content", "must be text that is not empty")
        _check_characters(content, f"{field}.content", number)
        messages.append(Message(role, content))
    if messages[-1].role != "assistant":
        raise InvalidRow(number, "messages", "must end with the assistant's message, which is what is learned")
    return MessagesRow(tuple(messages), line=number)


def _shown(value: object) -> str:
    """Format a value for an error: text quoted and shortened, other values by type, since they may be large."""
    if not isinstance(value, str):
        return type(value).__name__
    return ascii(value) if len(value) <= MAX_SHOWN_CHARACTERS else f"{value[:MAX_SHOWN_CHARACTERS]!a}…"
