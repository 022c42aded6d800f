"""The Carbon Aware SDK's WebApi, run by the operator: intensities of its data source in g/kWh.

Protocol: https://carbon-aware-sdk.greensoftware.foundation. It does not state whether its values are average or
marginal: the specification does.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Self

from greencore.carbon.http.answers import ResponseValue
from greencore.carbon.http.cleaning import LONGEST_INTERVAL, DataPoint
from greencore.carbon.http.client import HttpStatusError
from greencore.carbon.providers.provider import Provider, RequestJson
from greencore.carbon.series import EMISSION_FACTORS, SIGNALS, EmissionFactors
from greencore.carbon.specification import Credentials, read_choice
from greencore.clock import HOUR

# The data source may lag by hours.
BEFORE_LATEST = timedelta(hours=24)
# Some installations serve the forecast without the prefix.
FORECAST_PATH, OTHER_FORECAST_PATH = "/emissions/forecasts/current", "/forecasts/current"
TIME_SPAN = re.compile(r"(-?)(?:(\d{1,3})\.)?(\d{1,2}):(\d{1,2}):(\d{1,2}(?:\.\d{1,9})?)")


@dataclass(kw_only=True)
class CarbonAwareSdkProvider(Provider):
    """One location, by the SDK's name of it."""

    name = "carbon-aware-sdk"
    default_url = None
    options = ("url", "location", "signal", "emission_factors")
    place_options = ("location",)
    period = timedelta(minutes=15)
    # The longest alone: the SDK refuses bounds outside its forecast.
    horizons_hours = (96,)
    longest_window = timedelta(days=10)

    location: str

    @classmethod
    def open(cls, url: str, zone: str, options: Mapping[str, str], credentials: Credentials) -> Self:
        """Open with the options `location` (default: the zone), `signal` (default: average) and `emission_factors`
        (default: lifecycle for an average, direct for a marginal signal).
        """
        signal = read_choice(cls.name, options, "signal", SIGNALS, "average")
        usual: EmissionFactors = "direct" if signal == "marginal" else "lifecycle"
        return cls(
            url=url,
            zone=zone,
            location=options.get("location", zone),
            signal=signal,
            emission_factors=read_choice(cls.name, options, "emission_factors", EMISSION_FACTORS, usual),
        )

    def latest(self, request_json: RequestJson, now: datetime) -> list[DataPoint]:
        """Request the last 24 hours."""
        return self._emissions(request_json, now - BEFORE_LATEST, now)

    def forecast(self, request_json: RequestJson, now: datetime, hours: float) -> list[DataPoint]:
        """Request the current forecast; all points are estimated."""
        parameters = {"location": self.location}
        try:
            answer = request_json(FORECAST_PATH, parameters, None)
        except HttpStatusError as refusal:
            if refusal.status != HTTPStatus.NOT_FOUND or self.is_unknown_zone(refusal):
                raise
            answer = request_json(OTHER_FORECAST_PATH, parameters, None)
        if answer is None:
            return []
        records = (record for forecast in answer.items() for record in forecast.field("forecastData").items())
        return [_point(record, time="timestamp", value="value", estimated=True) for record in records]

    def history(self, request_json: RequestJson, start: datetime, end: datetime, now: datetime) -> list[DataPoint]:
        """Request the window and the hour before it, in which its first interval may have begun."""
        return self._emissions(request_json, start - HOUR, end)

    def _emissions(self, request_json: RequestJson, start: datetime, end: datetime) -> list[DataPoint]:
        window = {"time": start.isoformat(timespec="seconds"), "toTime": end.isoformat(timespec="seconds")}
        answer = request_json("/emissions/bylocation", {"location": self.location, **window}, None)
        if answer is None:
            return []
        return [_point(record, time="time", value="rating", estimated=False) for record in answer.items()]


def _point(record: ResponseValue, *, time: str, value: str, estimated: bool) -> DataPoint:
    """Parse a record; a value of 0, which the SDK also writes for a missing value, is None."""
    start, length = record.field(time).time(), _length(record.optional_field("duration"))
    end = None if length is None else start + length
    return DataPoint(start, end, record.field(value).number() or None, estimated)


def _length(duration: ResponseValue | None) -> timedelta | None:
    """Parse a duration: minutes, or .NET's `[-][days.]hours:minutes:seconds[.fraction]`.

    None where it is absent, not above 0, or above 24 hours, which no data source of the SDK has. Raises InvalidResponse
    where it has neither form.
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
