"""Collects the faults, forms and lengths of an upload's rows: of JSON Lines here, of Parquet in `parquet`."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from greencore.dataset import (
    BYTE_ORDER_MARK,
    InvalidRow,
    MessagesRow,
    PromptRow,
    Row,
    find_form,
    find_ignored_keys,
    parse_object,
    row_from_object,
)
from greencore.length_statistics import LengthCounter

CHUNK_BYTES = 2**20
MAX_FAULTS = 100
MAX_IGNORED = 20
LONGEST_NAME = 100


class DatasetRejected(Exception):
    """The file as a whole cannot be used."""


@dataclass(frozen=True)
class DatasetLimits:
    """Size limits of a dataset. `row_bytes` applies to one line, `bytes` to all of them, as stored."""

    rows: int
    row_bytes: int
    bytes: int


@dataclass(frozen=True)
class RowFault:
    """A row that cannot be used; `field` is such as `line 3: prompt` or `row 17`."""

    field: str
    message: str


@dataclass(frozen=True)
class DatasetSummary:
    """Result of reading a whole upload. `faults` are the first of `fault_count`; `contents` is for display."""

    rows: int
    faults: list[RowFault]
    fault_count: int
    contents: dict[str, Any]


class DatasetValidator:
    """Collects faults and statistics row by row; `place` is the format's term for a row, "line" or "row"."""

    def __init__(self, place: str, limits: DatasetLimits) -> None:
        self._place, self._limits = place, limits
        self._rows, self._fault_count = 0, 0
        self._faults: list[RowFault] = []
        self._forms: Counter[str] = Counter()
        self._ignored: set[str] = set()
        self._characters = LengthCounter()

    def begin_row(self) -> None:
        """Count one more row. Raises `DatasetRejected` above the limit."""
        self._rows += 1
        if self._rows > self._limits.rows:
            raise DatasetRejected(f"holds more than {self._limits.rows} rows, the most that this service takes")

    def accept_row(self, row: Row, value: Mapping[str, object]) -> None:
        """Record a valid row; `value` is the object that it was read from."""
        form = find_form(value)
        assert form is not None
        self._forms[form] += 1
        self._characters.add(sum(len(text) for text in row_texts(row)))
        if len(self._ignored) < MAX_IGNORED:
            self._ignored.update(ascii(name[:LONGEST_NAME])[1:-1] for name in find_ignored_keys(value))

    def reject_row(self, error: InvalidRow) -> None:
        """Record an invalid row."""
        where = f"{self._place} {error.line}"
        self._fault(f"{where}: {error.field}" if error.field else where, error.message)

    def reject_long_row(self, number: int) -> None:
        """Record a row above the size limit."""
        most = self._limits.row_bytes
        self._fault(f"{self._place} {number}", f"is longer than {most} bytes, the most that a row may have")

    def summary(self) -> DatasetSummary:
        """Return the result. Raises `DatasetRejected` without any row."""
        if self._rows == 0:
            raise DatasetRejected("holds no row: expected JSON Lines or Parquet with at least one training row")
        contents: dict[str, Any] = {}
        if not self._faults:
            characters = self._characters.distribution()
            contents = {
                "forms": dict(self._forms),
                "ignored_fields": sorted(self._ignored)[:MAX_IGNORED],
                "characters": {name: getattr(characters, name) for name in ("total", "mean", "median", "max")},
            }
        return DatasetSummary(self._rows, self._faults, self._fault_count, contents)

    def _fault(self, where: str, message: str) -> None:
        self._fault_count += 1
        if len(self._faults) < MAX_FAULTS:
            self._faults.append(RowFault(where, message))


def row_form(row: Row) -> str:
    """Return the row's form, by the field that names it."""
    return "prompt" if isinstance(row, PromptRow) else "messages" if isinstance(row, MessagesRow) else "text"


def row_texts(row: Row) -> list[str]:
    """Return all texts of a row, in order."""
    if isinstance(row, MessagesRow):
        calls = (message.tool_calls or "" for message in row.messages)
        return [row.tools or "", *(message.content for message in row.messages), *calls]
    return [row.prompt, row.completion] if isinstance(row, PromptRow) else [row.text]


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
