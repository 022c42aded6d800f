"""The `static` source: each country's yearly mean intensity, as CodeCarbon bundles it."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pycountry

from greencore.carbon.errors import CarbonError, UnknownZone
from greencore.carbon.series import EmissionFactors, IntensitySeries, Reading, Signal
from greencore.carbon.source import check_window, forecast_end
from greencore.clock import Clock, utc_now

WORLD = "WORLD"
HOUR = timedelta(hours=1)


class StaticSource:
    """One country's yearly mean, in hourly readings that are all the same and marked as estimated.

    `country` is an ISO 3166-1 code of two or three letters, or "WORLD"; letter case does not matter. Without it, `zone`
    has to be one. `label` is shown as the readings' source. Raises UnknownZone where the bundled data has no such
    country.
    """

    def __init__(self, zone: str, *, country: str | None = None, label: str = "static", clock: Clock = utc_now) -> None:
        self._zone = zone
        self._label = label
        self._clock = clock
        self._gco2e_per_kwh = yearly_mean(country or zone)

    @property
    def zone(self) -> str:
        """The zone as it was asked for."""
        return self._zone

    @property
    def signal(self) -> Signal:
        """The grid's average."""
        return "average"

    @property
    def emission_factors(self) -> EmissionFactors:
        """Those of the life cycle."""
        return "lifecycle"

    def latest(self) -> Reading:
        """The yearly mean as the reading of the current hour."""
        now = self._clock()
        return self._hours(now, now)[0]

    def forecast(self, hours: float) -> IntensitySeries:
        """The same value for each hour ahead; raises ValueError where hours is not above 0."""
        now = self._clock()
        return IntensitySeries(self._hours(now, forecast_end(now, hours)))

    def history(self, start: datetime, end: datetime) -> IntensitySeries:
        """The same value for each hour that touches `[start, end)`.

        Raises ValueError where a time is naive or end lies before start.
        """
        check_window(start, end)
        return IntensitySeries(self._hours(start, end) if start < end else ())

    def _hours(self, start: datetime, end: datetime) -> list[Reading]:
        """The hour that holds `start`, and each one after it that begins before `end`."""
        hour = start.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        fetched_at = self._clock()
        readings: list[Reading] = []
        while not readings or hour < end:
            readings.append(
                Reading(
                    zone=self._zone,
                    start=hour,
                    end=hour + HOUR,
                    gco2e_per_kwh=self._gco2e_per_kwh,
                    source=self._label,
                    estimated=True,
                    fetched_at=fetched_at,
                )
            )
            hour += HOUR
        return readings


@dataclass(frozen=True)
class StaticMean:
    """The yearly mean that stands in where nothing else is known of a zone: whose it is, and what it is called.

    `country` is an ISO 3166-1 code, or "WORLD" where nothing says in which country the zone lies.
    """

    country: str = WORLD
    source: str = "static (world)"

    def reading(self, zone: str, at: datetime) -> Reading:
        """The mean as the zone's reading of the hour that holds `at`."""
        return StaticSource(zone, country=self.country, label=self.source, clock=lambda: at).latest()


def has_yearly_mean(country: str) -> bool:
    """Whether the bundled data has a yearly mean of this country (ISO 3166-1), or it is "WORLD"."""
    try:
        yearly_mean(country)
    except UnknownZone:
        return False
    return True


def highest_yearly_mean() -> float:
    """The highest of all countries' bundled yearly means, in gCO2e/kWh."""
    return max(_country_means().values())


def yearly_mean(zone: str) -> float:
    """The country's bundled yearly mean intensity, in gCO2e/kWh.

    Raises UnknownZone where `zone` is neither "WORLD" nor the ISO 3166-1 code of a country in the data.
    """
    code = zone.upper()
    if code == WORLD:
        return _world_mean()
    if len(code) == 2 and (country := pycountry.countries.get(alpha_2=code)) is not None:
        code = country.alpha_3
    try:
        return _country_means()[code]
    except KeyError:
        raise UnknownZone(
            zone,
            'the static source knows countries by their ISO 3166-1 code, such as "FR" or "FRA", and "WORLD"',
        ) from None


@cache
def _country_means() -> dict[str, float]:
    mixes = json.loads(_bundled("global_energy_mix.json"))
    return {code: float(mix["carbon_intensity"]) for code, mix in mixes.items()}


@cache
def _world_mean() -> float:
    return float(json.loads(_bundled("carbon_intensity_per_source.json"))["world_average"])


def _bundled(name: str) -> str:
    # Importing codecarbon would bring in its trackers; its data files are all that is needed here.
    spec = find_spec("codecarbon")
    if spec is None or not spec.submodule_search_locations:
        raise CarbonError("the static source reads CodeCarbon's bundled data, but codecarbon is not installed")
    path = Path(spec.submodule_search_locations[0]) / "data" / "private_infra" / name
    return path.read_text(encoding="utf-8")
