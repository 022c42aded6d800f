"""Training rows in JSON Lines: the three row forms, parsing, and errors with line number and field."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROW_FORMS = '{"prompt", "completion"}, {"messages": [{"role", "content"}, …]} or {"text"}'
ROLES = ("system", "user", "assistant")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
MAX_SHOWN_CHARACTERS = 120  # of a row's value, in an error


class InvalidRow(ValueError):
    """An invalid row: its `line` (from 1; 0 for a row not read from a file) and `field` (None for the whole row).

    `field` and `message` are short and printable for any row.
    """

    def __init__(self, line: int, field: str | None, message: str) -> None:
        super().__init__(f"{f'line {line}: ' if line else ''}{f'{field}: ' if field else ''}{message}")
        self.line, self.field, self.message = line, field, message


@dataclass(frozen=True)
class PromptRow:
    """A prompt and its completion; the loss is computed on the completion."""

    prompt: str
    completion: str
    line: int = field(default=0, compare=False)


@dataclass(frozen=True)
class MessagesRow:
    """A conversation of (role, content) that ends with the assistant; the loss is computed on its last message."""

    messages: tuple[tuple[str, str], ...]
    line: int = field(default=0, compare=False)


@dataclass(frozen=True)
class TextRow:
    """Plain text; the loss is computed on all of it."""

    text: str
    line: int = field(default=0, compare=False)


Row = PromptRow | MessagesRow | TextRow  # `line` is the line number, from 1; equality ignores it


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


def row_to_object(row: Row) -> dict[str, object]:
    """Convert a row to a JSON object, the inverse of `row_from_object`."""
    if isinstance(row, MessagesRow):
        return {"messages": [{"role": role, "content": content} for role, content in row.messages]}
    if isinstance(row, PromptRow):
        return {"prompt": row.prompt, "completion": row.completion}
    return {"text": row.text}


def read_rows(lines: Iterable[str | bytes]) -> Iterator[Row]:
    """Parse JSON Lines; blank lines are skipped but counted, a leading byte order mark is ignored.

    Raises `InvalidRow` at the first invalid line.
    """
    return (row for _, row in enumerate_rows(lines))


def enumerate_rows(lines: Iterable[str | bytes]) -> Iterator[tuple[int, Row]]:
    """Parse JSON Lines as `read_rows` does, into (line number from 1, row)."""
    for number, line in enumerate(lines, start=1):
        content = line.removeprefix(BYTE_ORDER_MARK) if number == 1 and isinstance(line, bytes) else line
        if content.strip():
            yield number, parse_row(content, number)


def load_rows(path: Path) -> list[Row]:
    """Read all rows of a file. Raises `InvalidRow`, and `ValueError` for a file without a row."""
    with path.open("rb") as file:
        rows = list(read_rows(file))
    if not rows:
        raise ValueError(f"{path.name} holds no row")
    return rows


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
        messages.append((role, content))
    if messages[-1][0] != "assistant":
        raise InvalidRow(number, "messages", "must end with the assistant's message, which is what is learned")
    return MessagesRow(tuple(messages), number)


def _shown(value: object) -> str:
    """Format a value for an error: text quoted and shortened, other values by type, since they may be large."""
    if not isinstance(value, str):
        return type(value).__name__
    return ascii(value) if len(value) <= MAX_SHOWN_CHARACTERS else f"{value[:MAX_SHOWN_CHARACTERS]!a}…"
