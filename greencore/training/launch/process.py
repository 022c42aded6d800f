"""One process of a run in several, as `greencore.agents.agent` starts it."""

import logging
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from greencore.agents.inbox import KEY_VARIABLE, connect
from greencore.disk import DiskFull
from greencore.training.checkpoints.folder import CheckpointFolder
from greencore.training.launch.messages import Answer, Call, Ended, Failed, Started, Target
from greencore.training.listener import TrainingListener
from greencore.training.processes import get_rank, is_lost_contact, join_processes, leave_processes, pack_error
from greencore.training.run import fine_tune

log = logging.getLogger(__name__)


def main() -> None:
    """Train this process's part of the run, and report its end; ends at once where the process that asked is gone."""
    with suppress(OSError):  # the name that `ps` and `top` show
        Path("/proc/self/comm").write_text(f"greentune-{os.environ['RANK']}")
    with connect(os.environ) as connection:
        del os.environ[KEY_VARIABLE]
        caller = _Caller(connection)
        connection.send(Started(int(os.environ["RANK"])))
        try:
            join_processes()
            result = _train(caller, caller.receive())
        except Exception as error:
            log.exception("a process of the run failed")
            connection.send(Failed(pack_error(error), is_lost_contact(error)))
            os._exit(1)  # the others may hold what an orderly end would wait for
        connection.send(Ended(result if get_rank() == 0 else None))
        caller.receive()  # the run is over for all
        leave_processes()


class _Caller:
    """Calls what the starting process keeps; a thread reads the answers, and ends this process once that one is
    gone."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._inbox = connection, SimpleQueue[Any]()
        threading.Thread(target=self._read, name="answers", daemon=True).start()

    def receive(self) -> Any:
        """Return the next value that the starting process sends."""
        return self._inbox.get()

    def call(self, target: Target, method: str, *positional: Any, **named: Any) -> Any:
        """Return what a method there returns. Where it raises, the starting process ends the run."""
        self._connection.send(Call(target, method, positional, named))
        answer = self.receive()
        assert isinstance(answer, Answer)
        return answer.value

    def _read(self) -> None:
        try:
            while (message := self._connection.recv()) is not None:
                self._inbox.put(message)
            self._inbox.put(None)  # the run is over
        except (EOFError, OSError):
            os._exit(1)  # without the process that holds the lease, nothing may be written


def _train(caller: _Caller, run: Mapping[str, Any]) -> Any:
    if get_rank() > 0:  # the first process decides and reports
        return fine_tune(**run, rho=lambda _: 1.0)
    return fine_tune(
        **run,
        rho=lambda epoch: float(caller.call("rho", "__call__", epoch)),
        listener=_CallingListener(caller),
        checkpoints=_CallingCheckpoints(run["folder"], caller),
    )


class _CallingListener(TrainingListener):
    """Passes every call on to the listener in the starting process."""

    def __init__(self, caller: _Caller) -> None:
        self._caller = caller

    def __getattribute__(self, name: str) -> Any:
        if name.startswith(("on_", "should_")):
            return lambda *positional, **named: self._caller.call("listener", name, *positional, **named)
        return super().__getattribute__(name)


class _CallingCheckpoints(CheckpointFolder):
    """Writes checkpoints here, and asks the starting process's which there are, and says which are complete."""

    def __init__(self, folder: Path, caller: _Caller) -> None:
        super().__init__(folder)
        self._caller = caller

    def find_newest(self) -> Path | None:
        found: Path | None = self._caller.call("checkpoints", "find_newest")
        return found

    def find_step(self, step: int) -> Path | None:
        found: Path | None = self._caller.call("checkpoints", "find_step", step)
        return found

    def checkpoint_name(self, step: int) -> str:
        return str(self._caller.call("checkpoints", "checkpoint_name", step))

    def on_checkpoint_complete(self, checkpoint: Path, step: int, epochs_done: int, *, kept_step: int | None) -> None:
        self._caller.call("checkpoints", "on_checkpoint_complete", checkpoint, step, epochs_done, kept_step=kept_step)

    def on_checkpoint_failed(self, step: int, error: DiskFull) -> None:
        self._caller.call("checkpoints", "on_checkpoint_failed", step, error)
