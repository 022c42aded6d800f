"""`/dashboard/grid`: each zone's carbon intensity now, its forecast, and its cleanest window."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Annotated, Literal, Self

import pycountry
from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse
from sqlalchemy.orm import Session

from api.dashboard.page import PageDep
from api.intensity_bands import BANDS
from api.zones.endpoints import list_zones
from api.zones.schemas import ForecastOut, IntensityOut, ZoneOut
from greencore.carbon import IntensitySeries
from greencore.clock import HOUR
from greencore.policy.gate.cleanest_window import CleanWindow, find_cleanest_window
from runtime.settings import Settings
from store.intensity.readings import GridRepository

# Sources publish new values every few minutes.
GRID_POLL_SECONDS = 15
WINDOW_HOURS = (1, 3, 6, 12)
HORIZON = timedelta(hours=24)
LABEL_EVERY_HOURS = 6
# Share of the width at each edge where a label would be cut off.
LABEL_MARGIN = 0.04

router = APIRouter()


@router.get("/dashboard/grid")
def grid_page(
    page: PageDep,
    hours: Annotated[Literal["1", "3", "6", "12"], Query(description="Length of the cleanest window in hours")] = "3",
) -> HTMLResponse:
    """Render the zones, cleanest first; the ETag changes with each reading and each minute, to which ages are shown."""
    minute = page.now.replace(second=0, microsecond=0)
    zones = list_zones(page.principal, page.context, page.session, page.now).data
    known = [zone.model_dump(mode="json", exclude={"age_seconds"}) for zone in zones]
    page.check_etag(hours, minute.isoformat(), known)
    settings, session = page.context.settings, page.session
    views = [ZoneView.of(zone, session, settings, window_hours=int(hours), now=minute) for zone in zones]
    unknown = float("inf")
    views.sort(key=lambda view: unknown if view.now is None else view.now.gco2e_per_kwh)
    return page.render(
        "grid.html",
        title="Grid",
        here="grid",
        zones=views,
        sources=settings.zones,
        ticks=_ticks(minute),
        now=minute,
        window_hours=int(hours),
        lengths=WINDOW_HOURS,
        bands=BANDS,
        poll_seconds=GRID_POLL_SECONDS,
    )


@dataclass(frozen=True)
class Bar:
    """One hour of the chart, placed and sized in shares of it; the intensity is None outside the forecast."""

    start: datetime
    end: datetime
    left: float
    width: float
    gco2e_per_kwh: float | None
    height: float
    sources: Sequence[str]


@dataclass(frozen=True)
class ZoneView:
    """A zone as shown; `cleaner` is the share by which the window's mean is below the intensity now."""

    state: ZoneOut
    country: str | None
    now: IntensityOut | None
    forecast: ForecastOut
    bars: Sequence[Bar]
    window: CleanWindow | None
    window_left: float
    window_width: float
    cleaner: float | None

    @classmethod
    def of(cls, known: ZoneOut, session: Session, settings: Settings, *, window_hours: float, now: datetime) -> Self:
        """Build the view from stored readings and forecast, by the fallback chain that decides a job's ρ."""
        grid = GridRepository(session)
        basis = grid.newest_basis(known.zone) or settings.basis(known.zone)
        stored = grid.load_snapshot(known.zone, basis, now, now + HORIZON)
        static = settings.static_mean(known.zone)
        in_force = stored.resolve_intensity(now, stale_limit=settings.stale_limit, static=static)
        forecast = stored.forecast_from(now)
        window = find_cleanest_window(forecast, start=now, end=now + HORIZON, hours=window_hours)
        intensity = None if in_force is None else in_force.reading.gco2e_per_kwh
        return cls(
            state=known,
            country=country_name(settings, known.zone),
            now=None if in_force is None else IntensityOut.of(in_force, zone=known.zone, now=now),
            forecast=ForecastOut.of(known.zone, known.signal, stored.forecast.readings),
            bars=_bars(forecast, now) if known.forecast else [],
            window=window if known.forecast else None,
            window_left=0.0 if window is None else (window.start - now) / HORIZON,
            window_width=window_hours * HOUR / HORIZON,
            cleaner=1 - window.gco2e_per_kwh / intensity if window is not None and intensity else None,
        )

    @property
    def values(self) -> list[float]:
        """Forecast intensities of the hours that have one (gCO2e/kWh)."""
        return [bar.gco2e_per_kwh for bar in self.bars if bar.gco2e_per_kwh is not None]


def _ticks(now: datetime) -> list[tuple[float, str]]:
    """Return the place (a share of the width) and the label of every sixth hour (UTC) of the next 24 hours."""
    first = _full_hour(now) + HOUR
    hours = [first + offset * HOUR for offset in range(round(HORIZON / HOUR))]
    labelled = [((hour - now) / HORIZON, f"{hour:%H:%M}") for hour in hours if hour.hour % LABEL_EVERY_HOURS == 0]
    return [(left, label) for left, label in labelled if LABEL_MARGIN <= left <= 1 - LABEL_MARGIN]


def country_name(settings: Settings, zone: str) -> str | None:
    """Return the name of a zone's country by its static mean; None where that names none."""
    mean = settings.static_mean(zone)
    code = "" if mean is None else mean.country
    country = pycountry.countries.get(alpha_2=code) or pycountry.countries.get(alpha_3=code)
    return None if country is None else str(country.name)


def _full_hour(time: datetime) -> datetime:
    return time.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _bars(forecast: IntensitySeries, now: datetime) -> list[Bar]:
    """Return a bar for the rest of this hour, and one for each hour up to the horizon."""
    first, end = _full_hour(now), now + HORIZON
    edges = [now, *(first + offset * HOUR for offset in range(1, round(HORIZON / HOUR) + 1)), end]
    spans = [(start, until) for start, until in pairwise(edges) if start < until]
    means = [forecast.mean(start, until) if len(forecast) else None for start, until in spans]
    known = [mean if mean is not None and mean.covered_share > 0 else None for mean in means]
    highest = max((mean.gco2e_per_kwh for mean in known if mean is not None), default=0.0) or 1.0
    return [
        Bar(
            start=start,
            end=until,
            left=(start - now) / HORIZON,
            width=(until - start) / HORIZON,
            gco2e_per_kwh=None if mean is None else mean.gco2e_per_kwh,
            height=mean.gco2e_per_kwh / highest if mean is not None else 0.0,
            sources=mean.sources if mean is not None else (),
        )
        for (start, until), mean in zip(spans, known, strict=True)
    ]
