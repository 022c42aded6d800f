"""The scheduler's own sign of life, and what is forgotten of processes that give none."""

from datetime import timedelta

from greencore.clock import utc_now
from runtime.ids import new_id
from runtime.settings import Settings
from scheduler.periodic_timer import PeriodicTimer
from store.database import Database
from store.repositories.workers import WorkerRepository

# Until then an operator sees who has fallen silent.
SILENT_PROCESS_RETENTION = timedelta(days=1)


class SchedulerHeartbeat:
    """This scheduler's row among the workers, whether it leads or not."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.id = new_id("scheduler")
        self._database = database
        self._timer = PeriodicTimer(timedelta(seconds=settings.heartbeat_seconds))

    def beat_if_due(self) -> None:
        """Tell that this scheduler is alive, where it is time."""
        if self._timer.due(utc_now()):
            with self._database.session() as session:
                WorkerRepository(session).record_heartbeat(self.id, role="scheduler")

    def deregister(self) -> None:
        """Take the row away: an orderly end."""
        with self._database.session() as session:
            WorkerRepository(session).remove(self.id)


def delete_silent_processes(database: Database) -> None:
    """Delete the rows of processes that nobody has heard of for a day."""
    with database.session() as session:
        WorkerRepository(session).delete_silent(silent_for=SILENT_PROCESS_RETENTION)
