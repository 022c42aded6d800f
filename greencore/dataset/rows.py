"""The row types of a dataset, the error of an invalid row, and a row's JSON object."""

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

    `tool_calls` is canonical JSON text of the calls that an assistant's turn makes, None without calls; `weight` is 1
    for a turn that may be learned, 0 for one that is only read. `name` and `tool_call_id` are kept as given.
    """

    role: str
    content: str
    tool_calls: str | None = None
    weight: int = 1
    name: str | None = None
    tool_call_id: str | None = None


@dataclass(frozen=True)
class MessagesRow:
    """A conversation that ends with the assistant; the loss is computed on its last message.

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


def row_to_object(row: Row) -> dict[str, object]:
    """Convert a row to a JSON object, the inverse of `row_from_object`."""
    if isinstance(row, MessagesRow):
        return {"messages": [{"role": message.role, "content": message.content} for message in row.messages]}
    if isinstance(row, PromptRow):
        return {"prompt": row.prompt, "completion": row.completion}
    return {"text": row.text}
