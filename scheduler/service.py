"""The scheduler's loop: one tick does everything that is due."""

import threading
from datetime import datetime, timedelta

import psycopg
import structlog
from celery import Celery
from kombu.exceptions import OperationalError as BrokerDown
from sqlalchemy.exc import OperationalError

from greencore.clock import Clock, utc_now
from scheduler.dispatch import dispatch_new_jobs, dispatch_queued_jobs, live_workers, pause_running_jobs
from scheduler.grid_watch import GridWatch, open_sources
from scheduler.leadership import Leadership
from scheduler.reclaim import reclaim_lost_jobs
from scheduler.settle import account, settle_prices
from scheduler.token_counts import dispatch_token_counts
from store.database import Database
from store.jobs import JobRepository
from store.placement import zones_of
from store.settings import Settings
from worker.app import MEASURE_MODELS, PREPARE_QUEUE, make_app, send

log = structlog.get_logger()

SETTLE_EVERY = timedelta(seconds=5)


class Scheduler:
    """Ticks whenever it is woken, and every `tick_seconds`; only the leader among several acts."""

    def __init__(self, settings: Settings, *, clock: Clock = utc_now) -> None:
        """Raises `greencore.carbon.CarbonError` where a zone's source cannot be opened."""
        self._settings, self._clock = settings, clock
        sources = open_sources(settings, clock=clock)
        self._signals = {zone: source.signal for zone, source in sources.items()}
        self._database = Database(settings.database_url)
        self._watch = GridWatch(self._database, settings, sources, clock=clock)
        self._celery: Celery = make_app(settings)
        self._leadership = Leadership(self._database.url)
        self._models_asked_for = False
        self._settle_at = clock()

    def run(self, stop: threading.Event) -> None:
        """Tick until `stop` is set. A database that is away is waited for: nothing is lost meanwhile."""
        while not stop.is_set():
            try:
                if self._leadership.leads():
                    self.tick()
                self._leadership.wait(self._settings.tick_seconds)
            except (OperationalError, psycopg.OperationalError) as error:
                log.warning("database.unreachable", error=str(error).strip())
                self._leadership.resign()
                stop.wait(self._settings.tick_seconds)
        self.close()

    def close(self) -> None:
        """Give up the lead and every connection."""
        self._leadership.resign()
        self._watch.close()
        self._celery.close()
        self._database.dispose()

    def tick(self) -> None:
        """Everything that is due now, once."""
        settings, database, now = self._settings, self._database, self._clock()
        self._watch.refresh(self._zones_in_use(now))
        reclaim_lost_jobs(database, settings, at=now)
        self._ask_for_models()
        dispatch_new_jobs(database, self._celery, settings, at=now)
        dispatch_token_counts(database, self._celery, settings, at=now)
        pause_running_jobs(database, settings, at=now)
        dispatch_queued_jobs(database, self._celery, settings, self._signals, at=now)
        if now >= self._settle_at:
            settle_prices(database, settings, at=now)
            account(database, settings, at=now)
            self._settle_at = now + SETTLE_EVERY

    def _zones_in_use(self, now: datetime) -> set[str]:
        """The zones with a live worker or an open job; no other is asked about."""
        with self._database.session() as session:
            return {*zones_of(live_workers(session, self._settings, at=now)), *JobRepository(session).open_zones()}

    def _ask_for_models(self) -> None:
        """Once, have the catalogue's models measured, so that submissions can be checked against their floor."""
        if self._models_asked_for:
            return
        try:
            send(self._celery, MEASURE_MODELS, queue=PREPARE_QUEUE)
        except BrokerDown as error:
            log.warning("broker.unreachable", error=str(error))
            return
        self._models_asked_for = True
