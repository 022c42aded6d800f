"""Great Britain's Carbon Intensity API: half-hourly, national or of one region, direct emissions, without a key.

Protocol: https://carbon-intensity.github.io/api-definitions/ (data under CC BY 4.0). Past national readings are
measured; all others, and all regional ones, are the operator's forecast.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import quote

from greencore.carbon.errors import InvalidSpec, UnknownZone
from greencore.carbon.http.answers import ResponseValue
from greencore.carbon.http.cleaning import DataPoint
from greencore.carbon.http.client import HttpStatusError
from greencore.carbon.http.live_source import RequestJson
from greencore.carbon.options import Credentials, read_base_url, read_options
from greencore.carbon.series import EmissionFactors, Signal

NAME = "uk"
URL = "https://api.carbonintensity.org.uk"
OPTIONS = ("region", "postcode", "url")
HALF_HOUR = timedelta(minutes=30)
HORIZON_HOURS = 48.0
REGIONS = range(1, 18)
NATIONS = {"england": "15", "scotland": "16", "wales": "17"}


@dataclass(frozen=True, slots=True)
class UkProvider:
    """The national mean, one of the 17 regions (by id), or the region of an outward postcode."""

    url: str
    zone: str
    region: str | None = None
    postcode: str | None = None

    name: str = NAME
    signal: Signal = "average"
    emission_factors: EmissionFactors = "direct"
    period: timedelta = HALF_HOUR
    # One day below the limit, since the window is widened to whole half hours.
    longest_window: timedelta = timedelta(days=13)

    def secrets(self) -> Iterable[str]:
        """No keys."""
        return ()

    def forecast_horizon_hours(self, hours: float) -> float:
        """Always 48 hours, the only horizon."""
        return HORIZON_HOURS

    def latest(self, request_json: RequestJson, now: datetime) -> list[DataPoint]:
        """Request the current half hour."""
        place = self._place()
        return self._points(request_json(f"/regional/{place}" if place else "/intensity"))

    def forecast(self, request_json: RequestJson, now: datetime, hours: float) -> list[DataPoint]:
        """Request 48 hours from the current half hour on."""
        return self._points(request_json(self._path(f"{_half_hour(now)}/fw48h")))

    def history(self, request_json: RequestJson, start: datetime, end: datetime, now: datetime) -> list[DataPoint]:
        """Request the half hours from the one that contains `start` to the one that contains `end`."""
        return self._points(request_json(self._path(f"{_half_hour(start)}/{_half_hour(end + HALF_HOUR)}")))

    def is_unknown_zone(self, refusal: HttpStatusError) -> bool:
        """Return whether a 400 or 404 mentions the region or the postcode."""
        detail = refusal.detail.lower()
        return refusal.status in (400, 404) and ("region" in detail or "postcode" in detail)

    def _place(self) -> str | None:
        if self.region is not None:
            return f"regionid/{self.region}"
        return f"postcode/{quote(self.postcode, safe='')}" if self.postcode is not None else None

    def _path(self, times: str) -> str:
        place = self._place()
        return f"/regional/intensity/{times}/{place}" if place else f"/intensity/{times}"

    def _points(self, answer: ResponseValue | None) -> list[DataPoint]:
        if answer is None:
            return []
        return [_point(record) for record in self._records(answer.field("data"))]

    def _records(self, data: ResponseValue) -> Iterator[ResponseValue]:
        """Yield the records of a response in any of its four shapes.

        A national response is a list of records; a regional one is a list of times with every region each, an object
        with the one region's records, or a list that contains that object.
        """
        if data.has_field("data"):
            self._check_region(data)
            yield from data.field("data").items()
            return
        for entry in data.items():
            if entry.has_field("regions"):
                yield from self._select_region(entry)
            elif entry.has_field("data"):
                self._check_region(entry)
                yield from entry.field("data").items()
            else:
                yield entry

    def _select_region(self, entry: ResponseValue) -> Iterator[ResponseValue]:
        regions = list(entry.field("regions").items())
        for region in regions:
            if len(regions) == 1 or str(region.field("regionid").value) == self.region:
                self._check_region(region)
                times = {name: entry.field(name).value for name in ("from", "to")}
                yield ResponseValue({**times, "intensity": region.field("intensity").value}, region.path)
                return
        raise UnknownZone(self.zone, f"{NAME} answered {len(regions)} regions, none of them region {self.region}")

    def _check_region(self, region: ResponseValue) -> None:
        answered = region.optional_field("regionid")
        if self.region is not None and answered is not None and str(answered.value) != self.region:
            raise UnknownZone(self.zone, f"{NAME} was asked for region {self.region}, but answered {answered.value!r}")


def open_uk(query: str, zone: str, credentials: Credentials) -> UkProvider:
    """Open the provider with the options `region` (1 to 17, england, scotland, wales), `postcode` (outward) and `url`.

    Without a region or a postcode it is the national mean, for any zone. Raises InvalidSpec naming the option.
    """
    options = read_options(NAME, query, OPTIONS)
    region, postcode = options.get("region"), options.get("postcode")
    if region is not None and postcode is not None:
        raise InvalidSpec(f"the options 'region' and 'postcode' of {NAME} are both given: expected one of them")
    if region is not None:
        region = NATIONS.get(region.lower(), region)
        if region not in {str(known) for known in REGIONS}:
            raise InvalidSpec(f"the option 'region' of {NAME} is unknown: expected 1 to 17, {', '.join(NATIONS)}")
    return UkProvider(read_base_url(NAME, options, URL), zone, region, postcode)


def _point(record: ResponseValue) -> DataPoint:
    intensity = record.field("intensity")
    actual = intensity.optional_field("actual")
    value = actual or intensity.field("forecast")
    return DataPoint(record.field("from").time(), record.field("to").time(), value.number(), estimated=actual is None)


def _half_hour(time: datetime) -> str:
    whole = time.replace(minute=time.minute // 30 * 30, second=0, microsecond=0)
    return whole.strftime("%Y-%m-%dT%H:%MZ")
