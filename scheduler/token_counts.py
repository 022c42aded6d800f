"""Sends datasets whose tokens somebody wants counted to a prepare worker."""

from datetime import datetime

import structlog
from kombu.exceptions import OperationalError as BrokerDown

from runtime.settings import Settings
from scheduler.broker import Broker
from scheduler.prepare_dispatch import prepare_timeout
from store.database import Database
from store.repositories.token_statistics import REQUEST_LIFETIME, TokenStatisticsRepository
from worker.app import COUNT_TOKENS_TASK, PREPARE_QUEUE

log = structlog.get_logger()


def dispatch_token_counts(database: Database, broker: Broker, settings: Settings, *, at: datetime) -> None:
    """Send what has not been sent, and once more what was sent long ago and came to nothing."""
    overdue = at - prepare_timeout(settings)
    with database.session() as session:
        for wanted in TokenStatisticsRepository(session).lock_undispatched(
            sent_before=overdue, asked_since=at - REQUEST_LIFETIME
        ):
            try:
                broker.send(COUNT_TOKENS_TASK, wanted.dataset_id, wanted.model, queue=PREPARE_QUEUE)
            except BrokerDown as error:
                log.warning("broker.unreachable", dataset=wanted.dataset_id, error=str(error))
                return
            wanted.dispatched_at = at
            log.info("token_counts.dispatched", dataset=wanted.dataset_id, model=wanted.model)
