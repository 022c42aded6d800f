"""Reads a trace file, a CSV of carbon intensities at regular times."""

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from greencore.carbon.errors import InvalidTrace
from greencore.carbon.http.cleaning import interval_ends
from greencore.carbon.series import EmissionFactors
from greencore.clock import parse_utc

# GreenTune's columns, then those of Electricity Maps' exports. Of an export's two intensities the life-cycle one is
# taken: it includes building the plants and supplying the fuel.
TIME_COLUMNS = ("datetime", "datetime (utc)")
INTENSITY_COLUMNS = (
    "gco2e_per_kwh",
    "carbon intensity gco₂eq/kwh (lca)",
    "carbon intensity gco₂eq/kwh (life cycle)",
    "carbon intensity gco₂eq/kwh (direct)",
)
ESTIMATED_COLUMN = "data estimated"
LABEL = "label:"


@dataclass(frozen=True, slots=True)
class TraceRow:
    """One interval of a trace, `[start, end)` in UTC, and its intensity in gCO2e/kWh."""

    start: datetime
    end: datetime
    gco2e_per_kwh: float
    estimated: bool


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace: at least two rows in ascending order, the label of its comments, and its emission factors.

    They are "direct" only where the column's name says so.
    """

    rows: tuple[TraceRow, ...]
    label: str | None
    emission_factors: EmissionFactors = "lifecycle"


def read_trace(file: Path) -> Trace:
    """Read a trace file; each row ends where the next begins, or after its neighbours' spacing at a gap.

    The spacing may change within the file: see `greencore.carbon.http.cleaning.interval_ends`.

    Columns: `datetime` (ISO 8601; a time without an offset is in UTC) and `gco2e_per_kwh` (finite, at least 0), or
    those of an Electricity Maps export. Lines that start with `#` are comments; `# label: TEXT` names the trace.
    Raises InvalidTrace with the faulty line.
    """
    label: str | None = None
    columns: _Columns | None = None
    points: list[tuple[datetime, float, bool]] = []
    for line, text in _lines(file):
        if text.startswith("#"):
            comment = text[1:].strip()
            if comment.lower().startswith(LABEL):
                label = comment[len(LABEL) :].strip() or None
            continue
        if not text.strip():
            continue
        cells = [cell.strip() for cell in next(csv.reader([text]))]
        if columns is None:
            columns = _Columns(file, line, cells)
            continue
        point = columns.point(line, cells)
        if points and point[0] <= points[-1][0]:
            raise InvalidTrace(
                file,
                line,
                f"{point[0].isoformat()} does not come after {points[-1][0].isoformat()}, the row before",
            )
        points.append(point)
    if columns is None:
        raise InvalidTrace(file, None, "the file is empty: expected a header with datetime and gco2e_per_kwh")
    if len(points) < 2:
        raise InvalidTrace(file, None, f"{len(points)} row(s): expected at least two, to determine their spacing")
    return Trace(_rows(points), label, columns.emission_factors)


class _Columns:
    """Positions of the columns in a trace's header."""

    def __init__(self, file: Path, line: int, header: list[str]) -> None:
        self._file = file
        self._names = header
        places = {name.lower(): place for place, name in reversed(list(enumerate(header)))}
        self._time = self._first(line, places, TIME_COLUMNS)
        self._intensity = self._first(line, places, INTENSITY_COLUMNS)
        self._estimated = places.get(ESTIMATED_COLUMN)
        direct = "(direct)" in header[self._intensity].lower()
        self.emission_factors: EmissionFactors = "direct" if direct else "lifecycle"

    def _first(self, line: int, places: dict[str, int], names: tuple[str, ...]) -> int:
        for name in names:
            if name in places:
                return places[name]
        raise InvalidTrace(self._file, line, f"the header is {', '.join(self._names)}: expected a column {names[0]!r}")

    def point(self, line: int, cells: list[str]) -> tuple[datetime, float, bool]:
        """Parse the time, intensity and estimated flag of one row; raises InvalidTrace naming the line."""
        if len(cells) != len(self._names):
            raise InvalidTrace(self._file, line, f"{len(cells)} columns: expected {len(self._names)}, as in the header")
        time_text, intensity_text = cells[self._time], cells[self._intensity]
        try:
            time = parse_utc(time_text)
        except ValueError:
            raise InvalidTrace(
                self._file, line, f"{time_text!r} is not a time: expected ISO 8601, such as 2026-11-23T10:00:00Z"
            ) from None
        try:
            intensity = float(intensity_text)
        except ValueError:
            intensity = math.nan
        if not math.isfinite(intensity) or intensity < 0:
            raise InvalidTrace(
                self._file, line, f"{intensity_text!r} is not an intensity: expected gCO2e/kWh that is at least 0"
            )
        return time, intensity, self._estimated is not None and cells[self._estimated].lower() == "true"


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InvalidTrace(file, None, "there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidTrace(file, None, f"the file cannot be read as UTF-8 text ({error})") from error
    return enumerate(text.splitlines(), start=1)


def _rows(points: list[tuple[datetime, float, bool]]) -> tuple[TraceRow, ...]:
    ends = interval_ends((start for start, _, _ in points), usual=timedelta.max, longest=timedelta.max)
    return tuple(TraceRow(start, ends[start], intensity, estimated) for start, intensity, estimated in points)
