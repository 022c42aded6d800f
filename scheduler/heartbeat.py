"""The scheduler's heartbeat, the timers of its tick, and the deletion of silent processes."""

from datetime import datetime, timedelta

from greencore.clock import utc_now
from runtime.ids import new_id
from runtime.settings import Settings
from store.database import Database
from store.repositories.workers import WorkerRepository

# For this long an operator sees which processes fell silent.
SILENT_PROCESS_RETENTION = timedelta(days=1)


class PeriodicTimer:
    """A timer that is due at once, then every `every`, and after the clock was set back."""

    def __init__(self, every: timedelta) -> None:
        self._every = every
        self._last: datetime | None = None

    def due(self, at: datetime) -> bool:
        """Whether the timer is due; if so, it restarts."""
        if self._last is not None and self._last <= at < self._last + self._every:
            return False
        self._last = at
        return True


class SchedulerHeartbeat:
    """Keeps this scheduler's row among the workers, whether it leads or not."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.id = new_id("scheduler")
        self._database = database
        self._timer = PeriodicTimer(timedelta(seconds=settings.heartbeat_seconds))

    def beat_if_due(self) -> None:
        """Record a heartbeat if one is due."""
        if self._timer.due(utc_now()):
            with self._database.session() as session:
                WorkerRepository(session).record_heartbeat(self.id, role="scheduler")

    def deregister(self) -> None:
        """Delete the row, at an orderly end."""
        with self._database.session() as session:
            WorkerRepository(session).remove(self.id)


def delete_silent_processes(database: Database) -> None:
    """Delete the rows of processes without a heartbeat for a day."""
    with database.session() as session:
        WorkerRepository(session).delete_silent(silent_for=SILENT_PROCESS_RETENTION)
