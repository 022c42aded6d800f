"""Reading of rows from plain JSON Lines, as they are stored, with line numbers; `containers` reads other files."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from greencore.dataset.earlier import select_earlier_keys
from greencore.dataset.parsing import parse_object, row_from_object
from greencore.dataset.rows import Row

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_rows(lines: Iterable[str | bytes], *, earlier: bool = False) -> Iterator[Row]:
    """Parse JSON Lines; blank lines are skipped but counted, a leading byte order mark is ignored.

    `earlier` is for files that were stored when fewer keys were read (see `select_earlier_keys`). Raises `InvalidRow`
    at the first invalid line.
    """
    return (row for _, row in enumerate_rows(lines, earlier=earlier))


def enumerate_rows(lines: Iterable[str | bytes], *, earlier: bool = False) -> Iterator[tuple[int, Row]]:
    """Parse JSON Lines as `read_rows` does, into (line number from 1, row)."""
    for number, line in enumerate(lines, start=1):
        content = line.removeprefix(BYTE_ORDER_MARK) if number == 1 and isinstance(line, bytes) else line
        if content.strip():
            value = parse_object(content, number)
            yield number, row_from_object(select_earlier_keys(value) if earlier else value, number)


def load_rows(path: Path, *, earlier: bool = False) -> list[Row]:
    """Read all rows of a file as `read_rows` does. Raises `InvalidRow`, and `ValueError` for a file without a row."""
    with path.open("rb") as file:
        rows = list(read_rows(file, earlier=earlier))
    if not rows:
        raise ValueError(f"{path.name} holds no row")
    return rows
