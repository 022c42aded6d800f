"""`/zones`: current, forecast and past carbon intensity of the grid, as the scheduler stored it."""

from collections import Counter
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from api.access.principal import PrincipalDep
from api.dependencies import AppContextDep, NowDep, SessionDep
from api.http.pagination import Id, Listing, complete_listing
from api.http.problems import Problem, invalid_field, join_names, problem_responses, unavailable
from api.http.times import RecordedTime
from api.zones.schemas import ForecastOut, ForecastReach, HistoryOut, IntensityOut, ProviderOut, ReadingOut, ZoneOut
from greencore.carbon import Basis, IntensitySeries
from greencore.carbon.fallback import explain_missing_static
from runtime.settings import Settings
from runtime.site import UNKNOWN_ZONE
from store.intensity.provider_health import ProviderRepository
from store.intensity.readings import GridRepository, to_reading
from store.repositories.workers import WorkerRepository

MAX_READINGS = 10_000
MAX_FORECAST_HOURS = 168

router = APIRouter(prefix="/zones", tags=["zones"])


def _check_zone(zone: Id, principal: PrincipalDep, context: AppContextDep) -> str:
    zones = context.settings.zones
    if zone not in zones and zone != UNKNOWN_ZONE:
        raise Problem(HTTPStatus.NOT_FOUND, f"there is no zone {zone!r}: known are {join_names(zones)}")
    return zone


ZoneDep = Annotated[str, Depends(_check_zone)]
NOT_FOUND = problem_responses(HTTPStatus.NOT_FOUND)


@router.get("", summary="List zones with their newest readings and sources")
def list_zones(principal: PrincipalDep, context: AppContextDep, session: SessionDep, now: NowDep) -> Listing[ZoneOut]:
    """All configured zones, by name; with `site-unknown` if a worker is alive whose site is not set."""
    alive = WorkerRepository(session).list_seen_since(since=now - timedelta(seconds=context.settings.lease_seconds))
    workers = Counter(worker.zone for worker in alive)
    zones = sorted({*context.settings.zones, *({UNKNOWN_ZONE} & workers.keys())})
    grid = GridRepository(session)
    readings = grid.newest_readings(zones, at=now)
    forecasts = grid.forecast_reach({zone: reading.signal for zone, reading in readings.items()})
    providers = {provider.zone: provider for provider in ProviderRepository(session).all()}
    found = []
    for zone in zones:
        row, reach, provider = readings.get(zone), forecasts.get(zone), providers.get(zone)
        newest = row and to_reading(row)
        state = ZoneOut(
            zone=zone,
            signal=newest and newest.signal,
            newest=newest and ReadingOut.from_row(newest),
            age_seconds=newest and newest.age_seconds(now),
            forecast=ForecastReach(made_at=reach[0], until=reach[1]) if reach is not None and reach[1] > now else None,
            workers=workers[zone],
            provider=provider and ProviderOut.of(provider),
        )
        found.append(state)
    return complete_listing(found)


@router.get(
    "/{zone}/intensity",
    summary="Get the carbon intensity in force in a zone",
    responses=problem_responses(HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE),
)
def get_intensity(zone: ZoneDep, context: AppContextDep, session: SessionDep, now: NowDep) -> IntensityOut:
    """A reading that covers this time, else the best substitute: `step` says which.

    A job's ρ would be decided by it now.
    """
    grid, settings = GridRepository(session), context.settings
    basis = grid.newest_basis(zone) or settings.basis(zone)
    found = find_intensity(grid, settings, zone, basis, now=now)
    if found is None:
        refused = explain_missing_static(basis)
        not_taken = f"; {refused}" if refused else ""
        raise unavailable(f"no intensity of {zone} is known now: the scheduler polls its source{not_taken}")
    return found


def find_intensity(
    grid: GridRepository, settings: Settings, zone: str, basis: Basis, *, now: datetime
) -> IntensityOut | None:
    """Return a zone's intensity in force now by the fallback chain; None where it is unknown."""
    known = grid.resolve_intensity(zone, basis, now, settings)
    return None if known is None else IntensityOut.of(known, zone=zone, now=now)


@router.get("/{zone}/forecast", summary="Get the forecast of a zone", responses=NOT_FOUND)
def get_forecast(
    zone: ZoneDep,
    session: SessionDep,
    now: NowDep,
    hours: Annotated[float, Query(gt=0, le=MAX_FORECAST_HOURS, description="Hours from now on")] = 24,
) -> ForecastOut:
    """The newest stored forecast: the provider's, and our own from stored readings where that ends or is missing."""
    grid = GridRepository(session)
    basis = grid.newest_basis(zone)
    expected = IntensitySeries() if basis is None else grid.forecast(zone, basis, now, now + timedelta(hours=hours))
    return ForecastOut.of(zone, None if basis is None else basis.signal, expected.readings)


@router.get("/{zone}/history", summary="List stored readings of a zone", responses=NOT_FOUND)
def get_history(
    zone: ZoneDep,
    session: SessionDep,
    now: NowDep,
    start: Annotated[RecordedTime | None, Query(description="Default: a day before the end")] = None,
    end: Annotated[RecordedTime | None, Query(description="Default: now")] = None,
) -> HistoryOut:
    """Readings that overlap the time from `start` to `end`, earliest first, at most 10,000."""
    until = end or now
    begin = start or until - timedelta(days=1)
    if begin >= until:
        raise invalid_field("start", f"given {begin.isoformat()}: expected a time before {until.isoformat()}, the end")
    grid = GridRepository(session)
    basis = grid.newest_basis(zone)
    readings = IntensitySeries()
    if basis is not None:
        count = grid.count_readings(zone, basis, begin, until)
        if count > MAX_READINGS:
            fault = f"there are {count:,} readings from there on: expected at most {MAX_READINGS:,}"
            raise invalid_field("start", fault)
        readings = grid.readings_between(zone, basis, begin, until)
    return HistoryOut(
        zone=zone,
        signal=None if basis is None else basis.signal,
        covered_share=readings.mean(begin, until).covered_share if len(readings) else 0.0,
        data=[ReadingOut.from_row(reading) for reading in readings],
    )
