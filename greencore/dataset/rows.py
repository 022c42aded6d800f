"""The row types of a dataset, the error of an invalid row, and a row's JSON object."""

import json
from dataclasses import dataclass, field


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
class Message:
    """One turn of a conversation.

    `tool_calls` is canonical JSON text of the calls that an assistant's turn makes, None without calls: a list of
    {"type", "id" where given, "function": {"name", "arguments"}}, arguments an object, keys in the order given; then
    `content` may be empty. `weight` is 1, or 0 for an assistant's turn that is not learned. `name` and `tool_call_id`
    are kept as given.
    """

    role: str
    content: str
    tool_calls: str | None = None
    weight: int = 1
    name: str | None = None
    tool_call_id: str | None = None


@dataclass(frozen=True)
class MessagesRow:
    """A conversation in which an assistant's message of weight 1 answers another one.

    `tools` is canonical JSON text of the tools that the assistant may call, None without tools.
    """

    messages: tuple[Message, ...]
    tools: str | None = None
    line: int = field(default=0, compare=False)


@dataclass(frozen=True)
class TextRow:
    """Plain text; the loss is computed on all of it."""

    text: str
    line: int = field(default=0, compare=False)


Row = PromptRow | MessagesRow | TextRow  # `line` is the line number, from 1; equality ignores it


def row_form(row: Row) -> str:
    """Return the row's form, by the field that names it."""
    return "prompt" if isinstance(row, PromptRow) else "messages" if isinstance(row, MessagesRow) else "text"


def row_to_object(row: Row) -> dict[str, object]:
    """Convert a row to a JSON object, the inverse of `row_from_object`; keys that say nothing are left out."""
    if isinstance(row, MessagesRow):
        value: dict[str, object] = {"messages": [_message_to_object(message) for message in row.messages]}
        return value if row.tools is None else value | {"tools": json.loads(row.tools)}
    if isinstance(row, PromptRow):
        return {"prompt": row.prompt, "completion": row.completion}
    return {"text": row.text}


def _message_to_object(message: Message) -> dict[str, object]:
    value: dict[str, object] = {"role": message.role, "content": message.content}
    if message.tool_calls is not None:
        value["tool_calls"] = json.loads(message.tool_calls)
    if message.weight != 1:
        value["weight"] = message.weight
    for name in ("name", "tool_call_id"):
        if (text := getattr(message, name)) is not None:
            value[name] = text
    return value
