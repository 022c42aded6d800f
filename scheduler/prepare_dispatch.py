"""Dispatches new jobs to the prepare workers, a few for each worker in fair order, and datasets to be counted."""

from collections import Counter
from datetime import datetime, timedelta

import structlog
from kombu.exceptions import OperationalError as BrokerDown

from runtime.settings import Settings
from runtime.tracing import add_event
from scheduler.broker import Broker
from store.database import Database
from store.lifecycle.queue import QueueRepository, fair_order
from store.lifecycle.status import JobStatus
from store.repositories.token_statistics import TokenStatisticsRepository
from store.repositories.workers import WorkerRepository
from worker.app import COUNT_TOKENS_TASK, PREPARE_QUEUE, PREPARE_TASK

log = structlog.get_logger()

# One in progress and one waiting, so that no worker idles.
MESSAGES_PER_PREPARE_WORKER = 2
# Preparing takes no lease; its timeout is this multiple of `redispatch_seconds`.
PREPARE_TIMEOUT_FACTOR = 4


def dispatch_new_jobs(database: Database, broker: Broker, settings: Settings, *, at: datetime) -> None:
    """Send jobs in validation to the prepare workers, again where they were not prepared in time."""
    redispatch_after = prepare_timeout(settings)
    with database.session() as session:
        queue = QueueRepository(session)
        if not queue.try_lock_dispatch():
            return
        workers = WorkerRepository(session).list_live(within=timedelta(seconds=settings.lease_seconds), role="prepare")
        sent = queue.list_dispatched(JobStatus.VALIDATING, at=at, redispatch_after=redispatch_after)
        free = MESSAGES_PER_PREPARE_WORKER * max(len(workers), 1) - len(sent)
        if free <= 0:
            return
        jobs_per_owner = Counter(job.owner for job in sent)
        messages: dict[str, tuple[str, str]] = {}
        for job in fair_order(
            queue.list_waiting(JobStatus.VALIDATING, at=at, redispatch_after=redispatch_after), jobs_per_owner
        ):
            if len(messages) == free:
                break
            row = queue.lock(job.id, JobStatus.VALIDATING)
            if row is not None:
                row.dispatched_at = at
                jobs_per_owner[job.owner] += 1
                messages[job.id] = (PREPARE_TASK, PREPARE_QUEUE)
    send_job_messages(database, broker, messages)


def dispatch_token_counts(database: Database, broker: Broker, settings: Settings, *, at: datetime) -> None:
    """Send requested token counts to the prepare workers, again where they were not stored in time."""
    with database.session() as session:
        statistics = TokenStatisticsRepository(session)
        for wanted in statistics.lock_undispatched(at=at, redispatch_after=prepare_timeout(settings)):
            try:
                key = (wanted.dataset_id, wanted.model, wanted.prompt_format, wanted.train_on)
                broker.send(COUNT_TOKENS_TASK, *key, queue=PREPARE_QUEUE)
            except BrokerDown as error:
                log.warning("broker.unreachable", dataset=wanted.dataset_id, error=str(error))
                return
            wanted.dispatched_at = at
            log.info("token_counts.dispatched", dataset=wanted.dataset_id, model=wanted.model)


def prepare_timeout(settings: Settings) -> timedelta:
    """Return the time after which a message to a prepare worker is sent again."""
    return timedelta(seconds=PREPARE_TIMEOUT_FACTOR * settings.redispatch_seconds)


def send_job_messages(database: Database, broker: Broker, messages: dict[str, tuple[str, str]]) -> None:
    """Send each job's message, given as (task, queue), after its row was committed as dispatched.

    In this order no worker finds the row locked and takes the message for a duplicate. A crash in between loses
    messages, which are sent again in time; where the broker is unreachable, their dispatch is cleared at once.
    """
    left = dict(messages)
    try:
        for job_id, (task, queue) in messages.items():
            broker.send(task, job_id, queue=queue)
            del left[job_id]
            add_event("job.dispatched", greentune__job=job_id)
            log.info("job.dispatched", job=job_id, queue=queue)
    except BrokerDown as error:
        log.warning("broker.unreachable", jobs=len(left), error=str(error))
        with database.session() as session:
            QueueRepository(session).clear_dispatch(*left)
