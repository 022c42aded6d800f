"""Validates a file of JSON Lines row by row, with one row in memory at a time."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from api.datasets.validator import DatasetLimits, DatasetSummary, DatasetValidator
from greencore.dataset import BYTE_ORDER_MARK, InvalidRow, parse_object, row_from_object

CHUNK_BYTES = 2**20


def check_json_lines(file: Path, limits: DatasetLimits) -> DatasetSummary:
    """Validate a file, which may begin with a byte order mark. Raises `DatasetRejected` for no row, or too many."""
    validator = DatasetValidator("line", limits)
    with file.open("rb") as lines:
        if lines.read(len(BYTE_ORDER_MARK)) != BYTE_ORDER_MARK:
            lines.seek(0)
        for number, line in enumerate(_lines(lines, limits.row_bytes), start=1):
            if line is None:
                validator.begin_row()
                validator.reject_long_row(number)
            elif line.strip():
                validator.begin_row()
                try:
                    value = parse_object(line, number)
                    row = row_from_object(value, number)
                except InvalidRow as error:
                    validator.reject_row(error)
                else:
                    validator.accept_row(row, value)
    return validator.summary()


def _lines(file: BinaryIO, longest: int) -> Iterator[bytes | None]:
    """Yield lines without their end; None for one of more than `longest` bytes, which is skipped in chunks."""
    most = longest + len(b"\r\n")
    while line := file.readline(most):
        if line.endswith(b"\n") or len(line) < most:
            content = line.rstrip(b"\r\n")
            yield content if len(content) <= longest else None
        else:
            yield None
            while line and not line.endswith(b"\n"):
                line = file.readline(CHUNK_BYTES)
