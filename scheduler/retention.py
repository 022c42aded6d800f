"""Removes expired results, checkpoints, abandoned files, idempotent responses, sessions and deliveries."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog
from sqlalchemy.exc import DBAPIError

from runtime.ids import new_id
from runtime.private_files import make_private_folder
from runtime.settings import Settings
from store.database import Database
from store.lifecycle.status import FINAL, JobStatus
from store.repositories.retention import RetentionRepository
from store.tables import Job

log = structlog.get_logger()

# A job that succeeded is not resumed; clients that read it as it ends still find its checkpoints.
CHECKPOINT_RETENTION_AFTER_SUCCESS = timedelta(hours=1)
ABANDONED_AFTER = timedelta(days=1)
DELIVERY_RETENTION = timedelta(days=30)
# An API process whose clock is behind still accepts a session that has expired here.
MAX_CLOCK_SKEW = timedelta(days=1)
FOLDER_BATCH_SIZE = 100
RESULT_FOLDER = "artifacts"


class RetentionCleaner:
    """Runs retention in one background thread, since removing files may take long."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database, self._settings = database, settings
        self._closed = False
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="retention")
        self._running: Future[None] | None = None

    def start_round(self, *, at: datetime) -> None:
        """Start removing everything that is due, unless the last round is still running."""
        if self._running is None or self._running.done():
            self._running = self._pool.submit(self._round, at)

    def close(self) -> None:
        """Stop after the current batch."""
        self._closed = True
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _round(self, at: datetime) -> None:
        try:
            remove_old_rows(self._database, self._settings, at=at)
            remove_abandoned_uploads(self._settings, at=at)
            remove_old_files(self._database, self._settings, at=at, stopped=lambda: self._closed)
        except (DBAPIError, OSError) as error:
            log.warning("retention.failed", error=str(error).strip())
        except Exception:  # the future's result is not read: without this the fault would be lost
            log.exception("retention.failed")


def remove_old_rows(database: Database, settings: Settings, *, at: datetime) -> None:
    """Delete idempotent responses after `idempotency_hours`, ended sessions, and deliveries a month after their end."""
    with database.session() as session:
        rows = RetentionRepository(session)
        rows.delete_idempotent_responses(before=at - timedelta(hours=settings.idempotency_hours))
        rows.delete_ended_sessions(before=at - MAX_CLOCK_SKEW)
        rows.delete_finished_deliveries(before=at - DELIVERY_RETENTION)


def remove_abandoned_uploads(settings: Settings, *, at: datetime) -> None:
    """Remove the files of uploads that were interrupted more than a day ago."""
    for pattern in ("*.part", "incoming/*"):
        for path in settings.datasets_dir.glob(pattern):
            if _modified_at(path) < at - ABANDONED_AFTER:
                _remove(path)
                log.info("upload.removed", file=path.name)


def remove_old_files(
    database: Database, settings: Settings, *, at: datetime, stopped: Callable[[], bool] = lambda: False
) -> None:
    """Remove expired results and checkpoints, and the folders of jobs that have no row.

    Folders on disk are compared with the rows, so that files that a crash left behind are found the next time.
    """
    jobs_dir, aside = settings.data_dir / "jobs", settings.data_dir / "removed"
    for left in _list_entries(aside):
        _remove(left)
    everything = list(_list_entries(jobs_dir))
    for begin in range(0, len(everything), FOLDER_BATCH_SIZE):
        if stopped():
            return
        folders = everything[begin : begin + FOLDER_BATCH_SIZE]
        with database.session() as session:
            rows, names = RetentionRepository(session), [folder.name for folder in folders]
            known, needed = rows.find_jobs(names), rows.find_needed_results(names)
        for folder in folders:
            job = known.get(folder.name)
            if job is None:
                # A job's row is written before its folder; the row of a new folder may be newer than the query.
                if folder.is_dir() and _modified_at(folder) < at - ABANDONED_AFTER:
                    _remove(_move_aside([folder], aside))
                    log.info("files.removed", job=folder.name, what=["job"])
            elif _list_expired(folder, job, settings, needed=job.id in needed, at=at):
                _remove_expired_files(database, settings, folder, aside, at=at)


def _list_expired(folder: Path, job: Job, settings: Settings, *, needed: bool, at: datetime) -> Sequence[Path]:
    """Return the entries of a job's folder whose retention time is over, but not a result that an open job needs."""
    if job.status not in FINAL or job.finished_at is None:
        return []
    age, succeeded = at - job.finished_at, job.status is JobStatus.SUCCEEDED
    result = job.files_removed_at is not None or _exceeds_days(age, settings.artifact_retention_days)
    result = result and not needed
    others = _exceeds_days(age, settings.checkpoint_retention_days)
    if succeeded:
        others = age > CHECKPOINT_RETENTION_AFTER_SUCCESS
    return [path for path in _list_entries(folder) if (result if succeeded and path.name == RESULT_FOLDER else others)]


def _remove_expired_files(database: Database, settings: Settings, folder: Path, aside: Path, *, at: datetime) -> None:
    """Move a job's expired files aside in the transaction that deletes their rows, then delete the files.

    The job is locked meanwhile, so that no retry starts on files that are being removed. After a crash in between,
    rows without files are found again with the folder, or by the reader that misses the files.
    """
    with database.session() as session:
        rows = RetentionRepository(session)
        job = rows.lock_ended(folder.name)
        # Found under the lock, for which a submission that names the job waits.
        needed = job is not None and job.id in rows.find_needed_results([job.id])
        due = [] if job is None else _list_expired(folder, job, settings, needed=needed, at=at)
        if job is None or not due:
            return
        what = {"result" if path.name == RESULT_FOLDER else "checkpoints" for path in due}
        if "checkpoints" in what:
            rows.delete_checkpoints(job.id)
        rows.record_removal(job, what, at=at)
        session.flush()
        removed = _move_aside(due, aside)
    _remove(removed)
    log.info("files.removed", job=folder.name, what=sorted(what))


def _exceeds_days(age: timedelta, days: float | None) -> bool:
    return days is not None and age > timedelta(days=days)


def _list_entries(folder: Path) -> Iterator[Path]:
    yield from sorted(folder.iterdir()) if folder.is_dir() else ()


def _move_aside(paths: Sequence[Path], aside: Path) -> Path:
    """Move these paths into a new folder below `aside`, on the same disk: at once, whatever their size."""
    folder = aside / new_id("removed")
    make_private_folder(folder)
    for path in paths:
        path.rename(folder / path.name)
    return folder


def _modified_at(path: Path) -> datetime:
    return datetime.fromtimestamp(path.lstat().st_mtime, UTC)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
