"""The scheduler's loop: one tick does everything that is due."""

import threading
from collections.abc import Callable
from datetime import datetime, timedelta

import psycopg
import structlog
from kombu.exceptions import OperationalError as BrokerDown
from sqlalchemy.exc import DBAPIError

from greencore.carbon import Basis
from greencore.clock import Clock, utc_now
from scheduler.broker import Broker
from scheduler.cadence import Cadence
from scheduler.dispatch import dispatch_new_jobs
from scheduler.gatekeeping import pause_running_jobs, release_deferred_jobs
from scheduler.grid_watch import GridWatch, open_sources
from scheduler.leadership import Leadership
from scheduler.placing import Fleet, live_workers
from scheduler.presence import Presence, forget_silent_processes
from scheduler.reclaim import Vigil, reclaim_lost_jobs, terminate_disobedient_jobs
from scheduler.retention import Retention
from scheduler.settle import account, settle_prices
from scheduler.token_counts import dispatch_token_counts
from scheduler.training_dispatch import TrainingDispatch
from scheduler.webhooks import WebhookDelivery
from store.database import Database
from store.jobs import JobRepository
from store.pooling import require_sessions
from store.queue import QueueRepository
from store.settings import Settings
from store.tracing import span
from worker.app import MEASURE_MODELS, PREPARE_QUEUE

log = structlog.get_logger()

SETTLE_EVERY = timedelta(seconds=5)
CLEAR_UP_EVERY = timedelta(hours=1)


class Scheduler:
    """Ticks whenever it is woken, and every `tick_seconds`; only the leader among several acts."""

    def __init__(self, settings: Settings, *, clock: Clock = utc_now) -> None:
        """Raises `greencore.carbon.CarbonError` where a zone's source cannot be opened, and
        `store.settings.SecretKeyMissing` where there is nothing to sign webhooks with."""
        self._settings, self._clock = settings, clock
        sources = open_sources(settings, clock=clock)
        self._bases = {zone: Basis(source.signal, source.emission_factors) for zone, source in sources.items()}
        self._database = Database(settings.database_url)
        self._watch = GridWatch(self._database, settings, sources, clock=clock)
        self._broker = Broker(settings)
        self._training = TrainingDispatch(self._database, self._broker, settings)
        self._retention = Retention(self._database, settings)
        self._webhooks = WebhookDelivery(self._database, settings)
        self._presence = Presence(self._database, settings)
        self._vigil = Vigil(settings.lease_seconds)
        patience = max(settings.lease_seconds, 3 * settings.tick_seconds)
        self._leadership = Leadership(self._database.url, patience_seconds=patience)
        self._models_asked_for = False
        self._refresh = Cadence(timedelta(seconds=settings.tick_seconds))
        self._settle, self._clear_up = Cadence(SETTLE_EVERY), Cadence(CLEAR_UP_EVERY)

    def run(self, stop: threading.Event) -> None:
        """Tick until `stop` is set. A database that is away is waited for: nothing is lost meanwhile.

        Raises `store.pooling.TransactionPooling` where no session of its own is to be had.
        """
        has_sessions = False
        while not stop.is_set():
            try:
                if not has_sessions:
                    require_sessions(self._database.url)
                    has_sessions = True
                if self._leadership.leads():
                    self.tick()
                else:
                    self._vigil.hear()
                self._presence.show()
                self._leadership.wait(self._settings.tick_seconds)
            except (DBAPIError, psycopg.Error) as error:
                log.warning("database.unreachable", error=str(getattr(error, "orig", error)).strip())
                self._leadership.resign()
                stop.wait(self._settings.tick_seconds)
        self.close()

    def close(self) -> None:
        """Give up the lead and every connection."""
        self._leadership.resign()
        self._webhooks.close()
        self._retention.close()
        self._watch.close()
        self._broker.close()
        try:
            self._presence.leave()
        except DBAPIError as error:
            log.warning("database.unreachable", error=str(getattr(error, "orig", error)).strip())
        self._database.dispose()

    def tick(self) -> None:
        """Everything that is due now, once. What fails is logged, and keeps nothing else from being done."""
        with span("tick", only_with_events=True):
            self._do_what_is_due()

    def _do_what_is_due(self) -> None:
        settings, database, now = self._settings, self._database, self._clock()
        with database.session() as session:
            fleet = Fleet(live_workers(session, settings), self._bases)
            in_use = {*fleet.zones(), *JobRepository(session).open_zones()}
        self._webhooks.begin()
        if self._refresh.due(now):
            self._watch.refresh(in_use)
        if self._vigil.hear():
            self._do(lambda: reclaim_lost_jobs(database, settings, at=now))
        if self._broker.answers():
            self._do(self._notice_lost_messages)
            self._do(self._ask_for_models)
            self._do(lambda: terminate_disobedient_jobs(database, self._broker, settings, at=now))
            self._do(lambda: dispatch_new_jobs(database, self._broker, settings, at=now))
            self._do(lambda: dispatch_token_counts(database, self._broker, settings, at=now))
        self._wait_for_the_grid(now)
        self._do(lambda: pause_running_jobs(database, settings, at=now))
        self._do(lambda: release_deferred_jobs(database, fleet, settings, at=now))
        if self._broker.answers():
            self._do(lambda: self._training.dispatch(fleet, at=now))
        if self._settle.due(now):
            self._do(lambda: settle_prices(database, settings, at=now))
            self._do(lambda: account(database, settings, at=now))
        if self._clear_up.due(now):
            self._do(lambda: forget_silent_processes(database))
            self._retention.begin(at=now)

    def _do(self, part: Callable[[], None]) -> None:
        """One part of a tick. Raises `DBAPIError` alone: without the database nothing else can be done either."""
        try:
            part()
        except BrokerDown as error:
            log.warning("broker.unreachable", error=str(error))
        except DBAPIError:
            raise
        except Exception as fault:  # no fault in one part may keep the others from being done
            log.exception("tick.failed", exc_info=fault)

    def _wait_for_the_grid(self, now: datetime) -> None:
        """Local sources answer at once, and no job that goes by the grid is to run past what they say."""
        sent_for = timedelta(seconds=self._settings.redispatch_seconds)
        with self._database.session() as session:
            concerned = QueueRepository(session).goes_by_the_grid(at=now, sent_for=sent_for)
        if concerned:
            self._watch.settle()

    def _notice_lost_messages(self) -> None:
        """Where the broker was emptied, take every message that nobody has taken up yet for lost."""
        if self._broker.was_emptied():
            with self._database.session() as session:
                QueueRepository(session).unsend()
            self._broker.mark()
            self._models_asked_for = False
            log.info("broker.emptied")

    def _ask_for_models(self) -> None:
        """Once, have the catalogue's models measured, so that submissions can be checked against their floor."""
        if not self._models_asked_for:
            self._broker.send(MEASURE_MODELS, queue=PREPARE_QUEUE)
            self._models_asked_for = True
