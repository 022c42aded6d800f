"""Takes in an uploaded file: every row is checked on its way to the disk, and no row is kept in memory."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from api.problems import FieldProblem, invalid, invalid_fields
from greencore.dataset import InvalidRow, parse_row

MOST_ERRORS = 100


@dataclass(frozen=True)
class Checked:
    """What an upload amounts to."""

    rows: int
    bytes: int
    sha256: str


@contextmanager
def receive(source: BinaryIO, target: Path, *, max_rows: int) -> Iterator[Checked]:
    """Copy a file of JSON Lines to `target`, checking each row; where the block then fails, take it away again.

    Raises the 422 that lists the first `MOST_ERRORS` faulty rows, or says that there is none or too many.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_suffix(".part")
    try:
        checked = _copy(source, temporary, max_rows)
        temporary.rename(target)
        _sync_folder(target.parent)
        yield checked
    except BaseException:
        temporary.unlink(missing_ok=True)
        target.unlink(missing_ok=True)
        raise


def _copy(source: BinaryIO, temporary: Path, max_rows: int) -> Checked:
    rows, size, digest = 0, 0, hashlib.sha256()
    errors: list[FieldProblem] = []
    with temporary.open("xb") as copy:
        for number, line in enumerate(source, start=1):
            size += len(line)
            digest.update(line)
            copy.write(line)
            if not line.strip():
                continue
            rows += 1
            if rows > max_rows:
                raise invalid("file", f"holds more than {max_rows} rows, the most that this service takes")
            fault = _fault(line, number)
            if fault is not None:
                errors.append(fault)
                if len(errors) == MOST_ERRORS:
                    break
        copy.flush()
        os.fsync(copy.fileno())
    if errors:
        raise invalid_fields(errors)
    if rows == 0:
        raise invalid("file", "holds no row: expected JSON Lines, one training row on each line")
    return Checked(rows, size, digest.hexdigest())


def _fault(line: bytes, number: int) -> FieldProblem | None:
    try:
        parse_row(line, number)
    except InvalidRow as error:
        return FieldProblem(
            field=f"line {error.line}" + (f": {error.field}" if error.field else ""), message=error.message
        )
    except (ValueError, RecursionError) as error:
        # What the JSON reader refuses without calling it bad syntax: endless nesting, numbers of 5000 digits.
        return FieldProblem(field=f"line {number}", message=f"cannot be read as JSON: {error}")
    return None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
