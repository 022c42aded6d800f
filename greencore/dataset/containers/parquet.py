"""Reads Parquet page by page: neither a row group nor a column is in memory as a whole."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType
from typing import Any

from greencore.dataset.containers.columns import ColumnMapping
from greencore.dataset.containers.detection import ENCRYPTED_PARQUET_MAGIC, PARQUET_MAGIC
from greencore.dataset.containers.limits import ReadLimits, UnusableFile
from greencore.dataset.rows import InvalidRow
from greencore.dataset.values import Place

BATCH_ROWS = 128
JSON_TYPES = (str, int, float, NoneType)
UNREADABLE = "is not a Parquet file that can be read"


def read_parquet(
    file: Path, limits: ReadLimits, columns: ColumnMapping
) -> Iterator[tuple[int, Mapping[str, object] | InvalidRow]]:
    """Yield (number from 1, object or the row's error) of each row. A null is an absent field.

    Raises `UnusableFile` for a file that cannot be read. One that expands beyond the memory raises MemoryError, or ends
    the process: a file from elsewhere is read in a process of its own.
    """
    import pyarrow

    _check_magic_bytes(file)
    try:
        yield from _read_objects(file, limits, columns)
    except (UnusableFile, MemoryError):
        raise
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise UnusableFile(f"{UNREADABLE}: {ascii(str(error))[1:200]}") from error


def _read_objects(
    file: Path, limits: ReadLimits, columns: ColumnMapping
) -> Iterator[tuple[int, Mapping[str, object] | InvalidRow]]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(file, pre_buffer=False, buffer_size=2**20) as table:
        limits.check_rows(table.metadata.num_rows)
        names = table.schema_arrow.names
        wanted = columns.select_columns(names)
        others = dict.fromkeys(name for name in names if name not in wanted)
        number = 0
        for batch in table.iter_batches(batch_size=BATCH_ROWS, columns=wanted, use_threads=False):
            for row in _decode_rows(batch):
                number += 1
                if isinstance(row, UnicodeDecodeError):
                    yield number, InvalidRow(number, None, "not UTF-8")
                    continue
                try:
                    value = {
                        name: part if isinstance(part, str) else _without_nulls(part, Place(number, name))
                        for name, part in row.items()
                        if part is not None
                    }
                except InvalidRow as error:
                    yield number, error
                else:
                    yield number, others | value


def _decode_rows(batch: Any) -> list[Any]:
    """Return the rows of a batch as objects, a row that is not UTF-8 as its error."""
    try:
        return list(batch.to_pylist())
    except UnicodeDecodeError as error:
        if batch.num_rows == 1:
            return [error]
        return [row for index in range(batch.num_rows) for row in _decode_rows(batch.slice(index, 1))]


def _without_nulls(value: Any, place: Place, *, inside: bool = False) -> Any:
    """Return the JSON value of a cell without the nulls of its objects, which Parquet adds to make them all alike.

    Raises `InvalidRow` for a part of a value that JSON cannot have, such as a time.
    """
    if isinstance(value, dict):
        return {name: _without_nulls(part, place, inside=True) for name, part in value.items() if part is not None}
    if isinstance(value, list):
        return [_without_nulls(part, place, inside=True) for part in value]
    if inside and not isinstance(value, JSON_TYPES):
        raise place.error(f"must be JSON, but holds {type(value).__name__}")
    return value


def _check_magic_bytes(file: Path) -> None:
    """Raise `UnusableFile` for faults that show without reading the whole file."""
    with file.open("rb") as content:
        start, size = content.read(4), content.seek(0, os.SEEK_END)
        if size < 12:
            raise UnusableFile(f"{UNREADABLE}: it ends after {size} bytes")
        content.seek(-8, os.SEEK_END)
        footer, end = int.from_bytes(content.read(4), "little"), content.read(4)
    if ENCRYPTED_PARQUET_MAGIC in (start, end):
        raise UnusableFile("is encrypted: expected Parquet that can be read without a key")
    if end != PARQUET_MAGIC or footer > size - 12:
        raise UnusableFile(f"{UNREADABLE}: its end is missing or garbled")
