"""Electricity Maps, versions 3 and 4: hourly, of the whole life cycle or of operation alone, with a token.

Protocol: https://app.electricitymaps.com/developer-hub/api/reference. It has been seen to answer 401 to too many
requests.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from greencore.carbon.errors import InvalidResponse, UnknownZone
from greencore.carbon.http.answers import ResponseValue
from greencore.carbon.http.cleaning import DataPoint
from greencore.carbon.http.client import HttpStatusError
from greencore.carbon.http.credentials import Credentials
from greencore.carbon.http.live_source import ACCESS_STATUSES, RequestJson
from greencore.carbon.options import read_base_url, read_choice, read_options
from greencore.carbon.series import EMISSION_FACTORS, EmissionFactors, Signal

NAME = "electricity-maps"
URL = "https://api.electricitymaps.com"
OPTIONS = ("zone", "version", "emission_factors", "url")
VERSIONS = ("v3", "v4")
HORIZONS_HOURS = (6.0, 24.0, 48.0, 72.0)
# `history` is in every plan, `past-range` is not.
RECENT = timedelta(hours=24)
NOT_FOUND = 404
NO_DATA = re.compile(r"\bno\b.*\bdata\b", re.IGNORECASE)
GRANULARITIES = {
    "5_minutes": timedelta(minutes=5),
    "15_minutes": timedelta(minutes=15),
    "hourly": timedelta(hours=1),
}


@dataclass(frozen=True, slots=True)
class ElectricityMapsProvider:
    """One zone, by Electricity Maps' own name for it."""

    url: str
    zone: str
    asked_zone: str
    token: str = field(repr=False)
    version: str = "v3"
    emission_factors: EmissionFactors = "lifecycle"

    name: str = NAME
    signal: Signal = "average"
    period: timedelta = timedelta(hours=1)
    # One day less than is allowed: the hour before the window is asked for too.
    longest_window: timedelta = timedelta(days=9)

    def secrets(self) -> Iterable[str]:
        """The token."""
        return (self.token,)

    def forecast_horizon_hours(self, hours: float) -> float:
        """The shortest of 6, 24, 48 and 72 hours that will do; 72 where none does."""
        return next((known for known in HORIZONS_HOURS if known >= hours), HORIZONS_HOURS[-1])

    def latest(self, request_json: RequestJson, now: datetime) -> list[DataPoint]:
        """The current hour."""
        answer = self._request(request_json, "latest")
        return [] if answer is None else [self._point(answer, answer)]

    def forecast(self, request_json: RequestJson, now: datetime, hours: float) -> list[DataPoint]:
        """The hours ahead, all estimated."""
        return list(
            self._listed(
                self._request(request_json, "forecast", horizonHours=f"{hours:.0f}"), "forecast", estimated=True
            )
        )

    def history(self, request_json: RequestJson, start: datetime, end: datetime, now: datetime) -> list[DataPoint]:
        """The hours of the window; from the last 24 hours' history where that holds all of it.

        Where the plan refuses `past-range`, those of the window's hours that lie within the last 24.
        """
        if start >= now - RECENT + self.period:
            return self._recent(request_json)
        # The hour that holds `start` began before it.
        window = {"start": _iso(start - self.period), "end": _iso(end), "temporalGranularity": "hourly"}
        try:
            return list(self._listed(self._request(request_json, "past-range", **window), "data"))
        except HttpStatusError as refusal:
            if refusal.status not in ACCESS_STATUSES or end <= now - RECENT + self.period:
                raise
            return self._recent(request_json)

    def _recent(self, request_json: RequestJson) -> list[DataPoint]:
        return list(self._listed(self._request(request_json, "history"), "history"))

    def is_unknown_zone(self, refusal: HttpStatusError) -> bool:
        """A 400 or 404 that speaks of the zone."""
        return refusal.status in (400, 404) and "zone" in refusal.detail.lower()

    def _request(self, request_json: RequestJson, question: str, **parameters: str) -> ResponseValue | None:
        """The answer, once its zone is the one that was asked for; None where it says that there is no data."""
        # An unknown zone would otherwise silently become the one that the caller's address lies in.
        parameters |= {"zone": self.asked_zone, "disableCallerLookup": "true"}
        if self.emission_factors != "lifecycle":
            parameters["emissionFactorType"] = self.emission_factors
        path = f"/{self.version}/carbon-intensity/{question}"
        try:
            answer = request_json(path, parameters, {"auth-token": self.token})
        except HttpStatusError as refusal:
            if refusal.status == NOT_FOUND and NO_DATA.search(refusal.detail):
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

    def _listed(self, answer: ResponseValue | None, name: str, *, estimated: bool | None = None) -> Iterator[DataPoint]:
        if answer is not None:
            for record in answer.field(name).items():
                yield self._point(record, answer, estimated=estimated)

    def _point(self, record: ResponseValue, whole: ResponseValue, *, estimated: bool | None = None) -> DataPoint:
        for told in (record.optional_field("emissionFactorType"), whole.optional_field("emissionFactorType")):
            if told is not None and told.text() != self.emission_factors:
                raise InvalidResponse(
                    f"{told.path} is {told.text()!r}: expected {self.emission_factors!r}, as asked for"
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
            # What is not said to be measured is taken as an estimate.
            estimated = flag is None or flag.boolean()
        end = None if length is None else start + length
        return DataPoint(start, end, record.field("carbonIntensity").number(), estimated)


def open_electricity_maps(query: str, zone: str, credentials: Credentials) -> ElectricityMapsProvider:
    """Reads the options `zone`, `version` (v3 or v4), `emission_factors` (lifecycle or direct) and `url`.

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
