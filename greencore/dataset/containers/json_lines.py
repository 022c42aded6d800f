"""Reads the objects of a JSON Lines container, line by line; an invalid line is an error beside the others."""

from collections.abc import Iterator, Mapping
from io import BufferedReader

from greencore.dataset import InvalidRow, parse_object
from greencore.dataset.containers.limits import ReadLimits

CHUNK_BYTES = 2**20


def read_json_lines(
    content: BufferedReader, limits: ReadLimits
) -> Iterator[tuple[int, Mapping[str, object] | InvalidRow]]:
    """Yield (line from 1, object or the line's error) of each line that is not blank."""
    for number, line in enumerate(_lines(content, limits.row_bytes), start=1):
        if line is None:
            yield number, limits.long_row(number)
        elif line.strip():
            try:
                value = parse_object(line, number)
            except InvalidRow as error:
                yield number, error
            else:
                yield number, value


def _lines(content: BufferedReader, longest: int) -> Iterator[bytes | None]:
    """Yield lines without their end; None for one of more than `longest` bytes, which is skipped in chunks."""
    most = longest + len(b"\r\n")
    while line := content.readline(most):
        if line.endswith(b"\n") or len(line) < most:
            text = line.rstrip(b"\r\n")
            yield text if len(text) <= longest else None
        else:
            yield None
            while line and not line.endswith(b"\n"):
                line = content.readline(CHUNK_BYTES)
