"""Energy-Charts (Fraunhofer ISE): quarter-hourly or hourly, over the life cycle, without a key.

Protocol: https://api.energy-charts.info. What is not measured yet is given as a forecast.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from greencore.carbon.errors import InvalidResponse
from greencore.carbon.http.answers import ResponseValue
from greencore.carbon.http.cleaning import DataPoint
from greencore.carbon.http.client import HttpStatusError
from greencore.carbon.http.credentials import Credentials
from greencore.carbon.http.live_source import RequestJson
from greencore.carbon.options import read_base_url, read_options
from greencore.carbon.series import EmissionFactors, Signal

NAME = "energy-charts"
URL = "https://api.energy-charts.info"
OPTIONS = ("country", "url")
LONGEST_HORIZON_HOURS = 72.0
HOUR = timedelta(hours=1)
# Where nothing is forecast, the newest measurement may be hours old.
BEFORE_LATEST = timedelta(hours=6)
NOT_FOUND = 404


@dataclass(frozen=True, slots=True)
class EnergyChartsProvider:
    """One country, by its code of two letters, in lower case."""

    url: str
    zone: str
    country: str

    name: str = NAME
    signal: Signal = "average"
    emission_factors: EmissionFactors = "lifecycle"
    period: timedelta = timedelta(minutes=15)
    longest_window: timedelta = timedelta(days=31)

    def secrets(self) -> Iterable[str]:
        """None."""
        return ()

    def forecast_horizon_hours(self, hours: float) -> float:
        """At most 72 hours; it forecasts to the end of the day, or of the next."""
        return min(hours, LONGEST_HORIZON_HOURS)

    def latest(self, request_json: RequestJson, now: datetime) -> list[DataPoint]:
        """The last hours, and the next."""
        return self._points(request_json, now - BEFORE_LATEST, now + HOUR)

    def forecast(self, request_json: RequestJson, now: datetime, hours: float) -> list[DataPoint]:
        """The hours ahead, from the start of the current one."""
        return self._points(request_json, now - HOUR, now + timedelta(hours=hours))

    def history(self, request_json: RequestJson, start: datetime, end: datetime, now: datetime) -> list[DataPoint]:
        """The window, and the hour before it, in which its first interval may have begun."""
        return self._points(request_json, start - HOUR, end)

    def is_unknown_zone(self, refusal: HttpStatusError) -> bool:
        """A 400, 404 or 422 that speaks of the country."""
        return refusal.status in (400, NOT_FOUND, 422) and "country" in refusal.detail.lower()

    def _points(self, request_json: RequestJson, start: datetime, end: datetime) -> list[DataPoint]:
        window = {"start": _iso(start), "end": _iso(end)}
        try:
            answer = request_json("/co2eq", {"country": self.country, **window}, None)
        except HttpStatusError as refusal:
            # It says so where it has nothing for these times.
            if refusal.status != NOT_FOUND or self.is_unknown_zone(refusal):
                raise
            return []
        return [] if answer is None else _read(answer)


def open_energy_charts(query: str, zone: str, credentials: Credentials) -> EnergyChartsProvider:
    """Reads the options `country` (else the zone, in lower case) and `url`; raises InvalidSpec naming the option."""
    options = read_options(NAME, query, OPTIONS)
    return EnergyChartsProvider(read_base_url(NAME, options, URL), zone, options.get("country", zone).lower())


def _read(answer: ResponseValue) -> list[DataPoint]:
    times = list(answer.field("unix_seconds").items())
    measured, forecast = (_column(answer, name, len(times)) for name in ("co2eq", "co2eq_forecast"))
    points: list[DataPoint] = []
    for time, actual, expected in zip(times, measured, forecast, strict=True):
        value = expected if actual is None else actual
        points.append(DataPoint(time.unix_time(), None, value, estimated=actual is None))
    return points


def _column(answer: ResponseValue, name: str, length: int) -> list[float | None]:
    given = answer.optional_field(name)
    if given is None:
        return [None] * length
    values = [value.number() for value in given.items()]
    if len(values) != length:
        raise InvalidResponse(f"{given.path} has {len(values)} values: expected {length}, as many as unix_seconds")
    return values


def _iso(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M+00:00")
