"""Energy-Charts (Fraunhofer ISE): quarter-hourly or hourly, life-cycle emissions, without a key.

Protocol: https://api.energy-charts.info. Values that are not measured yet are forecasts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Self

from greencore.carbon.errors import InvalidResponse
from greencore.carbon.http.answers import ResponseValue
from greencore.carbon.http.cleaning import DataPoint
from greencore.carbon.http.client import HttpStatusError
from greencore.carbon.providers.provider import Provider, RequestJson
from greencore.carbon.specification import Credentials
from greencore.clock import HOUR

# Without a forecast, the newest measurement may be hours old.
BEFORE_LATEST = timedelta(hours=6)


@dataclass(kw_only=True)
class EnergyChartsProvider(Provider):
    """One country, by its two-letter code in lower case."""

    name = "energy-charts"
    default_url = "https://api.energy-charts.info"
    options = ("country", "url")
    place_options = ("country",)
    period = timedelta(minutes=15)
    # Its forecast ends with the current day or the next.
    horizons_hours = range(1, 73)
    longest_window = timedelta(days=31)

    country: str

    @classmethod
    def open(cls, url: str, zone: str, options: Mapping[str, str], credentials: Credentials) -> Self:
        """Open with the option `country` (default: the zone)."""
        return cls(url=url, zone=zone, country=options.get("country", zone).lower())

    def latest(self, request_json: RequestJson, now: datetime) -> list[DataPoint]:
        """Request the last 6 hours and the next one."""
        return self._points(request_json, now - BEFORE_LATEST, now + HOUR)

    def forecast(self, request_json: RequestJson, now: datetime, hours: float) -> list[DataPoint]:
        """Request the hours ahead and the hour before, in which the current interval began."""
        return self._points(request_json, now - HOUR, now + timedelta(hours=hours))

    def history(self, request_json: RequestJson, start: datetime, end: datetime, now: datetime) -> list[DataPoint]:
        """Request the window and the hour before it, in which its first interval may have begun."""
        return self._points(request_json, start - HOUR, end)

    def _points(self, request_json: RequestJson, start: datetime, end: datetime) -> list[DataPoint]:
        window = {"start": _iso(start), "end": _iso(end)}
        try:
            answer = request_json("/co2eq", {"country": self.country, **window}, None)
        except HttpStatusError as refusal:
            # A 404 also means no data for these times.
            if refusal.status != HTTPStatus.NOT_FOUND or self.is_unknown_zone(refusal):
                raise
            return []
        return [] if answer is None else _parse_points(answer)


def _parse_points(answer: ResponseValue) -> list[DataPoint]:
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
