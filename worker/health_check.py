"""Health check of a container: `python -m worker.health_check` fails unless the worker is alive."""

import socket
import sys
from datetime import timedelta

from kombu.exceptions import OperationalError as BrokerDown
from redis.exceptions import RedisError
from sqlalchemy.exc import DBAPIError

from runtime.message_broker import describe_refusal
from runtime.settings import Settings, get_settings
from store.database import Database
from store.repositories.workers import WorkerRepository
from worker.app import make_app, translate_redis_errors

PING_TIMEOUT_SECONDS = 5.0
STATEMENT_TIMEOUT_SECONDS = 5.0


def find_problem(settings: Settings) -> str | None:
    """Return a description of the problem, or None where a worker of this machine answers over the broker, and each
    that does has sent a heartbeat within a lease's time.

    Celery nodes are named by role, worker id and host: `train-worker_…@host`.
    """
    celery = make_app(settings)
    try:
        with translate_redis_errors():
            replies = celery.control.broadcast(
                "ping",
                reply=True,
                timeout=PING_TIMEOUT_SECONDS,
                limit=1,
                pattern=f"*@{socket.gethostname()}",
                matcher="glob",
            )
    except BrokerDown as error:
        cause = error.__cause__
        return f"Redis {describe_refusal(cause) if isinstance(cause, RedisError) else 'does not answer'}: {error}"
    nodes = [node.partition("@")[0] for reply in replies or () for node in reply]
    if not nodes:
        return f"no worker of {socket.gethostname()} answers within {PING_TIMEOUT_SECONDS:g} s"
    return _find_silent_workers(settings, [node.partition("-")[2] for node in nodes])


def _find_silent_workers(settings: Settings, worker_ids: list[str]) -> str | None:
    database = Database(settings.database_url, statement_timeout_seconds=STATEMENT_TIMEOUT_SECONDS)
    within = timedelta(seconds=settings.lease_seconds)
    try:
        with database, database.session() as session:
            workers = WorkerRepository(session)
            seen = {
                worker.id for role in ("train", "prepare") for worker in workers.list_live(within=within, role=role)
            }
    except DBAPIError as error:
        return f"the database does not answer: {error.orig}"
    silent = sorted(set(worker_ids) - seen)
    return f"the database has not seen {', '.join(silent)} for {within.total_seconds():g} s" if silent else None


if __name__ == "__main__":
    sys.exit(find_problem(get_settings()))
