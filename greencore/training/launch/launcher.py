"""Starts a run in several processes, and is the one to which they report: its listener and checkpoints stay here."""

import logging
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Self

import psutil

from greencore.settings.hyperparameters import Hyperparameters
from greencore.training.batches.micro_batches import HalvedMicroBatch, StepTooLarge, is_out_of_memory
from greencore.training.checkpoints.folder import CheckpointFolder
from greencore.training.launch.messages import (
    ADDRESS_VARIABLE,
    KEY_VARIABLE,
    Answer,
    Call,
    Ended,
    Failed,
    Started,
    Target,
)
from greencore.training.listener import TrainingListener
from greencore.training.methods.callback import RhoSchedule
from greencore.training.processes import unpack_error
from greencore.training.run import TrainingResult

log = logging.getLogger(__name__)

AGENT = "greencore.training.launch.agent"
SILENCE_SECONDS = 3600.0
POLL_SECONDS = 0.2
# For the report of a process that another has lost contact with.
CONTACT_SECONDS = 5.0
# For processes that have reported their end, until they are killed.
EXIT_SECONDS = 30.0


class ProcessesLost(RuntimeError):
    """A process of the run was killed, or none of them has said anything for too long: the run can be resumed."""


def fine_tune_in_processes(
    processes: int,
    *,
    hyperparameters: Hyperparameters,
    folder: Path,
    rho: RhoSchedule = 1.0,
    checkpoints: CheckpointFolder | None = None,
    listener: TrainingListener | None = None,
    silence_seconds: float = SILENCE_SECONDS,
    **run: Any,
) -> TrainingResult:
    """Run `greencore.training.run.fine_tune` in several processes on this machine, each on a GPU where there are some.

    The model is sharded over them (FSDP2). All arguments but `processes` are those of `fine_tune`, and `run` has to be
    picklable. `rho`, `listener` and `checkpoints` are called in this process. Where a step does not fit into memory,
    the run is started once more from its newest checkpoint with micro-batches of half the rows.

    Raises what `fine_tune` raises in the first process that fails, what `rho`, `listener` or `checkpoints` raise, and
    `ProcessesLost` where a process is killed, or the first one says nothing for `silence_seconds`, which have to be
    more than it takes to load the model, to tokenise the rows, and to save the result. No process is left behind.
    """
    listener, checkpoints = listener or TrainingListener(), checkpoints or CheckpointFolder(folder)
    if "highest_rho" not in run and isinstance(rho, int | float):
        run["highest_rho"] = float(rho)
    targets: dict[Target, Any] = {
        "listener": listener,
        "checkpoints": checkpoints,
        "rho": rho if callable(rho) else lambda _: rho,
    }
    while True:
        task = {**run, "hyperparameters": hyperparameters, "folder": folder}
        try:
            with _Processes(processes, task, targets, silence_seconds) as started:
                return started.follow()
        except (RuntimeError, StepTooLarge) as error:
            if not (isinstance(error, StepTooLarge) or is_out_of_memory(error)):
                raise
            rows = min(hyperparameters.rows_at_once, -(-hyperparameters.batch_size // processes))
            if rows == 1:
                raise
        halved = HalvedMicroBatch(rows, rows // 2)
        listener.on_micro_batch_halved(halved)
        hyperparameters = hyperparameters.model_copy(update={"micro_batch_size": halved.after})


class _Processes:
    """The processes of a run, from their start to their end; leaving the context kills those that are left."""

    def __init__(
        self, count: int, task: Mapping[str, Any], targets: Mapping[Target, Any], silence_seconds: float
    ) -> None:
        self._count, self._task, self._targets, self._silence_seconds = count, task, targets, silence_seconds
        self._inbox = SimpleQueue[tuple[Connection, Any]]()  # None where a connection has ended
        self._connections: dict[Connection, Started] = {}
        self._started = list[psutil.Process]()  # `torchrun` and its processes
        self._folder = tempfile.TemporaryDirectory(prefix="greentune-run-")

    def __enter__(self) -> Self:
        key, self._address = secrets.token_bytes(32), str(Path(self._folder.name) / "socket")
        self._listener = Listener(self._address, family="AF_UNIX", backlog=self._count, authkey=key)
        self._accepting = threading.Thread(target=self._accept, name="run-accept", daemon=True)
        self._accepting.start()
        threads = str(max(1, (os.cpu_count() or 1) // self._count))
        self._agent = subprocess.Popen(
            [sys.executable, "-m", AGENT, str(self._count), self._folder.name],
            env={"OMP_NUM_THREADS": threads, **os.environ, ADDRESS_VARIABLE: self._address, KEY_VARIABLE: key.hex()},
            start_new_session=True,  # signals to this process and its terminal are its own: it ends the others
        )
        self._started.append(psutil.Process(self._agent.pid))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kill()
        if self._accepting.is_alive():  # nothing else interrupts it
            with suppress(OSError), socket.socket(socket.AF_UNIX) as waker:
                waker.connect(self._address)
        self._accepting.join(EXIT_SECONDS)
        self._listener.close()
        for connection in self._connections:
            connection.close()
        self._folder.cleanup()

    def follow(self) -> TrainingResult:
        """Answer the processes' calls until they have ended, and return the run's result."""
        heard_at, result = time.monotonic(), None
        ended, cut_off = set[Connection](), set[Connection]()
        while len(ended) < self._count:
            agent_ended = self._agent.poll() is not None
            try:
                connection, message = self._inbox.get(timeout=POLL_SECONDS)
            except Empty:
                silent = time.monotonic() - heard_at
                if agent_ended or (cut_off and silent > CONTACT_SECONDS):
                    raise ProcessesLost("the processes of the run ended before it was finished") from None
                if silent > self._silence_seconds:
                    raise ProcessesLost(f"the processes of the run have said nothing for {silent:.0f} s") from None
                continue
            heard_at = time.monotonic()
            if isinstance(message, Started):
                self._connections[connection] = message
                with suppress(psutil.NoSuchProcess):
                    self._started.append(psutil.Process(message.pid))
                _send(connection, self._task)
            elif isinstance(message, Call):
                if agent_ended:
                    raise ProcessesLost("torchrun, which keeps the processes of the run, was killed")
                _send(connection, Answer(self._answer(message)))
                heard_at = time.monotonic()
            elif isinstance(message, Ended):
                ended.add(connection)
                result = message.result or result
            elif isinstance(message, Failed) and not message.lost_contact:
                raise unpack_error(message.error)
            elif isinstance(message, Failed):
                cut_off.add(connection)
            elif connection not in ended | cut_off:
                rank = self._connections[connection].rank if connection in self._connections else "unknown"
                raise ProcessesLost(f"process {rank} of the run was killed")
        for connection in self._connections:
            _send(connection, None)
        try:
            self._agent.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            log.warning("the processes of a finished run did not end within %g s, and are killed", EXIT_SECONDS)
        assert isinstance(result, TrainingResult)
        return result

    def _answer(self, call: Call) -> Any:
        return getattr(self._targets[call.target], call.method)(*call.positional, **call.named)

    def _accept(self) -> None:
        for _ in range(self._count):
            try:
                connection = self._listener.accept()
            except (OSError, EOFError, AuthenticationError):  # the run is over, or a process ended as it connected
                return
            threading.Thread(target=self._read, args=(connection,), name="run-read", daemon=True).start()

    def _read(self, connection: Connection) -> None:
        try:
            while True:
                self._inbox.put((connection, connection.recv()))
        except (EOFError, OSError):
            self._inbox.put((connection, None))

    def _kill(self) -> None:
        """Kill `torchrun` and its processes, also those that it has left behind."""
        found = list[psutil.Process]()
        for process in self._started:
            with suppress(psutil.NoSuchProcess):
                found += [process, *process.children(recursive=True)]
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._agent.wait()
        psutil.wait_procs(found, timeout=EXIT_SECONDS)


def _send(connection: Connection, message: Any) -> None:
    """Send a message; the end of a process that is not there to receive it is read from its connection."""
    with suppress(OSError):
        connection.send(message)
