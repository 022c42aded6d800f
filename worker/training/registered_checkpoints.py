"""The checkpoints of a job: an attempt goes on only from one that was registered under a lease."""

import shutil
from collections.abc import Callable
from pathlib import Path

import structlog
from sqlalchemy.orm import Session

from greencore.clock import utc_now
from greencore.training.checkpoints.folder import (
    CHECKPOINT_PREFIX,
    CheckpointDamaged,
    CheckpointFolder,
    DiskFull,
    find_latest_checkpoint,
    verify_checkpoint,
)
from store.lifecycle import checkpoints
from store.lifecycle.leases import LeaseLost
from worker.failure_reports import redact_message
from worker.training.leased_writer import LeasedWriter

log = structlog.get_logger()

# What an attempt leaves in the job's folder, under names of its own.
ATTEMPT_FILES = (f"{CHECKPOINT_PREFIX}*", f".{CHECKPOINT_PREFIX}*", "result-*", ".result-*", "artifacts", ".artifacts")


class RegisteredCheckpoints(CheckpointFolder):
    """The checkpoints of one attempt, named after it: a worker that lost its lease can touch none of another's.

    `before_register` is called before each is registered, with all that the checkpoint stands for still to be
    written down.
    """

    def __init__(self, folder: Path, writer: LeasedWriter, *, before_register: Callable[[], None]) -> None:
        super().__init__(folder)
        self._writer, self._before_register = writer, before_register

    def find_newest(self) -> Path | None:
        """The furthest that is whole. What no register holds is removed: attempts that died have left it."""
        job_id = self._writer.lease.job_id
        found, known = (
            None,
            self._writer.run_in_transaction(lambda session: checkpoints.list_job_checkpoints(session, job_id)),
        )
        kept = set()
        for row in known:
            path = self.folder / row.name
            try:
                verify_checkpoint(path)
            except CheckpointDamaged as damage:
                self._discard_damaged(row.name, damage)
            else:
                kept.add(row.name)
                found = found or path
        if not known and self._writer.lease.attempt > 1:
            found = find_latest_checkpoint(self.folder)  # of a time before there was a register
            kept |= {found.name} if found else set()
        self._remove_unregistered(kept)
        return found

    def checkpoint_name(self, step: int) -> str:
        return f"{super().checkpoint_name(step)}-{self._writer.lease.attempt}"

    def write_checkpoint(self, step: int, epochs_done: int, fill: Callable[[Path], None]) -> None:
        self._writer.check_lease()
        super().write_checkpoint(step, epochs_done, fill)

    def on_checkpoint_complete(self, checkpoint: Path, step: int, epochs_done: int) -> None:
        size_bytes = sum(file.stat().st_size for file in checkpoint.rglob("*") if file.is_file())

        def register(session: Session) -> None:
            checkpoints.register_checkpoint(
                session,
                self._writer.lease,
                name=checkpoint.name,
                step=step,
                epochs_done=epochs_done,
                size_bytes=size_bytes,
                at=utc_now(),
            )

        try:
            self._before_register()
            self._writer.run_in_transaction(register)
        except LeaseLost:
            shutil.rmtree(checkpoint, ignore_errors=True)
            raise
        job_id = self._writer.lease.job_id
        kept = {
            row.name
            for row in self._writer.run_in_transaction(
                lambda session: checkpoints.list_job_checkpoints(session, job_id)
            )
        }
        for path in self.folder.glob(f"{CHECKPOINT_PREFIX}*"):
            if path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)

    def on_checkpoint_failed(self, step: int, error: DiskFull) -> None:
        """The run goes on: the one before it is there still, and the next may find room."""
        log.warning("checkpoint.failed", step=step, error=str(error))
        lease = self._writer.lease
        self._writer.run_in_transaction(
            lambda session: checkpoints.record_checkpoint_failure(
                session, lease, step=step, reason=redact_message(error), at=utc_now()
            )
        )

    def _discard_damaged(self, name: str, damage: CheckpointDamaged) -> None:
        log.warning("checkpoint.damaged", checkpoint=name, reason=str(damage))
        reason = redact_message(damage)
        lease = self._writer.lease
        self._writer.run_in_transaction(
            lambda session: checkpoints.remove_damaged_checkpoint(
                session, lease, name=name, reason=reason, at=utc_now()
            )
        )

    def _remove_unregistered(self, kept: set[str]) -> None:
        self._writer.check_lease()
        for pattern in ATTEMPT_FILES:
            for path in self.folder.glob(pattern):
                if path.name not in kept:
                    shutil.rmtree(path, ignore_errors=True)
