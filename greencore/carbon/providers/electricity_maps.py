"""Electricity Maps, versions 3 and 4: hourly, life-cycle or direct emissions, with a token.

Protocol: https://app.electricitymaps.com/developer-hub/api/reference. It may answer 401 to too many requests.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Self

from greencore.carbon.errors import InvalidResponse, UnknownZone
from greencore.carbon.http.answers import ResponseValue
from greencore.carbon.http.cleaning import DataPoint
from greencore.carbon.http.client import ACCESS_STATUSES, HttpStatusError
from greencore.carbon.providers.provider import Provider, RequestJson
from greencore.carbon.series import EMISSION_FACTORS
from greencore.carbon.specification import Credentials, read_choice
from greencore.clock import HOUR

VERSIONS = ("v3", "v4")
# Reach of `history`, which is in every plan; `past-range` is not.
RECENT = timedelta(hours=24)
NO_DATA = re.compile(r"\bno\b.*\bdata\b", re.IGNORECASE)
GRANULARITIES = {
    "5_minutes": timedelta(minutes=5),
    "15_minutes": timedelta(minutes=15),
    "hourly": HOUR,
}


@dataclass(kw_only=True)
class ElectricityMapsProvider(Provider):
    """One zone, by Electricity Maps' name of it, `asked_zone`."""

    name = "electricity-maps"
    default_url = "https://api.electricitymaps.com"
    options = ("zone", "version", "emission_factors", "url")
    place_options = ("zone",)
    period = HOUR
    horizons_hours = (6, 24, 48, 72)
    # One day below the limit, since the hour before the window is requested too.
    longest_window = timedelta(days=9)

    asked_zone: str
    token: str = field(repr=False)
    version: str

    @classmethod
    def open(cls, url: str, zone: str, options: Mapping[str, str], credentials: Credentials) -> Self:
        """Open with the options `zone`, `version` and `emission_factors`, and the key `electricity_maps_token`."""
        return cls(
            url=url,
            zone=zone,
            asked_zone=options.get("zone", zone),
            token=credentials.require("electricity_maps_token", cls.name),
            version=read_choice(cls.name, options, "version", VERSIONS, "v3"),
            emission_factors=read_choice(cls.name, options, "emission_factors", EMISSION_FACTORS, "lifecycle"),
        )

    def secrets(self) -> Iterable[str]:
        """The token."""
        return (self.token,)

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
            raise UnknownZone(self.zone, f"{self.name} was asked for {self.asked_zone!r}, but answered {zone!r}")
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


def _iso(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
