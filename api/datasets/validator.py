"""Collects the faults, forms and lengths of an upload's rows."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from greencore.dataset import InvalidRow, MessagesRow, PromptRow, Row, find_form, find_ignored_keys
from greencore.dataset.containers import OpenRows, ReadLimits, UnusableFile
from greencore.length_statistics import LengthCounter

MAX_FAULTS = 100
MAX_IGNORED = 20
LONGEST_NAME = 100


@dataclass(frozen=True)
class RowFault:
    """A row that cannot be used; `field` is such as `line 3: prompt` or `element 17`."""

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
    """Collects faults and statistics row by row; `place` is the container's term for where a row is."""

    def __init__(self, place: str, limits: ReadLimits) -> None:
        self._place, self._limits = place, limits
        self._rows, self._fault_count = 0, 0
        self._faults: list[RowFault] = []
        self._forms: Counter[str] = Counter()
        self._ignored: set[str] = set()
        self._characters = LengthCounter()

    def begin_row(self) -> None:
        """Count one more row. Raises `UnusableFile` above the limit."""
        self._rows += 1
        self._limits.check_rows(self._rows)

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

    def summary(self) -> DatasetSummary:
        """Return the result. Raises `UnusableFile` without any row."""
        if self._rows == 0:
            raise UnusableFile("holds no row: expected at least one training row")
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


def row_texts(row: Row) -> list[str]:
    """Return all texts of a row, in order."""
    if isinstance(row, MessagesRow):
        calls = (message.tool_calls or "" for message in row.messages)
        return [row.tools or "", *(message.content for message in row.messages), *calls]
    return [row.prompt, row.completion] if isinstance(row, PromptRow) else [row.text]


def validate_rows(
    rows: OpenRows, limits: ReadLimits, store_row: Callable[[int, Row], None] | None = None
) -> DatasetSummary:
    """Read all rows of a file, and give the valid ones to `store_row`, which may raise `InvalidRow`.

    Raises `UnusableFile` for no row, or too many, and what reading the rows raises.
    """
    validator = DatasetValidator(rows.format.container.place, limits)
    for number, row, value in rows.rows:
        validator.begin_row()
        if isinstance(row, InvalidRow):
            validator.reject_row(row)
            continue
        try:
            if store_row is not None:
                store_row(number, row)
        except InvalidRow as error:
            validator.reject_row(error)
        else:
            validator.accept_row(row, value)
    return validator.summary()
