"""Base class of the providers: what each one declares, and the requests that a source makes of it."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar, Protocol, Self

from greencore.carbon.http.answers import ResponseValue
from greencore.carbon.http.cleaning import DataPoint
from greencore.carbon.http.client import HttpStatusError
from greencore.carbon.series import EmissionFactors, Signal
from greencore.carbon.specification import Credentials

REFUSALS_OF_A_ZONE = (400, 404, 422)


class RequestJson(Protocol):
    """Sends one request to the provider; raises as `JsonClient.get`."""

    def __call__(
        self, path: str, parameters: dict[str, str] | None = None, headers: dict[str, str] | None = None
    ) -> ResponseValue | None:
        """Return the JSON of `path`, or None for an empty response."""


@dataclass(kw_only=True)
class Provider(ABC):
    """One provider's protocol: builds its requests and parses its responses; `url` has no slash at its end.

    `name` and `options` are those of a specification; `period` is the usual length of a reading and the interval of
    updates, `horizons_hours` are the lengths of a forecast that may be requested, shortest first, `longest_window` the
    longest history that one request may span; `place_options` are the options that name the provider's zone. `latest`,
    `forecast` and `history` return points in the order of the response, and raise InvalidResponse or UnknownZone; all
    times are in UTC.
    """

    name: ClassVar[str]
    default_url: ClassVar[str | None]
    options: ClassVar[tuple[str, ...]]
    place_options: ClassVar[tuple[str, ...]]
    period: ClassVar[timedelta]
    horizons_hours: ClassVar[Sequence[float]]
    longest_window: ClassVar[timedelta]

    url: str
    zone: str
    signal: Signal = "average"
    emission_factors: EmissionFactors = "lifecycle"

    @classmethod
    @abstractmethod
    def open(cls, url: str, zone: str, options: Mapping[str, str], credentials: Credentials) -> Self:
        """Open the provider with its options; raises InvalidSpec naming an option or a missing key."""

    def secrets(self) -> Iterable[str]:
        """Return the keys in use."""
        return ()

    def forecast_horizon_hours(self, hours: float) -> float:
        """Return the shortest horizon that suffices for `hours`, else the longest."""
        return next((known for known in self.horizons_hours if known >= hours), self.horizons_hours[-1])

    @abstractmethod
    def latest(self, request_json: RequestJson, now: datetime) -> list[DataPoint]:
        """Request the points around `now`."""

    @abstractmethod
    def forecast(self, request_json: RequestJson, now: datetime, hours: float) -> list[DataPoint]:
        """Request the points from `now` on, for a horizon of `forecast_horizon_hours`."""

    @abstractmethod
    def history(self, request_json: RequestJson, start: datetime, end: datetime, now: datetime) -> list[DataPoint]:
        """Request the points of `[start, end)`, at most `longest_window`."""

    def is_unknown_zone(self, refusal: HttpStatusError) -> bool:
        """Return whether the provider refused because it does not know the zone: its text mentions the place."""
        detail = refusal.detail.lower()
        return refusal.status in REFUSALS_OF_A_ZONE and any(option in detail for option in self.place_options)
