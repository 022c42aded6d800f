"""Reading of JSON Lines: rows with their line numbers, and whole files."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from greencore.dataset.parsing import parse_row
from greencore.dataset.rows import Row

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


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
