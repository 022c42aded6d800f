"""What the grid's page says of one zone: its intensity now, the hours ahead, and the cleanest window among them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Self

import pycountry
from sqlalchemy.orm import Session

from api.zones.schemas import ForecastOut, IntensityOut, ProviderOut, ZoneOut
from greencore.carbon import IntensitySeries
from greencore.policy.gate.cleanest_window import CleanWindow, find_cleanest_window
from runtime.settings import Settings
from store.intensity.readings import GridRepository

HOUR = timedelta(hours=1)
AHEAD = timedelta(hours=24)
LABEL_EVERY_HOURS = 6
# So near to the edge a label would be cut off.
LABEL_MARGIN = 0.04


@dataclass(frozen=True)
class Bar:
    """One hour of the chart, its sides as shares of the chart's; None where nothing is expected of the hour."""

    start: datetime
    end: datetime
    left: float
    width: float
    gco2e_per_kwh: float | None
    height: float
    sources: Sequence[str]


@dataclass(frozen=True)
class ZoneView:
    """A zone as it is shown. `cleaner` is the share by which the window's mean lies below the intensity now."""

    zone: str
    country: str | None
    now: IntensityOut | None
    forecast: ForecastOut
    bars: Sequence[Bar]
    window: CleanWindow | None
    window_left: float
    window_width: float
    cleaner: float | None
    workers: int
    provider: ProviderOut | None

    @classmethod
    def of(cls, known: ZoneOut, session: Session, settings: Settings, *, window_hours: float, now: datetime) -> Self:
        """From the stored readings and the stored forecast, by the fallback chain that jobs are steered by."""
        grid = GridRepository(session)
        basis = grid.newest_basis(known.zone) or settings.basis(known.zone)
        stored = grid.load_snapshot(known.zone, basis.signal, now, now + AHEAD, emission_factors=basis.emission_factors)
        static = settings.static_mean(known.zone)
        in_force, forecast = (
            stored.resolve_intensity(now, stale_limit=settings.stale_limit, static=static),
            stored.forecast_from(now),
        )
        window = find_cleanest_window(forecast, start=now, end=now + AHEAD, hours=window_hours)
        intensity = None if in_force is None else in_force.reading.gco2e_per_kwh
        return cls(
            zone=known.zone,
            country=country_name(settings, known.zone),
            now=None if in_force is None else IntensityOut.of(in_force, zone=known.zone, now=now),
            forecast=ForecastOut.of(known.zone, known.signal, stored.forecast.readings),
            bars=_bars(forecast, now) if known.forecast else [],
            window=window if known.forecast else None,
            window_left=0.0 if window is None else (window.start - now) / AHEAD,
            window_width=window_hours * HOUR / AHEAD,
            cleaner=1 - window.gco2e_per_kwh / intensity if window is not None and intensity else None,
            workers=known.workers,
            provider=known.provider,
        )

    @property
    def values(self) -> list[float]:
        """What is expected of the hours of which anything is, in gCO2e/kWh."""
        return [bar.gco2e_per_kwh for bar in self.bars if bar.gco2e_per_kwh is not None]


@dataclass(frozen=True)
class Tick:
    """A label of the time axis, at a share of its width."""

    left: float
    label: str


def ticks(now: datetime) -> list[Tick]:
    """Every sixth hour of UTC in the time ahead."""
    first = _hour(now) + HOUR
    hours = [first + offset * HOUR for offset in range(round(AHEAD / HOUR))]
    labelled = [hour for hour in hours if hour.hour % LABEL_EVERY_HOURS == 0]
    found = [Tick((hour - now) / AHEAD, f"{hour:%H:%M}") for hour in labelled]
    return [tick for tick in found if LABEL_MARGIN <= tick.left <= 1 - LABEL_MARGIN]


def country_name(settings: Settings, zone: str) -> str | None:
    """The name of the country in which a zone lies, by what its source says; None where that names none."""
    mean = settings.static_mean(zone)
    code = "" if mean is None else mean.country
    country = pycountry.countries.get(alpha_2=code) or pycountry.countries.get(alpha_3=code)
    return None if country is None else str(country.name)


def _hour(time: datetime) -> datetime:
    return time.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _bars(forecast: IntensitySeries, now: datetime) -> list[Bar]:
    """The rest of this hour, and the hours up to the end of what is looked at."""
    first, end = _hour(now), now + AHEAD
    edges = [now, *(first + offset * HOUR for offset in range(1, round(AHEAD / HOUR) + 1)), end]
    spans = [(start, until) for start, until in pairwise(edges) if start < until]
    means = [forecast.mean(start, until) if len(forecast) else None for start, until in spans]
    known = [mean if mean is not None and mean.covered_share > 0 else None for mean in means]
    highest = max((mean.gco2e_per_kwh for mean in known if mean is not None), default=0.0) or 1.0
    return [
        Bar(
            start=start,
            end=until,
            left=(start - now) / AHEAD,
            width=(until - start) / AHEAD,
            gco2e_per_kwh=None if mean is None else mean.gco2e_per_kwh,
            height=mean.gco2e_per_kwh / highest if mean is not None else 0.0,
            sources=mean.sources if mean is not None else (),
        )
        for (start, until), mean in zip(spans, known, strict=True)
    ]
