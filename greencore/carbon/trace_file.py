"""Reads a trace file, a CSV of carbon intensities at regular times."""

import csv
import math
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from greencore.carbon.errors import InvalidTrace
from greencore.carbon.http.cleaning import interval_ends
from greencore.carbon.series import EmissionFactors, Reading
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


def read_trace(file: Path, zone: str, *, unlabelled: str = "trace") -> tuple[Reading, ...]:
    """Read a trace file, at least two rows in ascending order, as readings of `zone`.

    A reading ends where the next begins, or after its neighbours' spacing at a gap; the spacing may change within the
    file: see `greencore.carbon.http.cleaning.interval_ends`. Its source is "trace (LABEL)", else `unlabelled`; its
    emission factors are direct only where the column's name says so.

    Columns: `datetime` (ISO 8601; a time without an offset is in UTC) and `gco2e_per_kwh` (finite, at least 0), or
    those of an Electricity Maps export. Lines that start with `#` are comments; `# label: TEXT` names the trace.
    Raises InvalidTrace with the faulty line.
    """
    fault = partial(InvalidTrace, file)
    source, records = unlabelled, list[tuple[int, list[str]]]()
    for line, text in enumerate(_read_lines(file), start=1):
        if text.startswith("#"):
            comment = text[1:].strip()
            if comment.lower().startswith(LABEL):
                label = comment[len(LABEL) :].strip()
                source = f"trace ({label})" if label else unlabelled
        elif text.strip():
            records.append((line, [cell.strip() for cell in next(csv.reader([text]))]))
    if not records:
        raise fault(None, "the file is empty: expected a header with datetime and gco2e_per_kwh")

    (first_line, header), *rows = records
    names = [name.lower() for name in header]

    def find_column(known: tuple[str, ...]) -> int:
        place = next((names.index(name) for name in known if name in names), None)
        if place is None:
            raise fault(first_line, f"the header is {', '.join(header)}: expected a column {known[0]!r}")
        return place

    time_column, intensity_column = find_column(TIME_COLUMNS), find_column(INTENSITY_COLUMNS)
    estimated_column = names.index(ESTIMATED_COLUMN) if ESTIMATED_COLUMN in names else None
    factors: EmissionFactors = "direct" if "(direct)" in names[intensity_column] else "lifecycle"
    values: dict[datetime, tuple[float, bool]] = {}
    for line, cells in rows:
        if len(cells) != len(header):
            raise fault(line, f"{len(cells)} columns: expected {len(header)}, as in the header")
        try:
            time = parse_utc(cells[time_column])
        except ValueError:
            raise fault(
                line, f"{cells[time_column]!r} is not a time: expected ISO 8601, such as 2026-11-23T10:00:00Z"
            ) from None
        try:
            intensity = float(cells[intensity_column])
        except ValueError:
            intensity = math.nan
        if not math.isfinite(intensity) or intensity < 0:
            raise fault(line, f"{cells[intensity_column]!r} is not an intensity: expected gCO2e/kWh that is at least 0")
        last = next(reversed(values), None)
        if last is not None and time <= last:
            raise fault(line, f"{time.isoformat()} does not come after {last.isoformat()}, the row before")
        values[time] = intensity, estimated_column is not None and cells[estimated_column].lower() == "true"
    if len(values) < 2:
        raise fault(None, f"{len(values)} row(s): expected at least two, to determine their spacing")
    ends = interval_ends(values, usual=timedelta.max, longest=timedelta.max)
    return tuple(
        Reading(
            zone=zone,
            start=start,
            end=ends[start],
            gco2e_per_kwh=intensity,
            source=source,
            emission_factors=factors,
            estimated=estimated,
            fetched_at=ends[start],
        )
        for start, (intensity, estimated) in values.items()
    )


def _read_lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise InvalidTrace(file, None, "there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidTrace(file, None, f"the file cannot be read as UTF-8 text ({error})") from error
