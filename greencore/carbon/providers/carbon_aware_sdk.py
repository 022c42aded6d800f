"""The Carbon Aware SDK's WebApi, which the operator runs: whatever its own data source gives, in g/kWh.

Protocol: https://carbon-aware-sdk.greensoftware.foundation. It does not say whether its values are average or
marginal: the specification does.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from greencore.carbon.answers import Answer
from greencore.carbon.cleaning import LONGEST_INTERVAL, Point
from greencore.carbon.credentials import Credentials
from greencore.carbon.http import Refused
from greencore.carbon.live import Ask
from greencore.carbon.options import address, choice, read_options
from greencore.carbon.series import EMISSION_FACTORS, SIGNALS, EmissionFactors, Signal

NAME = "carbon-aware-sdk"
OPTIONS = ("url", "location", "signal", "emission_factors")
BEFORE_LATEST = timedelta(hours=24)
LONGEST_HORIZON_HOURS = 96.0
# Some installations serve the forecast without the prefix.
FORECAST, FORECAST_ELSEWHERE = "/emissions/forecasts/current", "/forecasts/current"
NOT_FOUND = 404
TIME_SPAN = re.compile(r"(-?)(?:(\d{1,3})\.)?(\d{1,2}):(\d{1,2}):(\d{1,2}(?:\.\d{1,9})?)")


@dataclass(frozen=True, slots=True)
class CarbonAwareSdkProvider:
    """One location, by the SDK's own name for it."""

    url: str
    zone: str
    location: str
    signal: Signal
    emission_factors: EmissionFactors

    name: str = NAME
    period: timedelta = timedelta(minutes=15)
    longest_window: timedelta = timedelta(days=10)

    def secrets(self) -> Iterable[str]:
        """None."""
        return ()

    def horizon(self, hours: float) -> float:
        """All that it has: it refuses bounds that lie outside its own forecast."""
        return LONGEST_HORIZON_HOURS

    def latest(self, ask: Ask, now: datetime) -> list[Point]:
        """The last 24 hours, as its data source may lag."""
        return self._emissions(ask, now - BEFORE_LATEST, now)

    def forecast(self, ask: Ask, now: datetime, hours: float) -> list[Point]:
        """The current forecast, all estimated."""
        answer = self._current_forecast(ask)
        if answer is None:
            return []
        return [point for forecast in answer.items() for point in _forecast(forecast)]

    def history(self, ask: Ask, start: datetime, end: datetime, now: datetime) -> list[Point]:
        """The window, and the hour before it, in which its first interval may have begun."""
        return self._emissions(ask, start - timedelta(hours=1), end)

    def knows_no_zone(self, refusal: Refused) -> bool:
        """A 400 or 404 that speaks of the location."""
        return refusal.status in (400, 404) and "location" in refusal.detail.lower()

    def _current_forecast(self, ask: Ask) -> Answer | None:
        asked = {"location": self.location}
        try:
            return ask(FORECAST, asked, None)
        except Refused as refusal:
            if refusal.status != NOT_FOUND or self.knows_no_zone(refusal):
                raise
            return ask(FORECAST_ELSEWHERE, asked, None)

    def _emissions(self, ask: Ask, start: datetime, end: datetime) -> list[Point]:
        window = {"time": start.isoformat(timespec="seconds"), "toTime": end.isoformat(timespec="seconds")}
        answer = ask("/emissions/bylocation", {"location": self.location, **window}, None)
        if answer is None:
            return []
        return [_point(record, time="time", value="rating", estimated=False) for record in answer.items()]


def open_carbon_aware_sdk(query: str, zone: str, credentials: Credentials) -> CarbonAwareSdkProvider:
    """Reads the options `url` (needed), `location` (else the zone), `signal` and `emission_factors`.

    `signal` is average unless it is said to be marginal; the emission factors are those of the life cycle for an
    average and direct for a marginal signal, unless they are given. Raises InvalidSpec naming the option.
    """
    options = read_options(NAME, query, OPTIONS)
    signal = choice(NAME, options, "signal", SIGNALS, "average")
    usual: EmissionFactors = "direct" if signal == "marginal" else "lifecycle"
    return CarbonAwareSdkProvider(
        url=address(NAME, options, None),
        zone=zone,
        location=options.get("location", zone),
        signal=signal,
        emission_factors=choice(NAME, options, "emission_factors", EMISSION_FACTORS, usual),
    )


def _forecast(forecast: Answer) -> Iterable[Point]:
    for record in forecast.field("forecastData").items():
        yield _point(record, time="timestamp", value="value", estimated=True)


def _point(record: Answer, *, time: str, value: str, estimated: bool) -> Point:
    """The record as a point; its value is None where it is 0, which the SDK also writes for a missing value."""
    start, length = record.field(time).time(), _length(record.maybe("duration"))
    end = None if length is None else start + length
    return Point(start, end, record.field(value).number() or None, estimated)


def _length(duration: Answer | None) -> timedelta | None:
    """The length that `duration` states: minutes, or .NET's `[-][days.]hours:minutes:seconds[.fraction]`.

    None where it is absent, is not above 0, or exceeds 24 hours, which no interval of the SDK's data sources does.
    Raises BadAnswer where it is neither form.
    """
    if duration is None:
        return None
    if isinstance(duration.value, str) and (parts := TIME_SPAN.fullmatch(duration.value.strip())):
        sign, *numbers = parts.groups()
        days, hours, minutes, seconds = (float(number or 0) for number in numbers)
        length_minutes = (-1 if sign else 1) * (days * 24 * 60 + hours * 60 + minutes + seconds / 60)
    else:
        length_minutes = duration.number() or 0.0
    usable = 0 < length_minutes <= LONGEST_INTERVAL / timedelta(minutes=1)
    return timedelta(minutes=length_minutes) if usable else None
