"""Health check of a container: `python -m scheduler.health_check` fails unless the scheduler ticks."""

import sys
from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from runtime.settings import Settings, get_settings
from store.database import Database
from store.repositories.workers import WorkerRepository

# A scheduler queries its lock at every tick. Its worker id is not known outside it, so its connections are found by the
# client address that they share with this process.
COUNT_RECENT_LOCAL_CONNECTIONS = text("""
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
      AND client_addr IS NOT DISTINCT FROM inet_client_addr()
      AND state_change > clock_timestamp() - make_interval(secs => :seconds)
""")
STATEMENT_TIMEOUT_SECONDS = 5.0


def find_problem(settings: Settings) -> str | None:
    """Return a description of the problem, or None where, within a lease's time, a scheduler has sent a heartbeat
    and this machine has queried the database.

    Schedulers that share one address cannot be distinguished: give each its own, as containers have.
    """
    database = Database(settings.database_url, statement_timeout_seconds=STATEMENT_TIMEOUT_SECONDS)
    seconds = settings.lease_seconds
    try:
        with database, database.session() as session:
            if not WorkerRepository(session).list_live(within=timedelta(seconds=seconds), role="scheduler"):
                return f"no scheduler has sent a heartbeat for {seconds:g} s"
            if not session.scalar(COUNT_RECENT_LOCAL_CONNECTIONS, {"seconds": seconds}):
                return f"the database has received no query from this machine for {seconds:g} s"
    except DBAPIError as error:
        return f"the database does not answer: {error.orig}"
    return None


if __name__ == "__main__":
    sys.exit(find_problem(get_settings()))
