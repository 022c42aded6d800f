"""The scheduler's loop, each tick of which runs everything that is due."""

import threading
from collections.abc import Callable
from datetime import datetime, timedelta

import psycopg
import structlog
from kombu.exceptions import OperationalError as BrokerDown
from sqlalchemy.exc import DBAPIError

from greencore.carbon import Basis
from greencore.clock import Clock, utc_now
from runtime.settings import Settings
from runtime.tracing import span
from scheduler.broker import Broker
from scheduler.gates import pause_running_jobs, release_deferred_jobs
from scheduler.grid import IntensityPoller, open_sources
from scheduler.heartbeat import PeriodicTimer, SchedulerHeartbeat, delete_silent_processes
from scheduler.job_placement import Fleet
from scheduler.leadership import Leadership
from scheduler.prepare_dispatch import dispatch_new_jobs, dispatch_token_counts
from scheduler.reclaim import OutageDetector, kill_unresponsive_jobs, reclaim_lost_jobs
from scheduler.retention import RetentionCleaner
from scheduler.settlement import settle_prices, store_counterfactuals
from scheduler.training_dispatch import TrainingDispatcher
from scheduler.webhooks.delivery import WebhookSender
from store.database import Database, isolate_errors
from store.lifecycle.queue import QueueRepository
from store.pooling import require_sessions
from store.repositories.jobs import JobRepository
from store.repositories.workers import WorkerRepository
from worker.app import MEASURE_MODELS_TASK, PREPARE_QUEUE

log = structlog.get_logger()

SETTLEMENT_INTERVAL = timedelta(seconds=5)
CLEANUP_INTERVAL = timedelta(hours=1)


class Scheduler:
    """Ticks on NOTIFY and every `tick_seconds`; of several schedulers only the leader acts."""

    def __init__(self, settings: Settings, *, clock: Clock = utc_now) -> None:
        """Raises `greencore.carbon.CarbonError` where a zone's source cannot be opened, and
        `runtime.settings.SecretKeyMissing` where there is no key to sign webhooks with."""
        self._settings, self._clock = settings, clock
        sources = open_sources(settings, clock=clock)
        self._bases = {zone: Basis(source.signal, source.emission_factors) for zone, source in sources.items()}
        self._database = Database(settings.database_url)
        self._intensity_poller = IntensityPoller(self._database, settings, sources, clock=clock)
        self._broker = Broker(settings)
        self._training = TrainingDispatcher(self._database, self._broker, settings)
        self._retention = RetentionCleaner(self._database, settings)
        self._webhooks = WebhookSender(self._database, settings)
        self._heartbeat = SchedulerHeartbeat(self._database, settings)
        self._outage_detector = OutageDetector(settings.lease_seconds)
        stale_after = max(settings.lease_seconds, 3 * settings.tick_seconds)
        self._leadership = Leadership(self._database.url, stale_after_seconds=stale_after)
        self._models_requested = False
        self._poll_timer = PeriodicTimer(timedelta(seconds=settings.tick_seconds))
        self._settlement_timer = PeriodicTimer(SETTLEMENT_INTERVAL)
        self._cleanup_timer = PeriodicTimer(CLEANUP_INTERVAL)

    def run(self, stop: threading.Event) -> None:
        """Tick until `stop` is set, and wait for the database while it is unreachable.

        Raises `store.pooling.TransactionPooling` where the database's pooler gives no session.
        """
        has_sessions = False
        while not stop.is_set():
            try:
                if not has_sessions:
                    require_sessions(self._database.url)
                    has_sessions = True
                if self._leadership.try_acquire():
                    self.tick()
                else:
                    self._outage_detector.record_contact()
                self._heartbeat.beat_if_due()
                self._leadership.wait(self._settings.tick_seconds)
            except (DBAPIError, psycopg.Error) as error:
                log.warning("database.unreachable", error=str(getattr(error, "orig", error)).strip())
                self._leadership.resign()
                stop.wait(self._settings.tick_seconds)
        self.close()

    def close(self) -> None:
        """Resign as the leader and close every connection."""
        self._leadership.resign()
        self._webhooks.close()
        self._retention.close()
        self._intensity_poller.close()
        self._broker.close()
        try:
            self._heartbeat.deregister()
        except DBAPIError as error:
            log.warning("database.unreachable", error=str(getattr(error, "orig", error)).strip())
        self._database.dispose()

    @span("tick", only_with_events=True)
    def tick(self) -> None:
        """Run everything that is due now, once. A part that fails is logged, and the others run."""
        settings, database, now = self._settings, self._database, self._clock()
        with database.session() as session:
            workers = WorkerRepository(session).list_live(within=timedelta(seconds=settings.lease_seconds))
            fleet = Fleet(workers, self._bases)
            in_use = {*fleet.zones(), *JobRepository(session).open_zones()}
        self._webhooks.start_round()
        if self._poll_timer.due(now):
            self._intensity_poller.poll(in_use)
        if self._outage_detector.record_contact():
            self._run_part(lambda: reclaim_lost_jobs(database, settings, at=now))
        if self._broker.is_available():
            self._run_part(self._clear_lost_dispatches)
            self._run_part(self._request_model_measurement)
            self._run_part(lambda: kill_unresponsive_jobs(database, self._broker, settings, at=now))
            self._run_part(lambda: dispatch_new_jobs(database, self._broker, settings, at=now))
            self._run_part(lambda: dispatch_token_counts(database, self._broker, settings, at=now))
        self._wait_for_intensity(now)
        self._run_part(lambda: pause_running_jobs(database, settings, at=now))
        self._run_part(lambda: release_deferred_jobs(database, fleet, settings, at=now))
        if self._broker.is_available():
            self._run_part(lambda: self._training.dispatch(fleet, at=now))
        if self._settlement_timer.due(now):
            self._run_part(lambda: settle_prices(database, settings, at=now))
            self._run_part(lambda: store_counterfactuals(database, settings, at=now))
        if self._cleanup_timer.due(now):
            self._run_part(lambda: delete_silent_processes(database))
            self._retention.start_round(at=now)

    def _run_part(self, part: Callable[[], None]) -> None:
        """Run one part of a tick and log its errors. Raises only `DBAPIError`: every part needs the database."""
        with isolate_errors("tick.failed"):
            try:
                part()
            except BrokerDown as error:
                log.warning("broker.unreachable", error=str(error))

    def _wait_for_intensity(self, now: datetime) -> None:
        """Wait for the running polls where a job depends on intensity: local sources answer at once."""
        redispatch_after = timedelta(seconds=self._settings.redispatch_seconds)
        with self._database.session() as session:
            queue = QueueRepository(session)
            needs_intensity = queue.has_grid_dependent_jobs(at=now, redispatch_after=redispatch_after)
        if needs_intensity:
            self._intensity_poller.wait_for_polls()

    def _clear_lost_dispatches(self) -> None:
        """Where the broker was emptied, clear every dispatch that no worker has taken up."""
        if self._broker.was_emptied():
            with self._database.session() as session:
                QueueRepository(session).clear_dispatch()
            self._broker.set_marker()
            self._models_requested = False
            log.info("broker.emptied")

    def _request_model_measurement(self) -> None:
        """Have the catalogue's models measured, once, so that submissions can be checked against their ρ floor."""
        if not self._models_requested:
            self._broker.send(MEASURE_MODELS_TASK, queue=PREPARE_QUEUE)
            self._models_requested = True
