"""Electricity Maps, versions 3 and 4: hourly, life-cycle or direct emissions, with a token.

Protocol: https://app.electricitymaps.com/developer-hub/api/reference. It may answer 401 to too many requests.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http import HTTPStatus

from greencore.carbon.errors import InvalidResponse, UnknownZone
from greencore.carbon.http.answers import ResponseValue
from greencore.carbon.http.cleaning import DataPoint
from greencore.carbon.http.client import HttpStatusError
from greencore.carbon.http.live_source import ACCESS_STATUSES, RequestJson
from greencore.carbon.options import Credentials, read_base_url, read_choice, read_options
from greencore.carbon.series import EMISSION_FACTORS, EmissionFactors, Signal
from greencore.clock import HOUR

NAME = "electricity-maps"
URL = "https://api.electricitymaps.com"
OPTIONS = ("zone", "version", "emission_factors", "url")
VERSIONS = ("v3", "v4")
HORIZONS_HOURS = (6.0, 24.0, 48.0, 72.0)
# Reach of `history`, which is in every plan; `past-range` is not.
RECENT = timedelta(hours=24)
NO_DATA = re.compile(r"\bno\b.*\bdata\b", re.IGNORECASE)
GRANULARITIES = {
    "5_minutes": timedelta(minutes=5),
    "15_minutes": timedelta(minutes=15),
    "hourly": HOUR,
}


@dataclass(frozen=True, slots=True)
class ElectricityMapsProvider:
    """One zone, by Electricity Maps' name of it, `asked_zone`."""

    url: str
    zone: str
    asked_zone: str
    token: str = field(repr=False)
    version: str = "v3"
    emission_factors: EmissionFactors = "lifecycle"

    name: str = NAME
    signal: Signal = "average"
    period: timedelta = HOUR
    # One day below the limit, since the hour before the window is requested too.
    longest_window: timedelta = timedelta(days=9)

    def secrets(self) -> Iterable[str]:
        """The token."""
        return (self.token,)

    def forecast_horizon_hours(self, hours: float) -> float:
        """The shortest sufficient of 6, 24, 48 and 72 hours; 72 where none is."""
        return next((known for known in HORIZONS_HOURS if known >= hours), HORIZONS_HOURS[-1])

    def latest(self, request_json: RequestJson, now: datetime) -> list[DataPoint]:
        """Request the current hour."""
        answer = self._request(request_json, "latest")
        return [] if answer is None else [self._point(answer, answer)]

    def forecast(self, request_json: RequestJson, now: datetime, hours: float) -> list[DataPoint]:
        """Request the hours ahead; all points are estimated."""
        answer = self._request(request_json, "forecast", horizonHours=f"{hours:.0f}")
        return self._points(answer, "forecast", estimated=True)

    def history(self, request_json: RequestJson, start: datetime, end: datetime, now: datetime) -> list[DataPoint]:
        """Request the hours of the window, from `history` where the last 24 hours contain all of them.

        Where the plan refuses `past-range`, returns only those of the last 24 hours.
        """
        if start >= now - RECENT + self.period:
            return self._recent(request_json)
        # The hour that contains `start` began before it.
        window = {"start": _iso(start - self.period), "end": _iso(end), "temporalGranularity": "hourly"}
        try:
            return self._points(self._request(request_json, "past-range", **window), "data")
        except HttpStatusError as refusal:
            if refusal.status not in ACCESS_STATUSES or end <= now - RECENT + self.period:
                raise
            return self._recent(request_json)

    def _recent(self, request_json: RequestJson) -> list[DataPoint]:
        return self._points(self._request(request_json, "history"), "history")

    def is_unknown_zone(self, refusal: HttpStatusError) -> bool:
        """Return whether a 400 or 404 mentions the zone."""
        return refusal.status in (400, 404) and "zone" in refusal.detail.lower()

    def _request(self, request_json: RequestJson, question: str, **parameters: str) -> ResponseValue | None:
        """Return the response, whose zone must be the requested one; None where it reports no data."""
        # Otherwise an unknown zone would silently become that of the caller's address.
        parameters |= {"zone": self.asked_zone, "disableCallerLookup": "true"}
        if self.emission_factors != "lifecycle":
            parameters["emissionFactorType"] = self.emission_factors
        path = f"/{self.version}/carbon-intensity/{question}"
        try:
            answer = request_json(path, parameters, {"auth-token": self.token})
        except HttpStatusError as refusal:
            if refusal.status == HTTPStatus.NOT_FOUND and NO_DATA.search(refusal.detail):
                return None
            raise
        if answer is None:
            return None
        status = answer.optional_field("status")
        if status is not None and status.value == "no-data":
            return None
        zone = answer.field("zone").text()
        if zone != self.asked_zone:
            raise UnknownZone(self.zone, f"{NAME} was asked for {self.asked_zone!r}, but answered {zone!r}")
        return answer

    def _points(self, answer: ResponseValue | None, name: str, *, estimated: bool | None = None) -> list[DataPoint]:
        if answer is None:
            return []
        return [self._point(record, answer, estimated=estimated) for record in answer.field(name).items()]

    def _point(self, record: ResponseValue, whole: ResponseValue, *, estimated: bool | None = None) -> DataPoint:
        for factors in (record.optional_field("emissionFactorType"), whole.optional_field("emissionFactorType")):
            if factors is not None and factors.text() != self.emission_factors:
                raise InvalidResponse(
                    f"{factors.path} is {factors.text()!r}: expected {self.emission_factors!r}, as requested"
                )
        start = record.field("datetime").time()
        granularity = whole.optional_field("temporalGranularity")
        length = None if granularity is None else GRANULARITIES.get(granularity.text())
        if granularity is not None and length is None:
            raise InvalidResponse(
                f"{granularity.path} is {granularity.text()!r}: expected {' or '.join(GRANULARITIES)}"
            )
        if estimated is None:
            flag = record.optional_field("isEstimated")
            # A value without the flag counts as an estimate.
            estimated = flag is None or flag.boolean()
        end = None if length is None else start + length
        return DataPoint(start, end, record.field("carbonIntensity").number(), estimated)


def open_electricity_maps(query: str, zone: str, credentials: Credentials) -> ElectricityMapsProvider:
    """Open the provider with the options `zone`, `version` (v3, v4), `emission_factors` (lifecycle, direct) and `url`.

    Raises InvalidSpec naming the option, or the key `electricity_maps_token` where it is missing.
    """
    options = read_options(NAME, query, OPTIONS)
    return ElectricityMapsProvider(
        url=read_base_url(NAME, options, URL),
        zone=zone,
        asked_zone=options.get("zone", zone),
        token=credentials.require("electricity_maps_token", NAME),
        version=read_choice(NAME, options, "version", VERSIONS, "v3"),
        emission_factors=read_choice(NAME, options, "emission_factors", EMISSION_FACTORS, "lifecycle"),
    )


def _iso(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
