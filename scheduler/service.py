"""The scheduler's loop: one tick does everything that is due."""

import threading

import psycopg
import structlog
from celery import Celery
from kombu.exceptions import OperationalError as BrokerDown
from sqlalchemy.exc import OperationalError

from greencore.clock import Clock, utc_now
from scheduler.dispatch import dispatch_new_jobs, dispatch_queued_jobs
from scheduler.leadership import Leadership
from scheduler.readings import open_sources, refresh_readings
from scheduler.reclaim import reclaim_lost_jobs
from store.database import Database
from store.settings import Settings
from worker.app import MEASURE_MODELS, PREPARE_QUEUE, make_app, send

log = structlog.get_logger()


class Scheduler:
    """Ticks whenever it is woken, and every `tick_seconds`; only the leader among several acts."""

    def __init__(self, settings: Settings, *, clock: Clock = utc_now) -> None:
        """Raises `greencore.carbon.CarbonError` where a zone's source cannot be opened."""
        self._settings, self._clock = settings, clock
        self._sources = open_sources(settings.zones, clock=clock)
        self._database = Database(settings.database_url)
        self._celery: Celery = make_app(settings)
        self._leadership = Leadership(self._database.url)
        self._models_asked_for = False

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
        self._celery.close()
        self._database.dispose()

    def tick(self) -> None:
        """Everything that is due now, once."""
        settings, now = self._settings, self._clock()
        refresh_readings(self._database, self._sources, clock=self._clock)
        reclaim_lost_jobs(self._database, settings, at=now)
        self._ask_for_models()
        dispatch_new_jobs(self._database, self._celery, settings, at=now)
        dispatch_queued_jobs(self._database, self._celery, settings, at=now)

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
