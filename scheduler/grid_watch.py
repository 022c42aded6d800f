"""Keeps what is known of each zone's intensity up to date: readings without gaps, and a forecast."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import pairwise

import structlog
from sqlalchemy.exc import OperationalError

from greencore.carbon import CarbonError, IntensitySeries, NoReading, Reading, Source, open_source
from greencore.carbon.forecasting import OwnForecast
from greencore.carbon.static import WORLD, StaticSource
from greencore.clock import Clock
from store.database import Database
from store.emissions import EmissionsRepository
from store.grid import GridRepository
from store.providers import ProviderRepository
from store.settings import Settings
from store.site import SITE_UNKNOWN, UNKNOWN_ZONE

log = structlog.get_logger()

HORIZON = timedelta(hours=72)
# A source of five-minute readings has as many in 72 hours; a replayed trace may be faster by far.
MOST_FORECAST_READINGS = 864
MOST_HISTORY_READINGS = 3000
FORECAST_EVERY = timedelta(minutes=15)
REPAIR_EVERY = timedelta(hours=1)
REPAIRED = timedelta(days=7)
# A provider's plan may hold the last day and refuse what lies before it: the two are asked for one by one.
RECENT = timedelta(hours=23)
RETRY_AFTER = timedelta(seconds=30)
# Our own forecast is hourly: it has nothing to say of a trace that runs through a day in minutes.
SHORTEST_FOR_OWN_FORECAST = timedelta(minutes=5)
TRAINED_ON = timedelta(days=365)
THREADS = 4
# What a tick waits for: local sources answer at once, and no provider may hold up the jobs.
PATIENCE_SECONDS = 1.0


def open_sources(settings: Settings, *, clock: Clock) -> dict[str, Source]:
    """A source for each zone, and the world's mean for the workers whose site is not known.

    Raises `CarbonError` that names the zone whose setting is wrong.
    """
    sources: dict[str, Source] = {
        UNKNOWN_ZONE: StaticSource(UNKNOWN_ZONE, country=WORLD, label=SITE_UNKNOWN, clock=clock)
    }
    for zone, spec in settings.zones.items():
        try:
            sources[zone] = open_source(spec, zone, clock=clock, credentials=settings.credentials)
        except CarbonError as error:
            raise CarbonError(f"GREENTUNE_ZONES: {zone}: {error}") from error
    return sources


@dataclass
class _Zone:
    """When a zone is looked at next, and for what."""

    source: Source
    next_look: datetime | None = None
    next_repair: datetime | None = None
    unfilled: datetime | None = None
    running: Future[None] | None = None
    is_slow: bool = False
    failing: set[str] = field(default_factory=set)


class GridWatch:
    """Asks the zones' sources in the background, one question at a time per zone, and stores what they say."""

    def __init__(self, database: Database, settings: Settings, sources: Mapping[str, Source], *, clock: Clock) -> None:
        self._database, self._settings, self._clock = database, settings, clock
        self._zones = {zone: _Zone(source) for zone, source in sources.items()}
        self._closed = False
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="grid")

    def refresh(self, zones: Collection[str]) -> None:
        """Have each of these zones looked at, unless its last look is still under way. Waits for none of them."""
        now = self._clock()
        for name in zones:
            zone = self._zones.get(name)
            if zone is None or (zone.running is not None and not zone.running.done()):
                continue
            if zone.next_look is None or now >= zone.next_look:
                zone.running = self._pool.submit(self._look, name, zone)

    def settle(self) -> None:
        """Return when the looks under way are done, at the latest after a second.

        A source that took longer than that is not waited for again until it has answered in time.
        """
        running = {zone.running: zone for zone in self._zones.values() if zone.running and not zone.is_slow}
        for late in wait(running, PATIENCE_SECONDS).not_done:
            running[late].is_slow = True

    def close(self) -> None:
        """Stop asking; what is under way has a moment to end, and else may end on its own, unheard."""
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)
        wait([zone.running for zone in self._zones.values() if zone.running is not None], PATIENCE_SECONDS)

    def _look(self, name: str, zone: _Zone) -> None:
        began = time.monotonic()
        try:
            now = self._clock()
            parts = (
                ("latest", lambda: self._store_latest(name, zone.source, now)),
                ("history", lambda: self._fill_history(name, zone, now)),
                ("forecast", lambda: self._store_forecast(name, zone.source, now)),
            )
            # Each part stands on its own: without an answer to one, the others are asked all the same.
            failed = [part for part, ask in parts if not self._asked(name, zone, part, ask)]
            zone.next_look = now + RETRY_AFTER if failed else None
        except Exception as fault:  # a thread's fault would be seen by nobody
            zone.next_look = self._clock() + RETRY_AFTER
            if isinstance(fault, OperationalError):
                if not self._closed:
                    log.warning("database.unreachable", zone=name, error=str(fault.orig).strip())
            else:
                log.exception("grid.failed", zone=name, exc_info=fault)
        if time.monotonic() - began < PATIENCE_SECONDS:
            zone.is_slow = False

    def _asked(self, name: str, zone: _Zone, part: str, ask: Callable[[], bool]) -> bool:
        """Whether a part of what is to be known of a zone is there; how its source answered, if asked, is noted."""
        now = self._clock()
        try:
            if ask():
                with self._database.session() as session:
                    ProviderRepository(session).answered(name, self._kind(name), at=now)
        except CarbonError as error:
            with self._database.session() as session:
                ProviderRepository(session).failed(name, self._kind(name), at=now, error=f"{part}: {error}")
            if part not in zone.failing:
                log.warning("intensity.unavailable", zone=name, part=part, error=str(error))
            zone.failing.add(part)
            return False
        if part in zone.failing:
            log.info("intensity.available", zone=name, part=part)
        zone.failing.discard(part)
        return True

    def _store_latest(self, name: str, source: Source, now: datetime) -> bool:
        """Fetch the reading in force; False where what is stored is it, and the source was not asked."""
        with self._database.session() as session:
            stored = GridRepository(session).newest(
                name, at=now, signal=source.signal, emission_factors=source.emission_factors
            )
        may_change = stored is not None and stored.estimated and not isinstance(source, StaticSource)
        if stored is not None and now < stored.end and not may_change:
            return False
        latest = source.latest()
        if latest != stored:
            self._put([latest])
        return True

    def _fill_history(self, name: str, zone: _Zone, now: datetime) -> bool:
        """Fetch what is missing, was an estimate or may be revised; all that there is of a zone that is new.

        Measured readings are read again for as long as prices may still change. False where the source was not asked.
        """
        signal, factors = zone.source.signal, zone.source.emission_factors
        with self._database.session() as session:
            grid = GridRepository(session)
            newest = grid.newest(name, at=now, signal=signal, emission_factors=factors)
            if newest is None or isinstance(zone.source, StaticSource):
                return False
            first = grid.first(name, signal, emission_factors=factors)
            recent = grid.between(name, signal, now - REPAIRED, now, emission_factors=factors)
        assert first is not None
        length = newest.end - newest.start
        due = zone.next_repair is None or now >= zone.next_repair
        if first.start == newest.start:
            start = now - min(timedelta(days=self._settings.history_days), MOST_HISTORY_READINGS * length)
            # A source may have no history at all.
            wanted = due
        else:
            gap, estimate = _first_open(recent, max(first.start, now - REPAIRED), newest.start)
            unsettled = now - min(self._settings.settle_after, MOST_HISTORY_READINGS * length)
            revisable = max(first.start, unsettled) if due else None
            start = min(time for time in (gap, estimate, revisable, newest.start) if time is not None)
            # A gap that the source could not fill, and an estimate that it has not replaced yet, can wait.
            wanted = due or (gap is not None and gap != zone.unfilled)
            zone.unfilled = gap
        if not wanted:
            return False
        zone.next_repair = now + REPAIR_EVERY
        if start >= newest.start:
            return False
        self._fetch_history(zone.source, start, newest.start, now)
        return True

    def _fetch_history(self, source: Source, start: datetime, end: datetime, now: datetime) -> None:
        """Store what the source has of `[start, end)`, the last day first. Raises what it fails of, the rest stored."""
        edges = sorted({start, end, max(start, min(now - RECENT, end))}, reverse=True)
        failure: CarbonError | None = None
        for until, begin in pairwise(edges):
            try:
                self._put(source.history(begin, until).readings)
            except CarbonError as error:
                failure = failure or error
        if failure is not None:
            raise failure

    def _store_forecast(self, name: str, source: Source, now: datetime) -> bool:
        """Fetch a forecast where the stored one is old, and add our own; False where the source was not asked."""
        signal = source.signal
        with self._database.session() as session:
            grid = GridRepository(session)
            newest = grid.newest(name, at=now, signal=signal, emission_factors=source.emission_factors)
            made = grid.forecast_made(name, signal)
        length = timedelta(hours=1) if newest is None else newest.end - newest.start
        horizon = min(HORIZON, MOST_FORECAST_READINGS * length)
        if made is not None and now < made[0] + FORECAST_EVERY and made[1] > now + horizon / 2:
            return False
        error: CarbonError | None = None
        try:
            expected = list(source.forecast(horizon / timedelta(hours=1)))
        except CarbonError as failure:
            error, expected = failure, []
        reaches = expected[-1].end if expected else now
        if reaches < now + horizon and length >= SHORTEST_FOR_OWN_FORECAST:
            expected += self._own_forecast(name, source, reaches, now, horizon)
        if expected or error is None:
            with self._database.session() as session:
                GridRepository(session).put_forecast(name, signal, expected, at=now)
        if error is not None:
            raise error
        return True

    def _own_forecast(
        self, name: str, source: Source, begins: datetime, now: datetime, horizon: timedelta
    ) -> list[Reading]:
        """What the zone's own past says of the time after the provider's forecast."""
        if isinstance(source, StaticSource):
            return []
        with self._database.session() as session:
            history = GridRepository(session).between(
                name, source.signal, now - TRAINED_ON, now, emission_factors=source.emission_factors
            )
        # The reading in force is taken at its word up to its end: what comes after is forecast from it, too.
        known_until = max([now, *(reading.end for reading in history.readings[-1:])])
        try:
            own = OwnForecast.fit(history, now=known_until).forecast(horizon / timedelta(hours=1))
        except NoReading:
            return []
        return [replace(reading, start=max(reading.start, begins)) for reading in own if reading.end > begins]

    def _kind(self, name: str) -> str:
        """The source that a zone's specification names, without its file, address and options."""
        return self._settings.zones.get(name, "static").partition("?")[0].partition(":")[0]

    def _put(self, readings: Sequence[Reading]) -> None:
        """Store readings of one zone; a price that rests on a value which they revise is provisional again."""
        final_before = self._clock() - self._settings.settle_after
        with self._database.session() as session:
            grid = GridRepository(session)
            revised = [reading for reading in grid.find_revised(readings) if reading.end > final_before]
            grid.put(readings)
            if revised:
                EmissionsRepository(session).reopen(
                    revised[0].zone,
                    revised[0].basis,
                    _joined(revised),
                    final_before=final_before,
                )


def _joined(readings: Iterable[Reading]) -> list[tuple[datetime, datetime]]:
    """The spans that readings cover, each as long as they follow one another."""
    spans: list[tuple[datetime, datetime]] = []
    for reading in sorted(readings, key=lambda reading: reading.start):
        if spans and reading.start <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(spans[-1][1], reading.end))
        else:
            spans.append((reading.start, reading.end))
    return spans


def _first_open(recent: IntensitySeries, start: datetime, end: datetime) -> tuple[datetime | None, datetime | None]:
    """Where in `[start, end)` the first gap begins, and where the first estimate; None where there is none."""
    reached, gap, estimate = start, None, None
    for reading in recent:
        if reading.start >= end:
            break
        if gap is None and reading.start > reached:
            gap = reached
        if estimate is None and reading.estimated:
            estimate = max(reading.start, start)
        reached = max(reached, reading.end)
    return gap if gap is not None or reached >= end else reached, estimate
