"""Containers of rows: JSON Lines, a JSON array, CSV, TSV and Parquet, compressed or not, read row by row."""

from greencore.dataset.containers.columns import ColumnMapping
from greencore.dataset.containers.detection import Container, FileFormat, hint_container
from greencore.dataset.containers.limits import ReadLimits, UnusableFile
from greencore.dataset.containers.reading import OpenRows, ReadRow, is_plain_json_lines, open_rows

__all__ = [
    "ColumnMapping",
    "Container",
    "FileFormat",
    "OpenRows",
    "ReadLimits",
    "ReadRow",
    "UnusableFile",
    "hint_container",
    "is_plain_json_lines",
    "open_rows",
]
