"""Reading of the stored rows of datasets, each file by the rules of the version that stored it."""

import re
from collections.abc import Iterator
from pathlib import Path

from greencore.dataset import Row, enumerate_rows, load_rows

# Files are named by their blob. Earlier versions, which read fewer keys of a row, named it by a SHA-256, the first
# ones by the dataset's id; so a blob of these rules has a suffix.
RULES_SUFFIX = "-2"
EARLIER_NAME = re.compile(r"[0-9a-f]{64}|dataset_[0-9a-f]{32}")


def name_blob(sha256: str) -> str:
    """Return the name of rows that are stored by this version."""
    return f"{sha256}{RULES_SUFFIX}"


def load_stored_rows(file: Path) -> list[Row]:
    """Read all rows of a dataset's file. Raises `InvalidRow`, and `ValueError` for a file without a row."""
    return load_rows(file, earlier=_is_earlier(file))


def enumerate_stored_rows(file: Path) -> Iterator[tuple[int, Row]]:
    """Yield (line number from 1, row) of a dataset's file. Raises `InvalidRow`."""
    with file.open("rb") as lines:
        yield from enumerate_rows(lines, earlier=_is_earlier(file))


def _is_earlier(file: Path) -> bool:
    return EARLIER_NAME.fullmatch(file.stem) is not None
