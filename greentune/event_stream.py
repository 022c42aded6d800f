"""`text/event-stream` on the wire: messages of a stream that may break off anywhere."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class ServerSentEvent:
    """One message; `id` is what `Last-Event-ID` takes, `retry_ms` how long to wait before coming back."""

    event: str
    data: str
    id: str | None
    retry_ms: int | None


def parse_events(chunks: Iterable[bytes]) -> Iterator[ServerSentEvent]:
    """The whole messages among the bytes of a stream; comments, and a message that breaks off, are left out."""
    event, data, last_id, retry_ms = "", list[str](), None, None
    for line in _lines(chunks):
        if not line:
            if data or retry_ms is not None:
                yield ServerSentEvent(event or "message", "\n".join(data), last_id, retry_ms)
            event, data, last_id, retry_ms = "", [], None, None
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            event = value
        elif name == "data":
            data.append(value)
        elif name == "id":
            last_id = value
        elif name == "retry" and value.isdigit():
            retry_ms = int(value)


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Split at line feeds alone: the texts within may hold other characters that Python takes for a line's end."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r").decode(errors="replace")
