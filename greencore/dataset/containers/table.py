"""Reads CSV and TSV with a header row by row."""

import csv
from collections.abc import Iterator, Mapping
from io import BufferedReader

from greencore.dataset.containers.columns import ColumnMapping
from greencore.dataset.containers.detection import DELIMITERS, Container
from greencore.dataset.containers.limits import ReadLimits, UnusableFile
from greencore.dataset.rows import InvalidRow

MAX_COLUMNS = 1000


def read_table(
    content: BufferedReader, container: Container, limits: ReadLimits, columns: ColumnMapping
) -> Iterator[tuple[int, Mapping[str, object] | InvalidRow]]:
    """Yield (line on which the row begins, its cells by column, or the row's error) of each row.

    Blank lines are skipped. A cell in double quotes may hold delimiters, line breaks and doubled quotes. Columns
    without a name are left out. Raises `UnusableFile` for a header that cannot be used, and for a row above the limit,
    since a missing quote makes a row of all that follows.
    """
    lines = _Lines(content, limits)
    # The size of a field is limited for the whole process, in characters; the limit that counts is that of `_Lines`.
    csv.field_size_limit(lines.longest)
    rows = csv.reader(lines, delimiter=DELIMITERS[container], strict=True)
    header = _read_header(rows, lines, columns)
    kind = container.upper()
    while True:
        lines.begin_row()
        try:
            cells = next(rows, None)
        except csv.Error as error:
            lines.check_length()
            yield lines.first, InvalidRow(lines.first, None, f"not {kind}: {error}")
            continue
        lines.check_length()
        if cells is None:
            return
        if lines.undecodable is not None:
            yield lines.first, InvalidRow(lines.first, None, lines.undecodable)
        elif len(cells) == len(header):
            yield lines.first, {name: cell for name, cell in zip(header, cells, strict=True) if name}
        elif cells:
            message = f"has {len(cells)} cells, but the header has {len(header)}"
            yield lines.first, InvalidRow(lines.first, None, message)


def _read_header(rows: Iterator[list[str]], lines: "_Lines", columns: ColumnMapping) -> list[str]:
    try:
        header = next((cells for cells in rows if cells), [])
    except csv.Error as error:
        lines.check_length()
        raise UnusableFile(f"has no header that can be read: {error}") from error
    lines.check_length()
    if len(header) > MAX_COLUMNS:
        raise UnusableFile(f"has {len(header)} columns: expected at most {MAX_COLUMNS}")
    if lines.undecodable is not None:
        raise UnusableFile(f"has no header that can be read: {lines.undecodable}")
    names = [name.strip() for name in header]
    columns.select_columns([name for name in names if name])
    return names


class _Lines(Iterator[str]):
    """Lines of a table as text, counted from 1; ends where those of one row are longer than a row may be."""

    def __init__(self, content: BufferedReader, limits: ReadLimits) -> None:
        self._content, self._limits, self.longest = content, limits, limits.row_bytes + len(b"\r\n")
        self._number, self._row_bytes = 0, 0
        self.first = 1
        self.undecodable: str | None = None

    def begin_row(self) -> None:
        """Begin to count the lines and bytes of the next row."""
        self.first, self.undecodable, self._row_bytes = self._number + 1, None, 0

    def check_length(self) -> None:
        """Raise `UnusableFile` where the lines ended since the row is too long: `csv` would replace an error here."""
        if self._row_bytes > self.longest:
            message = self._limits.long_row(self.first).message
            raise UnusableFile(f"line {self.first}: {message}; if it is not, a quote is missing")

    def __next__(self) -> str:
        line = self._content.readline(self.longest - self._row_bytes + 1)
        self._row_bytes += len(line)
        if not line or self._row_bytes > self.longest:
            raise StopIteration
        self._number += 1
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            # The rest of the row is read on, to find the next one.
            self.undecodable = f"not UTF-8: byte {error.start} of line {self._number} cannot be decoded"
            return line.decode(errors="replace")
