"""Reads the rows of a file in any container: detection, decompression, mapping of columns and parsing together."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import NamedTuple

from greencore.dataset.containers.columns import AS_THEY_ARE, ROW_KEYS, ColumnMapping
from greencore.dataset.containers.decompression import open_content
from greencore.dataset.containers.detection import (
    DELIMITERS,
    HEAD_BYTES,
    Container,
    FileFormat,
    detect_compression,
    detect_container,
)
from greencore.dataset.containers.json_array import read_json_array
from greencore.dataset.containers.json_lines import read_json_lines
from greencore.dataset.containers.limits import ReadLimits, UnusableFile
from greencore.dataset.containers.parquet import read_parquet
from greencore.dataset.containers.table import read_table
from greencore.dataset.keys import find_ignored_keys
from greencore.dataset.parsing import row_from_object
from greencore.dataset.row_reading import BYTE_ORDER_MARK
from greencore.dataset.rows import InvalidRow, Row
from greencore.dataset.values import Place, decode_json

NO_LIMITS = ReadLimits()
MAX_IGNORED_NAMED = 20
# Keys whose value is no text: a cell of a table holds it as JSON. (Tools may be JSON text in any container.)
STRUCTURED_KEYS = ("messages", "conversations")


class ReadRow(NamedTuple):
    """A row of a file, or its error, with its number (from 1) and the object that it is read from, by its own keys."""

    number: int
    row: Row | InvalidRow
    value: Mapping[str, object]


@dataclass(frozen=True)
class OpenRows:
    """The rows of an open file, in its order."""

    format: FileFormat
    rows: Iterator[ReadRow]


class LoadedRows(NamedTuple):
    """All rows of a file, and the first `MAX_IGNORED_NAMED` of its keys that are not read."""

    container: Container
    rows: list[Row]
    ignored_keys: list[str]


@contextmanager
def open_rows(
    file: Path,
    *,
    limits: ReadLimits = NO_LIMITS,
    columns: ColumnMapping = AS_THEY_ARE,
    hint: Container | None = None,
    folder: Path | None = None,
) -> Iterator[OpenRows]:
    """Open a file of rows; `hint` decides what the content leaves open, see `detect_container`.

    Rows are counted by lines, in a JSON array by elements and in Parquet by rows (`Container.place`). Compressed
    Parquet is decompressed into a temporary file in `folder`, by default the system's. Raises `UnusableFile`, here and
    while rows are read, and what `read_parquet` raises.
    """
    with ExitStack() as stack:
        compression = detect_compression(_read_head(file))
        content = stack.enter_context(open_content(file, compression, limits))
        head = content.peek(HEAD_BYTES)[:HEAD_BYTES]
        if detect_compression(head) is not None and compression is not None:
            raise UnusableFile("is compressed twice: expected rows, compressed once at most")
        container = detect_container(head, fields={*ROW_KEYS, *columns.sources.values()}, hint=hint)
        if container is Container.PARQUET and compression is not None:
            plain = stack.enter_context(NamedTemporaryFile(dir=folder))
            shutil.copyfileobj(content, plain, 2**20)
            plain.flush()
            file = Path(plain.name)
        elif head.startswith(BYTE_ORDER_MARK):
            content.read(len(BYTE_ORDER_MARK))
        yield OpenRows(FileFormat(container, compression), _rows(file, content, container, limits, columns))


def load_file(file: Path, *, columns: ColumnMapping = AS_THEY_ARE, hint: Container | None = None) -> LoadedRows:
    """Read all rows of a file in any container. Raises `UnusableFile`, also for an invalid row, and without a row."""
    rows: list[Row] = []
    ignored: set[str] = set()
    with open_rows(file, columns=columns, hint=hint) as opened:
        container = opened.format.container
        for _, row, value in opened.rows:
            if isinstance(row, InvalidRow):
                raise UnusableFile(format_invalid_row(row, container)) from row
            rows.append(row)
            if len(ignored) < MAX_IGNORED_NAMED:
                ignored |= find_ignored_keys(value)
    if not rows:
        raise UnusableFile("holds no row")
    return LoadedRows(container, rows, sorted(ignored)[:MAX_IGNORED_NAMED])


def format_invalid_row(error: InvalidRow, container: Container) -> str:
    """Return an error's text with the place of its row in the container, such as `element 3: text: is missing`."""
    field = f"{error.field}: " if error.field else ""
    return f"{container.place} {error.line}: {field}{error.message}"


def is_plain_json_lines(file: Path, *, hint: Container | None = None) -> bool:
    """Return whether a file is JSON Lines without compression."""
    head = _read_head(file)
    container = detect_container(head, fields=ROW_KEYS, hint=hint)
    return detect_compression(head) is None and container is Container.JSON_LINES


def _read_head(file: Path) -> bytes:
    with file.open("rb") as content:
        return content.read(HEAD_BYTES)


def _rows(
    file: Path, content: BufferedReader, container: Container, limits: ReadLimits, columns: ColumnMapping
) -> Iterator[ReadRow]:
    in_cells = container in DELIMITERS
    for number, value in _objects(file, content, container, limits, columns):
        if isinstance(value, InvalidRow):
            yield ReadRow(number, value, {})
            continue
        mapped = columns.map_object(value) if columns.sources else value
        try:
            if in_cells:
                mapped = _decode_cells(mapped, number)
            row: Row | InvalidRow = row_from_object(mapped, number)
        except InvalidRow as error:
            row = columns.locate_error(error, value)
        else:
            row = columns.find_refused(value, number) or row
        yield ReadRow(number, row, mapped)


def _objects(
    file: Path, content: BufferedReader, container: Container, limits: ReadLimits, columns: ColumnMapping
) -> Iterator[tuple[int, Mapping[str, object] | InvalidRow]]:
    if container is Container.PARQUET:
        return read_parquet(file, limits, columns)
    if container is Container.JSON_ARRAY:
        return read_json_array(content, limits)
    if container is Container.JSON_LINES:
        return read_json_lines(content, limits)
    return read_table(content, container, limits, columns)


def _decode_cells(value: Mapping[str, object], number: int) -> Mapping[str, object]:
    """Return a table's row with the values of its structured keys; that of an empty cell is None."""
    place = Place(number)
    decoded = {
        key: decode_json(cell, place / key) if cell.strip() else None
        for key in STRUCTURED_KEYS
        if isinstance(cell := value.get(key), str)
    }
    return {**value, **decoded} if decoded else value
