"""What becomes of an attempt: its result is kept, or its job goes back to where it is wanted."""

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy.orm import Session

from greencore.clock import utc_now
from greencore.training.checkpoints.folder import DiskFull, fsync_path, is_disk_full
from greencore.training.run import TrainingResult
from runtime.catalogue import read_catalogue
from runtime.settings import Settings
from store.lifecycle import progress
from store.lifecycle.leases import lock_leased_job
from store.tables import Job
from worker.results.artifacts import hash_artifacts
from worker.results.model_card import FILE_NAME as CARD
from worker.results.model_card import write_model_card
from worker.training.leased_writer import LeasedWriter

log = structlog.get_logger()


def release_job(writer: LeasedWriter) -> None:
    """End an attempt that was stopped before its run was over."""
    status = writer.run_in_transaction(lambda session: progress.release_job(session, writer.lease, at=utc_now()))
    log.info("attempt.stopped", now=status)


def store_result(writer: LeasedWriter, settings: Settings, job: Job, result: TrainingResult) -> None:
    """Make an attempt's result the job's, which succeeds. Raises `LeaseLost`, and then touches no other's result."""
    assert result.artifact is not None
    written, destination = result.artifact, settings.job_dir(job.id) / "artifacts"
    evaluation = _evaluation(result)
    writer.run_in_transaction(lambda session: _write_card(session, writer, settings, written, evaluation))
    artifacts = hash_artifacts(job.id, written, at=utc_now())

    def succeed(session: Session) -> Job:
        # Locked, so that nobody takes the job while its result gets its name
        leased = lock_leased_job(session, writer.lease)
        if written.exists():  # unless it has it, from a try whose commit was not heard of
            if destination.exists():  # of an attempt that died, or of one that has won: then this raises
                lock_leased_job(session, writer.lease)
                shutil.rmtree(destination)
            written.rename(destination)
            fsync_path(destination.parent)
        progress.succeed(session, writer.lease, at=utc_now(), artifacts=artifacts, evaluation=evaluation)
        return leased

    done = writer.run_in_transaction(succeed)
    log.info("job.succeeded", energy_kwh=done.energy_kwh, emissions_gco2e=done.emissions_gco2e)


def _write_card(
    session: Session, writer: LeasedWriter, settings: Settings, folder: Path, evaluation: Mapping[str, Any]
) -> None:
    """Written once the meter is closed, so that the card holds all of the energy, and before the files are hashed."""
    job = lock_leased_job(session, writer.lease)
    entry = read_catalogue(settings.catalogue).get(job.model)
    try:
        write_model_card(session, job, folder, entry=entry, evaluation=evaluation, at=utc_now())
        fsync_path(folder / CARD)
    except OSError as error:
        if is_disk_full(error):
            raise DiskFull(f"there is no room for the model card: {error}") from error
        raise


def _evaluation(result: TrainingResult) -> dict[str, Any]:
    """The part of a result that is stored with the job."""
    found: dict[str, Any] = {}
    if result.sample:
        found["sample"] = asdict(result.sample)
    if result.before and result.after:
        found["rows"] = result.after.rows
        found["eval_loss"] = {"before": result.before.loss, "after": result.after.loss}
        found["held_out_duplicates"] = result.held_out_duplicates
        found["rouge"] = {"before": result.before.rouge, "after": result.after.rouge}
    return found
