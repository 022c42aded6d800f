"""Intensity history of a simulation: stored readings of a zone, or uploaded ones."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from pydantic import TypeAdapter, ValidationError
from sqlalchemy.orm import Session

from api.dependencies import AppContext
from api.http.problems import MAX_FAULTS, invalid_field, join_names, validation_problem
from api.policies.simulation_request import MAX_READINGS, SimulationRequest, UploadedReading
from greencore.carbon import IntensitySeries, Reading, Signal
from greencore.clock import HOUR
from store.intensity.readings import GridRepository

A_YEAR = timedelta(days=365)
# Our own forecast looks back three years.
LONGEST_SPAN = timedelta(days=3 * 365 + 1)
MIN_COVERED_SHARE = 0.5
VALIDATION_CHUNK = 1000
UPLOADED = "uploaded"

_UPLOADED: TypeAdapter[list[UploadedReading]] = TypeAdapter(list[UploadedReading])


def load_history(
    request: SimulationRequest, context: AppContext, session: Session, *, window_hours: float, now: datetime
) -> IntensitySeries:
    """Load the readings that a request names. Raises the 422 that names the invalid field.

    `window_hours` is the length of readings that one run needs from its start on.
    """
    if request.series is not None:
        _refuse_zone_fields(request)
        series, field = build_uploaded_series(request.series, now=now), "series"
    elif request.zone is not None:
        series, field = _load_stored_series(request, request.zone, context, session, window_hours, now), "zone"
    else:
        raise invalid_field("zone", "missing: expected a zone whose readings are stored, or readings in series")
    start, end = series_span(series)
    if end - start > LONGEST_SPAN:
        raise invalid_field(field, f"the readings span {(end - start).days} days: expected at most {LONGEST_SPAN.days}")
    covered = series.mean(start, end).covered_share
    if covered < MIN_COVERED_SHARE:
        raise invalid_field(
            field,
            f"the readings cover {covered:.0%} of the time from {start.isoformat()} to {end.isoformat()}: "
            f"expected at least {MIN_COVERED_SHARE:.0%}",
        )
    return series


def series_span(series: IntensitySeries) -> tuple[datetime, datetime]:
    """Return the first reading's start and the last one's end, of a series that is not empty."""
    return series.readings[0].start, series.readings[-1].end


def build_uploaded_series(given: Sequence[Any], *, now: datetime) -> IntensitySeries:
    """Build a series from uploaded readings. Raises the 422 that names each invalid reading."""
    readings = _parse_readings(given)
    if not readings:
        raise invalid_field("series", "it is empty: expected readings of the time to be simulated")
    _check_order(readings)
    return IntensitySeries(
        Reading(
            zone=UPLOADED,
            start=reading.start,
            end=end,
            gco2e_per_kwh=reading.gco2e_per_kwh,
            source=UPLOADED,
            signal=reading.signal,
            estimated=reading.estimated,
            fetched_at=now,
        )
        for reading, end in zip(readings, _infer_ends(readings), strict=True)
    )


def _parse_readings(given: Sequence[Any]) -> list[UploadedReading]:
    """Validate readings in chunks, so that other threads can run in between."""
    readings: list[UploadedReading] = []
    faults: list[dict[str, Any]] = []
    count = 0
    for begin in range(0, len(given), VALIDATION_CHUNK):
        try:
            readings += _UPLOADED.validate_python(given[begin : begin + VALIDATION_CHUNK])
        except ValidationError as error:
            count += error.error_count()
            if len(faults) < MAX_FAULTS:
                for fault in error.errors(include_url=False):
                    index, *within = fault["loc"]
                    faults.append({**fault, "loc": ("body", "series", begin + int(index), *within)})
    if faults:
        raise validation_problem(faults, count=count)
    return readings


def _check_order(readings: Sequence[UploadedReading]) -> None:
    for index, (earlier, later) in enumerate(pairwise(readings), start=1):
        if later.signal != readings[0].signal:
            mixed = f"given {later.signal}, after {readings[0].signal}: the two are never mixed in one series"
            raise invalid_field(f"series[{index}].signal", mixed)
        if later.start <= earlier.start:
            fault = (
                f"given {later.start.isoformat()}: expected a time after {earlier.start.isoformat()}, the one before"
            )
            raise invalid_field(f"series[{index}].start", fault)
        if earlier.end is not None and later.start < earlier.end:
            fault = (
                f"given {later.start.isoformat()}, before the reading before it ends ({earlier.end.isoformat()}): "
                "expected no overlap"
            )
            raise invalid_field(f"series[{index}].start", fault)
    for index, reading in enumerate(readings):
        if reading.end is not None and reading.end <= reading.start:
            fault = f"given {reading.end.isoformat()}: expected a time after {reading.start.isoformat()}, its start"
            raise invalid_field(f"series[{index}].end", fault)


def _infer_ends(readings: Sequence[UploadedReading]) -> list[datetime]:
    """Return the end of each reading; one without an end does not extend over a gap."""
    spacings = Counter(later.start - earlier.start for earlier, later in pairwise(readings))
    if not spacings:
        only = readings[0]
        if only.end is None:
            fault = "missing: expected the end of a single reading, which no other follows"
            raise invalid_field("series[0].end", fault)
        return [only.end]
    usual = min(spacings, key=lambda spacing: (-spacings[spacing], spacing))
    longest = max(usual, HOUR)
    followers = [reading.start for reading in readings[1:]]
    ends = [
        reading.end or min(follower, reading.start + longest)
        for reading, follower in zip(readings, followers, strict=False)
    ]
    return [*ends, readings[-1].end or readings[-1].start + usual]


def _refuse_zone_fields(request: SimulationRequest) -> None:
    for field in ("zone", "signal", "from_", "to"):
        if getattr(request, field) is not None:
            fault = "given with series: expected a zone's stored readings or uploaded ones, not both"
            raise invalid_field(field.removesuffix("_"), fault)


def _load_stored_series(
    request: SimulationRequest, zone: str, context: AppContext, session: Session, window_hours: float, now: datetime
) -> IntensitySeries:
    grid = GridRepository(session)
    basis = grid.newest_basis(zone, request.signal)
    first = None if basis is None else grid.earliest_reading(zone, basis)
    if basis is None or first is None:
        raise invalid_field("zone", _nothing_stored(zone, request.signal, context))
    end = request.to or now
    if request.to is None and request.start is not None:
        # One hour more, from which a forecast is made as the window ends.
        end = min(end, request.start + timedelta(hours=window_hours) + HOUR)
    start = request.from_ or end - A_YEAR
    if start >= end:
        raise invalid_field("from", f"given {start.isoformat()}: expected a time before {end.isoformat()}, the end")
    count = grid.count_readings(zone, basis, start, end)
    if count > MAX_READINGS:
        raise invalid_field("from", f"there are {count:,} readings from there on: expected at most {MAX_READINGS:,}")
    if count == 0:
        newest = grid.newest_reading(zone, basis, at=now)
        reach = "" if newest is None else f": those of {zone} reach from {_day(first.start)} to {_day(newest.end)}"
        raise invalid_field("zone", f"no reading is stored from {_day(start)} to {_day(end)}{reach}")
    return grid.readings_between(zone, basis, start, end)


def _nothing_stored(zone: str, signal: Signal | None, context: AppContext) -> str:
    known = context.settings.zones
    if zone not in known:
        return f"there is no zone {zone!r}: known are {join_names(known)}"
    kind = "" if signal is None else f" {signal}"
    return f"no{kind} reading of {zone} is stored yet: upload readings in series instead"


def _day(time: datetime) -> str:
    return time.isoformat(timespec="minutes")
