"""Great Britain's Carbon Intensity API: half-hourly, national or of one region, direct emissions, without a key.

Protocol: https://carbon-intensity.github.io/api-definitions/ (data under CC BY 4.0). Past national readings are
measured; all others, and all regional ones, are the operator's forecast.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self
from urllib.parse import quote

from greencore.carbon.errors import InvalidSpec, UnknownZone
from greencore.carbon.http.answers import ResponseValue
from greencore.carbon.http.cleaning import DataPoint
from greencore.carbon.providers.provider import Provider, RequestJson
from greencore.carbon.series import EmissionFactors
from greencore.carbon.specification import Credentials

HALF_HOUR = timedelta(minutes=30)
REGIONS = {str(region) for region in range(1, 18)}
NATIONS = {"england": "15", "scotland": "16", "wales": "17"}


@dataclass(kw_only=True)
class UkProvider(Provider):
    """The national mean, one of the 17 regions (by id), or the region of an outward postcode."""

    name = "uk"
    default_url = "https://api.carbonintensity.org.uk"
    options = ("region", "postcode", "url")
    place_options = ("region", "postcode")
    period = HALF_HOUR
    horizons_hours = (48,)
    # One day below the limit, since the window is widened to whole half hours.
    longest_window = timedelta(days=13)

    emission_factors: EmissionFactors = "direct"
    region: str | None = None
    postcode: str | None = None

    @classmethod
    def open(cls, url: str, zone: str, options: Mapping[str, str], credentials: Credentials) -> Self:
        """Open with the options `region` (1 to 17, england, scotland, wales) or `postcode` (outward).

        Without a region or a postcode it is the national mean, for any zone. Raises InvalidSpec naming the option.
        """
        region, postcode = options.get("region"), options.get("postcode")
        if region is not None and postcode is not None:
            raise InvalidSpec("the options 'region' and 'postcode' of uk are both given: expected one of them")
        if region is not None:
            region = NATIONS.get(region.lower(), region)
            if region not in REGIONS:
                raise InvalidSpec(f"the option 'region' of uk is unknown: expected 1 to 17, {', '.join(NATIONS)}")
        return cls(url=url, zone=zone, region=region, postcode=postcode)

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
        raise UnknownZone(self.zone, f"uk answered {len(regions)} regions, none of them region {self.region}")

    def _check_region(self, region: ResponseValue) -> None:
        answered = region.optional_field("regionid")
        if self.region is not None and answered is not None and str(answered.value) != self.region:
            raise UnknownZone(self.zone, f"uk was asked for region {self.region}, but answered {answered.value!r}")


def _point(record: ResponseValue) -> DataPoint:
    intensity = record.field("intensity")
    actual = intensity.optional_field("actual")
    value = actual or intensity.field("forecast")
    return DataPoint(record.field("from").time(), record.field("to").time(), value.number(), estimated=actual is None)


def _half_hour(time: datetime) -> str:
    whole = time.replace(minute=time.minute // 30 * 30, second=0, microsecond=0)
    return whole.strftime("%Y-%m-%dT%H:%MZ")
