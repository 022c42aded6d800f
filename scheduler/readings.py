"""Keeps the stored intensity of every zone up to date."""

from collections.abc import Mapping
from datetime import timedelta

import structlog

from greencore.carbon import CarbonError, Reading, Source, open_source
from greencore.clock import Clock
from store.database import Database
from store.grid import GridRepository

log = structlog.get_logger()

LONGEST_GAP_FILLED = timedelta(days=7)


def open_sources(zones: Mapping[str, str], *, clock: Clock) -> dict[str, Source]:
    """A source for each zone. Raises `CarbonError` that names the zone whose setting is wrong."""
    sources = {}
    for zone, spec in zones.items():
        try:
            sources[zone] = open_source(spec, zone, clock=clock)
        except CarbonError as error:
            raise CarbonError(f"GREENTUNE_ZONES: {zone}: {error}") from error
    return sources


def refresh_readings(database: Database, sources: Mapping[str, Source], *, clock: Clock) -> None:
    """Store each zone's reading in force, and whatever was missed since the last one.

    A source that fails is logged and asked again at the next tick; the other zones do not wait for it.
    """
    for zone, source in sources.items():
        try:
            _refresh(database, zone, source, clock=clock)
        except CarbonError as error:
            log.warning("intensity.unavailable", zone=zone, error=str(error))


def _refresh(database: Database, zone: str, source: Source, *, clock: Clock) -> None:
    now = clock()
    with database.session() as session:
        stored = GridRepository(session).newest(zone, at=now)
    if stored is not None and now < stored.end:
        return
    latest = source.latest()
    missed: list[Reading] = []
    if stored is not None and stored.end < latest.start:
        missed = list(source.history(max(stored.end, now - LONGEST_GAP_FILLED), latest.start))
    with database.session() as session:
        GridRepository(session).put([*missed, latest])
