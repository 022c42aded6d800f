"""Converts an upload to JSON Lines in a subprocess with bounded memory and time.

A compressed file, or one of Parquet, can declare any size and expand to a thousand times its length: it may exhaust the
subprocess, but not the API.
"""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import structlog

from api.datasets.conversion import ConvertedFile
from api.datasets.validator import DatasetSummary, RowFault
from greencore.dataset.containers import ColumnMapping, Container, FileFormat, ReadLimits, UnusableFile
from greencore.dataset.containers.detection import Compression

log = structlog.get_logger()

MEMORY_BYTES = 2 * 2**30  # of address space, of which the libraries take 0.3 GiB
CPU_SECONDS = 600
LOGGED_CHARACTERS = 2000  # the end of the subprocess's error output
# In the error output of Python and of its libraries where memory ran out.
OUT_OF_MEMORY = ("MemoryError", "alloc", "failed to map segment", "out of memory", "can't start new thread")


def convert_file(
    source: Path,
    target: Path,
    limits: ReadLimits,
    columns: ColumnMapping,
    *,
    hint: Container | None = None,
    memory_bytes: int = MEMORY_BYTES,
) -> ConvertedFile:
    """Write the rows of a file in any container to `target` as JSON Lines, in a subprocess.

    A row has the number of its line in `target` as in the source, which may have blank lines between the
    rows. Raises `UnusableFile` for a file that cannot be read within bounds, holds no row, or too many rows, `OSError`
    for a full disk, and `RuntimeError` for a fault of the subprocess.
    """
    request = {
        "source": str(source.resolve()),
        "target": str(target.resolve()),
        "limits": asdict(limits),
        "columns": columns.sources,
        "hint": hint,
        "memory_bytes": memory_bytes,
        "cpu_seconds": CPU_SECONDS,
    }
    bounds = {"ARROW_DEFAULT_MEMORY_POOL": "system", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    # Without the service's settings and keys.
    environment = {name: os.environ[name] for name in ("PATH", "LANG", "PYTHONPATH") if name in os.environ} | bounds
    try:
        done = subprocess.run(
            [sys.executable, "-m", "api.datasets.conversion"],
            input=json.dumps(request).encode(),
            cwd=Path(__file__).parents[2],
            env=environment,
            capture_output=True,
            timeout=2 * CPU_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        log.warning("conversion.timed_out", error=str(error))
        raise _out_of_bounds(memory_bytes) from error
    try:
        answer = json.loads(done.stdout)
    except ValueError as error:
        stderr = done.stderr.decode(errors="replace")
        log.warning("conversion.process_died", returncode=done.returncode, stderr=stderr[-LOGGED_CHARACTERS:])
        if done.returncode < 0 or any(sign in stderr for sign in OUT_OF_MEMORY):
            raise _out_of_bounds(memory_bytes) from error
        raise RuntimeError(f"the conversion ended with {done.returncode}: its log line has its error output") from error
    if "errno" in answer:
        raise OSError(answer["errno"], os.strerror(answer["errno"]))
    if "refused" in answer:
        raise UnusableFile(answer["refused"])
    container, compression = answer["format"]
    summary = answer["summary"]
    faults = [RowFault(**fault) for fault in summary.pop("faults")]
    return ConvertedFile(
        FileFormat(Container(container), None if compression is None else Compression(compression)),
        DatasetSummary(**summary, faults=faults),
        answer["sha256"],
    )


def _out_of_bounds(memory_bytes: int) -> UnusableFile:
    return UnusableFile(f"cannot be read within {memory_bytes >> 20} MiB of memory and {CPU_SECONDS} s")
