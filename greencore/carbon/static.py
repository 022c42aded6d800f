"""The `static` source: yearly mean intensities of countries, from CodeCarbon's bundled data."""

import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pycountry

from greencore.carbon.errors import CarbonError, UnknownZone
from greencore.carbon.series import EmissionFactors, IntensitySeries, Reading, Signal, check_window
from greencore.carbon.source import forecast_end
from greencore.clock import HOUR, Clock, utc_now, whole_hour

WORLD = "WORLD"


class StaticSource:
    """Yearly mean of one country, as hourly readings marked as estimated.

    `country` (default: `zone`) is an ISO 3166-1 code of two or three letters, or "WORLD", in any letter case. `label`
    is the readings' source. Raises UnknownZone where the bundled data has no such country.
    """

    signal: Signal = "average"
    emission_factors: EmissionFactors = "lifecycle"

    def __init__(self, zone: str, *, country: str | None = None, label: str = "static", clock: Clock = utc_now) -> None:
        self.zone = zone
        self._label = label
        self._clock = clock
        self._gco2e_per_kwh = yearly_mean(country or zone)

    def latest(self) -> Reading:
        """Return the yearly mean as the reading of the current hour."""
        now = self._clock()
        return self._hours(now, now)[0]

    def forecast(self, hours: float) -> IntensitySeries:
        """Return the yearly mean for each hour ahead; raises ValueError where `hours` is not above 0."""
        now = self._clock()
        return IntensitySeries(self._hours(now, forecast_end(now, hours)))

    def history(self, start: datetime, end: datetime) -> IntensitySeries:
        """Return the yearly mean for each hour that overlaps `[start, end)`.

        Raises ValueError where a time is naive or `end` is before `start`.
        """
        check_window(start, end)
        return IntensitySeries(self._hours(start, end) if start < end else ())

    def _hours(self, start: datetime, end: datetime) -> list[Reading]:
        """Return the hour that contains `start`, and each later one that begins before `end`."""
        first, fetched_at = whole_hour(start.astimezone(UTC)), self._clock()
        return [
            Reading(
                zone=self.zone,
                start=first + index * HOUR,
                end=first + (index + 1) * HOUR,
                gco2e_per_kwh=self._gco2e_per_kwh,
                source=self._label,
                estimated=True,
                fetched_at=fetched_at,
            )
            for index in range(max(1, math.ceil((end - first) / HOUR)))
        ]


@dataclass(frozen=True)
class StaticMean:
    """Yearly mean that is used for a zone without readings: its country and its source's name.

    `country` is an ISO 3166-1 code, or "WORLD" where the zone's country is not known.
    """

    country: str = WORLD
    source: str = "static (world)"

    def reading(self, zone: str, at: datetime) -> Reading:
        """Return the mean as the zone's reading of the hour that contains `at`."""
        return StaticSource(zone, country=self.country, label=self.source, clock=lambda: at).latest()


def has_yearly_mean(country: str) -> bool:
    """Return whether the bundled data has a yearly mean of this country (ISO 3166-1 code or "WORLD")."""
    try:
        yearly_mean(country)
    except UnknownZone:
        return False
    return True


def highest_yearly_mean() -> float:
    """Return the highest of all countries' yearly means in gCO2e/kWh."""
    return max(_country_means().values())


def yearly_mean(zone: str) -> float:
    """Return the country's yearly mean intensity in gCO2e/kWh.

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
            'the static source expects an ISO 3166-1 country code, such as "FR" or "FRA", or "WORLD"',
        ) from None


@cache
def _country_means() -> dict[str, float]:
    mixes = json.loads(_bundled("global_energy_mix.json"))
    return {code: float(mix["carbon_intensity"]) for code, mix in mixes.items()}


@cache
def _world_mean() -> float:
    return float(json.loads(_bundled("carbon_intensity_per_source.json"))["world_average"])


def _bundled(name: str) -> str:
    # Only its data files are needed: importing codecarbon would load its trackers.
    spec = find_spec("codecarbon")
    if spec is None or not spec.submodule_search_locations:
        raise CarbonError("the static source reads CodeCarbon's bundled data, but codecarbon is not installed")
    path = Path(spec.submodule_search_locations[0]) / "data" / "private_infra" / name
    return path.read_text(encoding="utf-8")
