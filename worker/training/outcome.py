"""Stores the result of an attempt: its files, their hashes and the model card."""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy.orm import Session

from greencore.clock import utc_now
from greencore.disk import DiskFull, fsync_path, is_disk_full
from greencore.training.data.tokenisation import MAX_NAMED_LINES
from greencore.training.run import TrainingResult
from runtime.catalogue import read_catalogue
from runtime.settings import Settings
from store.lifecycle import progress
from store.lifecycle.leases import lock_leased_job
from store.tables import Artifact, Job
from worker.training.leased_writer import LeasedWriter
from worker.training.model_card import FILE_NAME as CARD
from worker.training.model_card import write_model_card

log = structlog.get_logger()


def store_result(writer: LeasedWriter, settings: Settings, job: Job, result: TrainingResult) -> None:
    """Publish an attempt's result as the job's, and mark the job succeeded. Raises `LeaseLost` before any change."""
    assert result.artifact is not None
    written, destination = result.artifact, settings.job_dir(job.id) / "artifacts"
    evaluation = _evaluation(result)
    writer.run_in_transaction(
        lambda session: _write_card(session, writer, settings, written, evaluation, result.stopped_early)
    )
    artifacts = hash_artifacts(job.id, written, at=utc_now())

    def succeed(session: Session) -> Job:
        # Locked, so that no other attempt claims the job while the result is renamed.
        leased = lock_leased_job(session, writer.lease)
        if written.exists():  # unless an earlier try, whose commit was not confirmed, has renamed it
            if destination.exists():  # of a lost attempt; or of one that succeeded, and then this raises
                lock_leased_job(session, writer.lease)
                shutil.rmtree(destination)
            written.rename(destination)
            fsync_path(destination.parent)
        progress.succeed(
            session,
            writer.lease,
            at=utc_now(),
            artifacts=artifacts,
            evaluation=evaluation,
            reason=result.stopped_early,
        )
        return leased

    done = writer.run_in_transaction(succeed)
    log.info("job.succeeded", energy_kwh=done.energy_kwh, emissions_gco2e=done.emissions_gco2e)


def hash_artifacts(job_id: str, folder: Path, *, at: datetime) -> Sequence[Artifact]:
    """Return name (path below `folder`), size and SHA-256 of every file; links are left out."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
    return [_hash_artifact(job_id, path, path.relative_to(folder).as_posix(), at) for path in files]


def _hash_artifact(job_id: str, path: Path, name: str, at: datetime) -> Artifact:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Artifact(job_id=job_id, name=name, bytes=path.stat().st_size, sha256=digest, created_at=at)


def _write_card(
    session: Session,
    writer: LeasedWriter,
    settings: Settings,
    folder: Path,
    evaluation: Mapping[str, Any],
    stopped_early: str | None,
) -> None:
    """Write the model card: after the meter is closed, for the total energy, and before the files are hashed."""
    job = lock_leased_job(session, writer.lease)
    entry = read_catalogue(settings.catalogue).get(job.model)
    try:
        write_model_card(
            session, job, folder, entry=entry, evaluation=evaluation, stopped_early=stopped_early, at=utc_now()
        )
        fsync_path(folder / CARD)
    except OSError as error:
        if is_disk_full(error):
            raise DiskFull(f"there is no room for the model card: {error}") from error
        raise


def _evaluation(result: TrainingResult) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if result.sample:
        found["sample"] = asdict(result.sample)
    if result.dropped_lines:
        found["dropped_rows"] = len(result.dropped_lines)
        found["dropped_lines"] = list(result.dropped_lines[:MAX_NAMED_LINES])
    if result.before and result.after:
        found["rows"] = result.after.rows
        found["step"] = result.step
        found["token_accuracy"] = {"before": result.before.accuracy, "after": result.after.accuracy}
        found["eval_loss"] = {"before": result.before.loss, "after": result.after.loss}
        found["held_out_duplicates"] = result.held_out_duplicates
        found["rouge"] = {"before": result.before.rouge, "after": result.after.rouge}
    return found
