"""Converts Parquet to JSON Lines in a subprocess with bounded memory: `python -m api.datasets.parquet`.

A Parquet file can declare any size and expand to a thousand times its length: it may exhaust the subprocess, but not
the API.
"""

import hashlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import structlog

from api.datasets.validator import DatasetLimits, DatasetRejected, DatasetSummary, DatasetValidator, RowFault
from greencore.dataset import READ_KEYS, ROW_FORMS, InvalidRow, find_form, row_from_object, row_to_object
from greencore.disk import DISK_FULL_ERRNOS
from runtime.private_files import open_private

log = structlog.get_logger()

MAGIC, MAGIC_ENCRYPTED = b"PAR1", b"PARE"
BATCH_ROWS = 128
MEMORY_BYTES = 2 * 2**30  # of address space, of which the libraries take 0.3 GiB
CPU_SECONDS = 600
UNREADABLE = "is not a Parquet file that can be read"


def is_parquet(file: Path) -> bool:
    """Return whether a file is Parquet by its content, whatever its name."""
    with file.open("rb") as content:
        return content.read(len(MAGIC)) in (MAGIC, MAGIC_ENCRYPTED)


def convert_parquet(
    source: Path, target: Path, limits: DatasetLimits, *, memory_bytes: int = MEMORY_BYTES
) -> tuple[DatasetSummary, str]:
    """Write the rows of a Parquet file to `target` as JSON Lines, in a subprocess; return a summary and the SHA-256.

    Raises `DatasetRejected` for a file that cannot be read within bounds, holds no row, or too many
    rows, and `OSError` for a full disk.
    """
    _check_magic_bytes(source)
    command = [sys.executable, "-m", "api.datasets.parquet"]
    command += [str(source.resolve()), str(target.resolve()), json.dumps(asdict(limits)), str(memory_bytes)]
    bounds = {"ARROW_DEFAULT_MEMORY_POOL": "system", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    # Without the service's settings and keys.
    environment = {name: os.environ[name] for name in ("PATH", "LANG", "PYTHONPATH") if name in os.environ} | bounds
    root = Path(__file__).parents[2]
    try:
        done = subprocess.run(
            command, cwd=root, env=environment, capture_output=True, timeout=2 * CPU_SECONDS, check=False
        )
        answer = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError) as error:
        log.warning("parquet.reader_died", error=str(error))
        raise DatasetRejected(f"{UNREADABLE} within {memory_bytes >> 20} MiB of memory and {CPU_SECONDS} s") from error
    if "errno" in answer:
        raise OSError(answer["errno"], os.strerror(answer["errno"]))
    if "refused" in answer:
        raise DatasetRejected(answer["refused"])
    summary = answer["summary"]
    faults = [RowFault(**fault) for fault in summary.pop("faults")]
    return DatasetSummary(**summary, faults=faults), answer["sha256"]


def convert_in_process(source: Path, target: Path, limits: DatasetLimits) -> tuple[DatasetSummary, str]:
    """Convert like `convert_parquet`, but in this process, which a hostile file may exhaust."""
    import pyarrow

    try:
        return _write(source, target, limits)
    except (MemoryError, OverflowError) as error:
        raise DatasetRejected(f"{UNREADABLE} within the memory allowed") from error
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, OSError) and error.errno in DISK_FULL_ERRNOS:
            raise
        raise DatasetRejected(f"{UNREADABLE}: {ascii(str(error))[1:200]}") from error


def _write(source: Path, target: Path, limits: DatasetLimits) -> tuple[DatasetSummary, str]:
    validator, digest, size = DatasetValidator("row", limits), hashlib.sha256(), 0
    with open(target, "xb", opener=open_private) as file:
        for number, value in enumerate(_values(source, limits), start=1):
            validator.begin_row()
            try:
                if isinstance(value, UnicodeDecodeError):
                    raise InvalidRow(number, None, "not UTF-8")
                row = row_from_object(value, number)
            except InvalidRow as error:
                validator.reject_row(error)
                continue
            validator.accept_row(row, value)
            line = json.dumps(row_to_object(row), ensure_ascii=False, separators=(",", ":")).encode()
            if len(line) > limits.row_bytes:
                validator.reject_long_row(number)
                continue
            size += len(line) + 1
            if size > limits.bytes:
                raise DatasetRejected(f"expands to more than {limits.bytes} bytes, the most that this service takes")
            digest.update(line + b"\n")
            file.write(line + b"\n")
    return validator.summary(), digest.hexdigest()


def _values(source: Path, limits: DatasetLimits) -> Iterator[Mapping[str, Any] | UnicodeDecodeError]:
    """Yield each row as the object of its JSON line, or the error that prevents it."""
    import pyarrow.parquet

    # Pages are read one by one: neither a row group nor a column is in memory as a whole.
    with pyarrow.parquet.ParquetFile(source, pre_buffer=False, buffer_size=2**20) as file:
        if file.metadata.num_rows > limits.rows:
            raise DatasetRejected(f"holds more than {limits.rows} rows, the most that this service takes")
        names = file.schema_arrow.names
        wanted = [name for name in names if name in READ_KEYS]
        if find_form(dict.fromkeys(names)) is None:
            raise DatasetRejected(f"has no column of {ROW_FORMS}: its columns are {ascii(names)[:200]}")
        others = dict.fromkeys(name for name in names if name not in READ_KEYS)
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=wanted, use_threads=False):
            for row in _decoded(batch):
                if isinstance(row, UnicodeDecodeError):
                    yield row
                else:
                    # A null is an absent field: one file may contain rows of several forms.
                    yield others | {name: value for name, value in row.items() if value is not None}


def _decoded(batch: Any) -> list[Any]:
    try:
        return list(batch.to_pylist())
    except UnicodeDecodeError as error:
        if batch.num_rows == 1:
            return [error]
        return [row for index in range(batch.num_rows) for row in _decoded(batch.slice(index, 1))]


def _check_magic_bytes(source: Path) -> None:
    """Raise `DatasetRejected` for faults that show without reading the whole file."""
    with source.open("rb") as file:
        start, size = file.read(4), file.seek(0, os.SEEK_END)
        if size < 12:
            raise DatasetRejected(f"{UNREADABLE}: it ends after {size} bytes")
        file.seek(-8, os.SEEK_END)
        footer, end = int.from_bytes(file.read(4), "little"), file.read(4)
    if MAGIC_ENCRYPTED in (start, end):
        raise DatasetRejected("is encrypted: expected Parquet that can be read without a key")
    if end != MAGIC or footer > size - 12:
        raise DatasetRejected(f"{UNREADABLE}: its end is missing or garbled")


def main(arguments: list[str]) -> None:
    """Convert a file, and print the result as JSON."""
    source, target, limits = Path(arguments[0]), Path(arguments[1]), DatasetLimits(**json.loads(arguments[2]))
    memory_bytes = int(arguments[3])
    if sys.platform == "linux":  # macOS has this limit but refuses to set it
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    try:
        summary, digest = convert_in_process(source, target, limits)
        answer: dict[str, Any] = {"summary": asdict(summary), "sha256": digest}
    except DatasetRejected as refused:
        answer = {"refused": str(refused)}
    except OSError as error:
        if error.errno not in DISK_FULL_ERRNOS:
            raise  # short of memory, the libraries cannot even be loaded: the caller sees a failed subprocess
        answer = {"errno": error.errno}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1:])
