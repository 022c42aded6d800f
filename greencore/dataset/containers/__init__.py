"""Containers of rows: JSON Lines, a JSON array, CSV, TSV and Parquet, compressed or not, read row by row."""

from greencore.dataset.containers.columns import AS_THEY_ARE, ColumnMapping
from greencore.dataset.containers.detection import Container, FileFormat, hint_container
from greencore.dataset.containers.limits import ReadLimits, UnusableFile
from greencore.dataset.containers.reading import (
    LoadedRows,
    OpenRows,
    ReadRow,
    format_invalid_row,
    is_plain_json_lines,
    load_file,
    open_rows,
)

__all__ = [
    "AS_THEY_ARE",
    "ColumnMapping",
    "Container",
    "FileFormat",
    "LoadedRows",
    "OpenRows",
    "ReadLimits",
    "ReadRow",
    "UnusableFile",
    "format_invalid_row",
    "hint_container",
    "is_plain_json_lines",
    "load_file",
    "open_rows",
]
