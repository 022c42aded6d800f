"""Parser of `text/event-stream`, also of a stream that breaks off."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class ServerSentEvent:
    """One message; `id` is the value for `Last-Event-ID`, `retry_ms` the wait before a reconnection."""

    event: str
    data: str
    id: str | None
    retry_ms: int | None


def parse_events(chunks: Iterable[bytes]) -> Iterator[ServerSentEvent]:
    """Yield the complete messages of a stream; comments and an incomplete message are dropped."""
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
    """Split at line feeds only: texts may contain other characters that Python treats as line ends."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r").decode(errors="replace")
