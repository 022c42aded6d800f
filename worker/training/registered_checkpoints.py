"""The checkpoints of a job: an attempt resumes only from one that was registered under a lease."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from greencore.clock import utc_now
from greencore.disk import DiskFull
from greencore.training.checkpoints.folder import (
    CHECKPOINT_PREFIX,
    CheckpointDamaged,
    CheckpointFolder,
    verify_checkpoint,
)
from store.lifecycle import checkpoints
from store.lifecycle.leases import LeaseLost, record_attempt_event
from store.tables import Checkpoint
from worker.failure_reports import redact_message
from worker.training.leased_writer import LeasedWriter

log = structlog.get_logger()

# Patterns of what an attempt leaves in the job's folder.
ATTEMPT_FILES = (f"{CHECKPOINT_PREFIX}*", f".{CHECKPOINT_PREFIX}*", "result-*", ".result-*", "artifacts", ".artifacts")


class RegisteredCheckpoints(CheckpointFolder):
    """The checkpoints of one attempt, named after it, so that a worker without its lease cannot touch another's.

    `before_register` is called before each registration, to store the progress that the checkpoint contains.
    """

    def __init__(self, folder: Path, writer: LeasedWriter, *, before_register: Callable[[], None]) -> None:
        super().__init__(folder)
        self._writer, self._before_register = writer, before_register

    def find_newest(self) -> Path | None:
        """Return the newest intact checkpoint, and remove unregistered files, which lost attempts have left."""
        found, known, kept = None, self._list_registered(), set()
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
            found = super().find_newest()  # written before checkpoints were registered
            kept |= {found.name} if found else set()
        self._writer.check_lease()
        self._remove_unregistered(kept, ATTEMPT_FILES)
        return found

    def checkpoint_name(self, step: int) -> str:
        return f"{super().checkpoint_name(step)}-{self._writer.lease.attempt}"

    def find_step(self, step: int) -> Path | None:
        """Return the newest intact checkpoint of a step."""
        for row in self._list_registered():
            if row.step == step:
                try:
                    verify_checkpoint(self.folder / row.name)
                except CheckpointDamaged as damage:
                    self._discard_damaged(row.name, damage)
                else:
                    return self.folder / row.name
        return None

    def write_checkpoint(
        self, step: int, epochs_done: int, fill: Callable[[Path], None], *, kept_step: int | None = None
    ) -> None:
        self._writer.check_lease()
        super().write_checkpoint(step, epochs_done, fill, kept_step=kept_step)

    def on_checkpoint_complete(self, checkpoint: Path, step: int, epochs_done: int, *, kept_step: int | None) -> None:
        size_bytes = sum(file.stat().st_size for file in checkpoint.rglob("*") if file.is_file())
        try:
            self._before_register()
            self._writer.write(
                checkpoints.register_checkpoint,
                name=checkpoint.name,
                step=step,
                epochs_done=epochs_done,
                size_bytes=size_bytes,
                kept_step=kept_step,
                at=utc_now(),
            )
        except LeaseLost:
            shutil.rmtree(checkpoint, ignore_errors=True)
            raise
        self._remove_unregistered({row.name for row in self._list_registered()}, (f"{CHECKPOINT_PREFIX}*",))

    def on_checkpoint_failed(self, step: int, error: DiskFull) -> None:
        """Record the failure; the run goes on, with the previous checkpoint."""
        log.warning("checkpoint.failed", step=step, error=str(error))
        self._writer.write(
            record_attempt_event, "checkpoint.failed", step=step, reason=redact_message(error), at=utc_now()
        )

    def _discard_damaged(self, name: str, damage: CheckpointDamaged) -> None:
        log.warning("checkpoint.damaged", checkpoint=name, reason=str(damage))
        self._writer.write(
            checkpoints.remove_damaged_checkpoint, name=name, reason=redact_message(damage), at=utc_now()
        )

    def _list_registered(self) -> Sequence[Checkpoint]:
        job_id = self._writer.lease.job_id
        return self._writer.run_in_transaction(lambda session: checkpoints.list_job_checkpoints(session, job_id))

    def _remove_unregistered(self, kept: set[str], patterns: Sequence[str]) -> None:
        for pattern in patterns:
            for path in self.folder.glob(pattern):
                if path.name not in kept:
                    shutil.rmtree(path, ignore_errors=True)
