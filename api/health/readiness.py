"""Readiness checks of the service's parts: some the API needs to serve, the others jobs need to run."""

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from anyio import CapacityLimiter, Lock, create_task_group, move_on_after, to_thread
from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from api.metrics.service_figures import MetricsRepository
from migrations.upgrade import current_revision, expected_revision
from runtime.catalogue import CatalogueError, read_catalogue
from runtime.message_broker import connect_redis, describe_refusal, probe_write
from runtime.private_files import make_private_folder
from runtime.settings import Settings
from store.database import Database, describe_outage
from store.pooling import TransactionPooling, require_sessions
from store.repositories.workers import WorkerRepository

TIMEOUT_SECONDS = 2
# More frequent or concurrent probes get the last report again.
CACHE_SECONDS = 1.0
# Without one of these parts no job is scheduled at all.
NEEDED_BY_EVERY_JOB = frozenset({"scheduler", "prepare_worker"})

# Asked rather than tried, which would leave a dead row each time. A standby is read-only, too.
CAN_WRITE_QUERY = text(
    "SELECT current_setting('transaction_read_only') = 'off'"
    " AND has_table_privilege('jobs', 'INSERT') AND has_table_privilege('jobs', 'UPDATE')"
)

Faults = Mapping[str, str]


@dataclass(frozen=True)
class ReadinessReport:
    """Missing parts by name. `errors` keep this API from serving; `warnings` keep jobs waiting."""

    errors: Faults
    warnings: Faults


class Readiness:
    """Runs all checks concurrently, in little more than `TIMEOUT_SECONDS`.

    A missing worker or scheduler is no reason to take the API out of service: jobs are accepted, and wait. Nor is a
    full disk: all but uploads can be answered.
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database, self._settings = database, settings
        self._last: tuple[float, ReadinessReport] | None = None
        self._turn = Lock()
        self._has_sessions = False
        # Separate threads, so that a busy API is not taken for one that is down.
        self._threads = CapacityLimiter(8)

    async def report(self) -> ReadinessReport:
        """Return what is missing, as of at most `CACHE_SECONDS` ago."""
        async with self._turn:
            if self._last is None or time.monotonic() - self._last[0] > CACHE_SECONDS:
                self._last = time.monotonic(), await self._run_checks()
            return self._last[1]

    async def _run_checks(self) -> ReadinessReport:
        found: dict[str, Faults] = {}
        checks: Mapping[str, Callable[[], Faults]] = {
            "database": self._database_faults,
            "redis": self._redis_faults,
            "data_folder": self._folder_faults,
            "catalogue": self._catalogue_faults,
        }

        async def run_check(part: str, check: Callable[[], Faults]) -> None:
            found[part] = {part: f"does not answer within {TIMEOUT_SECONDS} s"}
            with move_on_after(TIMEOUT_SECONDS + 0.5):
                found[part] = await to_thread.run_sync(check, abandon_on_cancel=True, limiter=self._threads)

        async with create_task_group() as group:
            for part, check in checks.items():
                group.start_soon(run_check, part, check)
        faults = {name: fault for part in checks for name, fault in found[part].items()}
        needed = ("database", "redis")
        return ReadinessReport(
            errors={name: fault for name, fault in faults.items() if name in needed},
            warnings={name: fault for name, fault in faults.items() if name not in needed},
        )

    def _database_faults(self) -> Faults:
        try:
            if not self._has_sessions:
                require_sessions(self._database.url)
                self._has_sessions = True
            with self._database.session() as session:
                session.execute(text(f"SET LOCAL statement_timeout = '{TIMEOUT_SECONDS}s'"))
                revision = current_revision(session.connection())
                if revision != expected_revision():
                    needed = f"is at revision {revision or 'none'}, but {expected_revision()} is needed"
                    return {"database": f"{needed}: run the migrations"}
                if not session.scalar(CAN_WRITE_QUERY):
                    # The next check needs a new session: this one keeps the default that it began with.
                    session.invalidate()
                    self._database.dispose()
                    return {"database": "is read-only at present, or lets this service write nothing: jobs are refused"}
                workers, faults = WorkerRepository(session), {}
                within = timedelta(seconds=self._settings.lease_seconds)
                if not workers.list_live(within=within, role="scheduler"):
                    faults["scheduler"] = "none is alive: jobs are accepted, but wait"
                if not workers.list_live(within=within, role="prepare"):
                    faults["prepare_worker"] = "none is alive: new jobs are not validated"
                unserved = MetricsRepository(session).unserved_zones(lease_seconds=self._settings.lease_seconds)
                if unserved:
                    waiting = ", ".join(f"{count} in {zone or 'any zone'}" for zone, count in unserved.items())
                    faults["training_worker"] = f"none is alive where jobs are queued: {waiting}"
                return faults
        except TransactionPooling:
            return {"database": "is behind a connection pooler in transaction mode: see the service's log"}
        except SQLAlchemyError as error:
            return {"database": f"{describe_outage(error)} ({type(error).__name__})"}

    def _redis_faults(self) -> Faults:
        client = connect_redis(self._settings.redis_url, timeout_seconds=TIMEOUT_SECONDS)
        try:
            probe_write(client)
        except RedisError as error:
            return {"redis": f"{describe_refusal(error)} ({type(error).__name__}): jobs are accepted, but wait"}
        finally:
            client.close()
        return {}

    def _folder_faults(self) -> Faults:
        folder = self._settings.data_dir
        try:
            make_private_folder(folder)
            with tempfile.TemporaryFile(dir=folder) as probe:
                probe.write(b"\0" * 4096)
                probe.flush()
        except OSError as error:
            return {"data_folder": f"cannot be written ({os.strerror(error.errno or 0)}): uploads are refused"}
        return {}

    def _catalogue_faults(self) -> Faults:
        try:
            entries = read_catalogue(self._settings.catalogue)
        except CatalogueError as error:
            return {"catalogue": f"cannot be read ({type(error).__name__}): new jobs fail"}
        return {} if entries else {"catalogue": "holds no model: every submission is refused"}
