"""Polls each zone's intensity source, and stores its readings without gaps and its forecast."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import pairwise

import structlog
from sqlalchemy.exc import OperationalError

from greencore.carbon import Basis, CarbonError, NoReading, Reading, Source, open_source
from greencore.carbon.accounting.pricing import covered_spans
from greencore.carbon.forecasting import forecast_own
from greencore.carbon.static import WORLD, StaticSource
from greencore.clock import Clock
from runtime.settings import Settings
from runtime.site import SITE_UNKNOWN, UNKNOWN_ZONE
from store.accounting.emissions import EmissionsRepository
from store.database import Database
from store.intensity.provider_health import ProviderRepository
from store.intensity.readings import GridRepository

log = structlog.get_logger()

FORECAST_HORIZON = timedelta(hours=72)
# 72 hours of five-minute readings; a replayed trace may have much shorter ones.
MAX_FORECAST_READINGS = 864
MAX_HISTORY_READINGS = 3000
FORECAST_INTERVAL = timedelta(minutes=15)
BACKFILL_INTERVAL = timedelta(hours=1)
BACKFILL_WINDOW = timedelta(days=7)
# A provider's plan may include the last day and refuse older data: the two are requested separately.
RECENT_HISTORY = timedelta(hours=23)
RETRY_INTERVAL = timedelta(seconds=30)
# The own forecast is hourly: it cannot predict a trace that replays a day in minutes.
MIN_INTERVAL_FOR_OWN_FORECAST = timedelta(minutes=5)
FORECAST_TRAINING_WINDOW = timedelta(days=365)
THREADS = 4
# The longest that a tick waits: local sources answer at once, and a slow provider must not delay the jobs.
POLL_WAIT_SECONDS = 1.0


def open_sources(settings: Settings, *, clock: Clock) -> dict[str, Source]:
    """Open the source of each zone, and the world mean for workers whose site is unknown.

    Raises `CarbonError`, which names the zone whose setting is invalid.
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
class _ZoneState:
    """Polling state of one zone: what is due when, and what has failed."""

    source: Source
    next_poll: datetime | None = None
    next_backfill: datetime | None = None
    scanned_until: datetime | None = None
    unfilled_gap: datetime | None = None
    running: Future[None] | None = None
    is_slow: bool = False
    failing_parts: set[str] = field(default_factory=set)

    @property
    def basis(self) -> Basis:
        return Basis(self.source.signal, self.source.emission_factors)


class IntensityPoller:
    """Polls the zones' sources in background threads, at most one poll per zone at a time, and stores the answers."""

    def __init__(self, database: Database, settings: Settings, sources: Mapping[str, Source], *, clock: Clock) -> None:
        self._database, self._settings, self._clock = database, settings, clock
        self._zones = {zone: _ZoneState(source) for zone, source in sources.items()}
        self._closed = False
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="grid")

    def poll(self, zones: Collection[str]) -> None:
        """Start a poll of each of these zones that is due and has no poll running. Does not wait."""
        now = self._clock()
        for name in zones:
            zone = self._zones.get(name)
            if zone is None or (zone.running is not None and not zone.running.done()):
                continue
            if zone.next_poll is None or now >= zone.next_poll:
                zone.running = self._pool.submit(self._poll_zone, name, zone)

    def wait_for_polls(self) -> None:
        """Wait for the running polls, for at most a second.

        A source that took longer is not waited for again until it has answered in time.
        """
        running = {zone.running: zone for zone in self._zones.values() if zone.running and not zone.is_slow}
        for late in wait(running, POLL_WAIT_SECONDS).not_done:
            running[late].is_slow = True

    def close(self) -> None:
        """Stop polling; running polls have a second to end, and later results are not waited for."""
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)
        wait([zone.running for zone in self._zones.values() if zone.running is not None], POLL_WAIT_SECONDS)

    def _poll_zone(self, name: str, zone: _ZoneState) -> None:
        began = time.monotonic()
        try:
            now = self._clock()
            parts = (
                ("latest", lambda: self._store_latest(name, zone, now)),
                ("history", lambda: self._backfill_history(name, zone, now)),
                ("forecast", lambda: self._store_forecast(name, zone, now)),
            )
            # The parts are independent: one that fails does not keep the others from being requested.
            failed = [part for part, ask in parts if not self._poll_part(name, zone, part, ask)]
            zone.next_poll = now + RETRY_INTERVAL if failed else None
        except Exception as fault:  # the future's result is not read: without this the fault would be lost
            zone.next_poll = self._clock() + RETRY_INTERVAL
            if isinstance(fault, OperationalError):
                if not self._closed:
                    log.warning("database.unreachable", zone=name, error=str(fault.orig).strip())
            else:
                log.exception("grid.failed", zone=name, exc_info=fault)
        if time.monotonic() - began < POLL_WAIT_SECONDS:
            zone.is_slow = False

    def _poll_part(self, name: str, zone: _ZoneState, part: str, ask: Callable[[], bool]) -> bool:
        """Poll one part of a zone's data and record how the source answered, if asked; False where it failed."""
        now = self._clock()
        try:
            if ask():
                with self._database.session() as session:
                    ProviderRepository(session).record_success(name, self._source_kind(name), at=now)
        except CarbonError as error:
            with self._database.session() as session:
                providers, kind = ProviderRepository(session), self._source_kind(name)
                providers.record_failure(name, kind, at=now, error=f"{part}: {error}")
            if part not in zone.failing_parts:
                log.warning("intensity.unavailable", zone=name, part=part, error=str(error))
            zone.failing_parts.add(part)
            return False
        if part in zone.failing_parts:
            log.info("intensity.available", zone=name, part=part)
        zone.failing_parts.discard(part)
        return True

    def _store_latest(self, name: str, zone: _ZoneState, now: datetime) -> bool:
        """Fetch the reading in force; False where it is stored already, and the source was not asked."""
        with self._database.session() as session:
            stored = GridRepository(session).newest_reading(name, zone.basis, at=now)
        may_change = stored is not None and stored.estimated and not isinstance(zone.source, StaticSource)
        if stored is not None and now < stored.end and not may_change:
            return False
        latest = zone.source.latest()
        if latest != stored:
            self._store_readings([latest])
        return True

    def _backfill_history(self, name: str, zone: _ZoneState, now: datetime) -> bool:
        """Fetch missing, estimated and revisable readings; for a new zone, its whole history.

        Measured readings are fetched again as long as prices may still change. False where the source was not asked.
        """
        with self._database.session() as session:
            grid = GridRepository(session)
            newest = grid.newest_reading(name, zone.basis, at=now)
            if newest is None or isinstance(zone.source, StaticSource):
                return False
            due = zone.next_backfill is None or now >= zone.next_backfill
            if not due and newest.start == zone.scanned_until:  # a week of readings: not to be read at every tick
                return False
            first = grid.earliest_reading(name, zone.basis)
            recent = grid.readings_between(name, zone.basis, now - BACKFILL_WINDOW, now)
        assert first is not None
        length = newest.end - newest.start
        if first.start == newest.start:
            start = now - min(timedelta(days=self._settings.history_days), MAX_HISTORY_READINGS * length)
            # A source may have no history at all.
            wanted = due
        else:
            begin, end = max(first.start, now - BACKFILL_WINDOW), newest.start
            reached = next((until for since, until in covered_spans(recent) if since <= begin < until), begin)
            gap = reached if reached < end else None
            estimates = (max(reading.start, begin) for reading in recent if reading.estimated and reading.start < end)
            estimate = next(estimates, None)
            unsettled = now - min(self._settings.settle_after, MAX_HISTORY_READINGS * length)
            revisable = max(first.start, unsettled) if due else None
            start = min(time for time in (gap, estimate, revisable, newest.start) if time is not None)
            # A gap that the source could not fill, and an estimate that it has not replaced yet, can wait.
            wanted = due or (gap is not None and gap != zone.unfilled_gap)
            zone.unfilled_gap = gap
        zone.scanned_until = None if wanted else newest.start  # what is fetched may leave a part of a gap
        if not wanted:
            return False
        zone.next_backfill = now + BACKFILL_INTERVAL
        if start >= newest.start:
            return False
        self._fetch_history(zone.source, start, newest.start, now)
        return True

    def _fetch_history(self, source: Source, start: datetime, end: datetime, now: datetime) -> None:
        """Store the readings of `[start, end)`, the last day first. Raises the first `CarbonError`, the rest stored."""
        edges = sorted({start, end, max(start, min(now - RECENT_HISTORY, end))}, reverse=True)
        failure: CarbonError | None = None
        for until, begin in pairwise(edges):
            try:
                self._store_readings(source.history(begin, until).readings)
            except CarbonError as error:
                failure = failure or error
        if failure is not None:
            raise failure

    def _store_forecast(self, name: str, zone: _ZoneState, now: datetime) -> bool:
        """Fetch a forecast where the stored one is old, extended by our own; False where the source was not asked."""
        with self._database.session() as session:
            grid = GridRepository(session)
            newest = grid.newest_reading(name, zone.basis, at=now)
            made = grid.forecast_reach({name: zone.basis.signal}).get(name)
        length = timedelta(hours=1) if newest is None else newest.end - newest.start
        horizon = min(FORECAST_HORIZON, MAX_FORECAST_READINGS * length)
        if made is not None and now < made[0] + FORECAST_INTERVAL and made[1] > now + horizon / 2:
            return False
        error: CarbonError | None = None
        try:
            expected = list(zone.source.forecast(horizon / timedelta(hours=1)))
        except CarbonError as failure:
            error, expected = failure, []
        reaches = expected[-1].end if expected else now
        if reaches < now + horizon and length >= MIN_INTERVAL_FOR_OWN_FORECAST:
            expected += self._own_forecast(name, zone, reaches, now, horizon)
        if expected or error is None:
            with self._database.session() as session:
                GridRepository(session).put_forecast(name, zone.basis.signal, expected, at=now)
        if error is not None:
            raise error
        return True

    def _own_forecast(
        self, name: str, zone: _ZoneState, begins: datetime, now: datetime, horizon: timedelta
    ) -> list[Reading]:
        """Return our forecast from `begins` on, the end of the provider's, fitted to the zone's history."""
        if isinstance(zone.source, StaticSource):
            return []
        with self._database.session() as session:
            history = GridRepository(session).readings_between(name, zone.basis, now - FORECAST_TRAINING_WINDOW, now)
        # The reading in force is valid until its end: the forecast starts there, and is fitted to it, too.
        known_until = max([now, *(reading.end for reading in history.readings[-1:])])
        try:
            own = forecast_own(history, now=known_until, hours=horizon / timedelta(hours=1))
        except NoReading:
            return []
        return [replace(reading, start=max(reading.start, begins)) for reading in own if reading.end > begins]

    def _source_kind(self, name: str) -> str:
        """Return the kind of a zone's source: its specification without file, address and options."""
        return self._settings.zones.get(name, "static").partition("?")[0].partition(":")[0]

    def _store_readings(self, readings: Sequence[Reading]) -> None:
        """Store readings of one zone, and reopen the prices that used a value which they revise."""
        final_before = self._clock() - self._settings.settle_after
        with self._database.session() as session:
            grid = GridRepository(session)
            revised = [reading for reading in grid.find_revised(readings) if reading.end > final_before]
            grid.put(readings)
            if revised:
                zone, basis, spans = revised[0].zone, revised[0].basis, covered_spans(revised)
                EmissionsRepository(session).reopen_prices(zone, basis, spans, final_before=final_before)
