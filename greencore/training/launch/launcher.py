"""Starts a run in several processes, and is the one to which they report: its listener and checkpoints stay here."""

import logging
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from queue import Empty
from types import TracebackType
from typing import Any, Self

from greencore.agents.agent import END_SECONDS, MEETING_SECONDS, end_agent, has_ended, start_agent
from greencore.agents.inbox import Inbox, send
from greencore.agents.machines import OtherMachines
from greencore.settings.hyperparameters import Hyperparameters
from greencore.training.batches.micro_batches import HalvedMicroBatch, StepTooLarge, is_out_of_memory
from greencore.training.checkpoints.folder import CheckpointFolder
from greencore.training.launch.messages import Answer, Call, Ended, Failed, Started, Target
from greencore.training.listener import TrainingListener
from greencore.training.methods.callback import RhoSchedule
from greencore.training.models.whole_groups import FILE_NAME as OUT_OF_MEMORY
from greencore.training.processes import unpack_error
from greencore.training.run import TrainingResult

log = logging.getLogger(__name__)

SILENCE_SECONDS = 3600.0
POLL_SECONDS = 0.2
# For the report of a process that another has lost contact with.
CONTACT_SECONDS = 5.0


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
    others: OtherMachines | None = None,
    **run: Any,
) -> TrainingResult:
    """Run `greencore.training.run.fine_tune` in several processes on this machine, each on a GPU where there are some.

    The model is sharded over them (FSDP2), and over as many on each of the `others`, which see the same files. All
    further arguments are those of `fine_tune`, and `run` has to be picklable. `rho`, `listener` and `checkpoints` are
    called in this process. Where a step does not fit into memory, the run is started once more from its newest
    checkpoint, with micro-batches of half the rows, or where those have one, with no tensors kept whole.

    Raises what `fine_tune` raises in the first process that fails, what `rho`, `listener` or `checkpoints` raise, and
    `ProcessesLost` where a process is killed, a machine does not join, or the first process says nothing for
    `silence_seconds`, which have to be more than it takes to load the model, to tokenise the rows, and to save the
    result. No process is left behind.
    """
    listener, checkpoints = listener or TrainingListener(), checkpoints or CheckpointFolder(folder)
    if "highest_rho" not in run and isinstance(rho, int | float):
        run["highest_rho"] = float(rho)
    targets: dict[Target, Any] = {
        "listener": listener,
        "checkpoints": checkpoints,
        "rho": rho if callable(rho) else lambda _: rho,
    }
    count = processes * (1 if others is None else 1 + others.count)
    may_keep_whole = not (folder / OUT_OF_MEMORY).exists()
    while True:
        task = {**run, "hyperparameters": hyperparameters, "folder": folder}
        try:
            with _Processes(processes, count, task, targets, silence_seconds, others) as started:
                return started.follow()
        except (RuntimeError, StepTooLarge) as error:
            if not (isinstance(error, StepTooLarge) or is_out_of_memory(error)):
                raise
            rows = min(hyperparameters.rows_at_once, -(-hyperparameters.batch_size // count))
            if rows == 1 and not may_keep_whole:
                raise
        may_keep_whole = False  # `allow_whole_groups`
        if rows > 1:
            halved = HalvedMicroBatch(rows, rows // 2)
            listener.on_micro_batch_halved(halved)
            hyperparameters = hyperparameters.model_copy(update={"micro_batch_size": halved.after})


class _Processes:
    """The processes of a run, from their start to their end; leaving the context kills those that are left."""

    def __init__(
        self,
        processes: int,
        count: int,
        task: Mapping[str, Any],
        targets: Mapping[Target, Any],
        silence_seconds: float,
        others: OtherMachines | None,
    ) -> None:
        self._processes, self._count, self._others = processes, count, others
        self._task, self._targets, self._silence_seconds = task, targets, silence_seconds
        self._connections: dict[Connection, Started] = {}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="greentune-run-"))
            address = str(Path(folder) / "socket") if self._others is None else (self._others.address, 0)
            self._inbox = Inbox(address, connections=self._count)
            stack.callback(self._inbox.close)
            invitation = None if self._others is None else self._others.invite_to(self._inbox, self._processes)
            machines = None if invitation is None else invitation.of_first_machine()
            self._agent = start_agent(self._processes, folder, self._inbox.environment, machines)
            stack.callback(end_agent, self._agent)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def follow(self) -> TrainingResult:
        """Answer the processes' calls until they have ended, and return the run's result."""
        heard_at, result = time.monotonic(), None
        ended, cut_off = set[Connection](), set[Connection]()
        while len(ended) < self._count:
            agent_ended = has_ended(self._agent)
            try:
                connection, message = self._inbox.get(timeout=POLL_SECONDS)
            except Empty:
                silent = time.monotonic() - heard_at
                missing = self._count - len(self._connections)
                if self._connections and missing and silent > MEETING_SECONDS:
                    raise ProcessesLost(f"{missing} of {self._count} processes of the run have not started") from None
                if agent_ended and self._others is not None and not self._connections:
                    raise ProcessesLost("the machines of the run have not found each other") from None
                if agent_ended or (cut_off and silent > CONTACT_SECONDS):
                    raise ProcessesLost("the processes of the run ended before it was finished") from None
                if silent > self._silence_seconds:
                    raise ProcessesLost(f"the processes of the run have said nothing for {silent:.0f} s") from None
                continue
            heard_at = time.monotonic()
            if isinstance(message, Started):
                self._connections[connection] = message
                send(connection, self._task)
            elif isinstance(message, Call):
                if agent_ended:
                    raise ProcessesLost("torchrun's agent, which keeps the processes of the run, was killed")
                send(connection, Answer(self._answer(message)))
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
            send(connection, None)
        deadline = time.monotonic() + END_SECONDS
        while not has_ended(self._agent):
            if time.monotonic() > deadline:
                log.warning("the processes of a finished run did not end within %g s, and are killed", END_SECONDS)
                break
            time.sleep(POLL_SECONDS)
        assert isinstance(result, TrainingResult)
        return result

    def _answer(self, call: Call) -> Any:
        return getattr(self._targets[call.target], call.method)(*call.positional, **call.named)
