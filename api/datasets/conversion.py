"""Converts an upload to JSON Lines: `python -m api.datasets.conversion`, as `isolation` starts it."""

import hashlib
import json
import resource
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from api.datasets.validator import DatasetSummary, validate_rows
from greencore.dataset import Row, row_to_object
from greencore.dataset.containers import ColumnMapping, Container, FileFormat, ReadLimits, UnusableFile, open_rows
from greencore.disk import DISK_FULL_ERRNOS
from runtime.private_files import open_private

WRITE_BYTES = 2**20


@dataclass(frozen=True)
class ConvertedFile:
    """The result of a conversion: the format of the source, what its rows are, and the SHA-256 of the JSON Lines."""

    format: FileFormat
    summary: DatasetSummary
    sha256: str


def convert_in_process(
    source: Path, target: Path, limits: ReadLimits, columns: ColumnMapping, *, hint: Container | None = None
) -> ConvertedFile:
    """Write the rows of a file in any container to `target`, in this process, which a hostile file may exhaust.

    Each row is written to the line of its number. Raises as `isolation.convert_file`.
    """
    try:
        with (
            open_rows(source, limits=limits, columns=columns, hint=hint, folder=target.parent) as rows,
            open(target, "xb", opener=open_private) as file,
        ):
            writer = _RowWriter(file, limits)
            summary = validate_rows(rows, limits, writer.write)
            return ConvertedFile(rows.format, summary, writer.digest.hexdigest())
    except (MemoryError, OverflowError) as error:
        raise UnusableFile("cannot be read within the memory allowed") from error


class _RowWriter:
    """Writes rows as JSON Lines, each to the line of its number."""

    def __init__(self, file: BinaryIO, limits: ReadLimits) -> None:
        self.digest = hashlib.sha256()
        self._file, self._limits = file, limits
        self._next_line, self._bytes = 1, 0

    def write(self, number: int, row: Row) -> None:
        """Raises `InvalidRow` for a row above the size of a row, and `UnusableFile` above that of the file."""
        line = json.dumps(row_to_object(row), ensure_ascii=False, separators=(",", ":")).encode()
        if len(line) > self._limits.row_bytes:
            raise self._limits.long_row(number)
        blank_lines = number - self._next_line
        self._bytes += blank_lines + len(line) + 1
        self._limits.check_bytes(self._bytes)
        for start in range(0, blank_lines, WRITE_BYTES):
            self._append(b"\n" * min(blank_lines - start, WRITE_BYTES))
        self._append(line + b"\n")
        self._next_line = number + 1

    def _append(self, content: bytes) -> None:
        self.digest.update(content)
        self._file.write(content)


def main() -> None:
    """Read the request from standard input as JSON, convert the file, and print the result as JSON."""
    request = json.load(sys.stdin)
    if sys.platform == "linux":  # macOS has this limit but refuses to set it
        resource.setrlimit(resource.RLIMIT_AS, (request["memory_bytes"], request["memory_bytes"]))
    resource.setrlimit(resource.RLIMIT_CPU, (request["cpu_seconds"], request["cpu_seconds"]))
    try:
        converted = convert_in_process(
            Path(request["source"]),
            Path(request["target"]),
            ReadLimits(**request["limits"]),
            ColumnMapping(request["columns"]),
            hint=None if request["hint"] is None else Container(request["hint"]),
        )
        answer: dict[str, Any] = asdict(converted) | {"format": list(asdict(converted.format).values())}
    except UnusableFile as refused:
        answer = {"refused": str(refused)}
    except OSError as error:
        if error.errno not in DISK_FULL_ERRNOS:
            raise  # short of memory, the libraries cannot even be loaded: the caller sees a failed subprocess
        answer = {"errno": error.errno}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
