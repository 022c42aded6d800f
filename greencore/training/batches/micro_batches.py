"""Micro-batches: the rows of an optimiser step in parts that are computed one after the other, to bound memory."""

import gc
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from greencore.backprop.importance import fill_labels
from greencore.training.data.tokenisation import IGNORED_LABEL
from greencore.training.processes import count_processes, get_rank, sum_over_processes

Result = TypeVar("Result")
Collate = Callable[[Sequence[Any]], dict[str, Any]]

FILE_NAME = "micro_batch.json"  # of the size in a checkpoint

_log = logging.getLogger(__name__)


class StepTooLarge(MemoryError):
    """A step needs more memory than the device has, in halved micro-batches too; the message says what takes less."""


@dataclass(frozen=True)
class StepRows:
    """The rows of one optimiser step, not yet collated."""

    rows: Sequence[Any]


@dataclass(frozen=True)
class HalvedMicroBatch:
    """A micro-batch of `before` rows that did not fit into memory, and was halved to `after` rows."""

    before: int
    after: int


class MicroBatchCollator:
    """Collator of a Trainer whose batch is the rows of an optimiser step, computed `size` rows at a time.

    `collate` makes a batch of the rows of a micro-batch. The size may change during the run: `run_within_memory` halves
    it once, and calls `on_halved`.
    """

    def __init__(
        self, collate: Collate, size: int, *, on_halved: Callable[[HalvedMicroBatch], None] | None = None
    ) -> None:
        if size < 1:
            raise ValueError(f"a micro-batch has {size} rows: expected at least 1")
        self.size, self.collate, self._on_halved = size, collate, on_halved
        self._halved = False

    def __call__(self, rows: Sequence[Any]) -> StepRows:
        """Return the rows as they are: the size of a micro-batch may change until they are computed."""
        return StepRows(rows)

    def collate_micro_batches(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        """Collate this process's part of the rows of a step in micro-batches; the last may have fewer rows.

        All processes have equally many, since each waits for the others in every pass: one without enough rows has some
        in which nothing is learned.
        """
        processes = count_processes()
        own = rows[get_rank() :: processes]
        batches = [self.collate(own[start : start + self.size]) for start in range(0, len(own), self.size)]
        wanted = -(-len(rows[::processes]) // self.size)
        return batches + [
            dict(fill_labels(self.collate(rows[:1]), IGNORED_LABEL)) for _ in range(wanted - len(batches))
        ]

    def run_within_memory(self, compute: Callable[[], Result], *, undo: Callable[[], None] = lambda: None) -> Result:
        """Return what `compute` returns; where memory runs out, halve the micro-batch, `undo`, and call it once more.

        `compute` collates its rows itself. The random state is restored before it is repeated. Raises `StepTooLarge`
        where memory runs out and the micro-batch was halved before, or has a single row.
        """
        restore_random_state = _keep_random_state()
        try:
            return compute()
        except RuntimeError as error:  # torch.OutOfMemoryError is one
            if not is_out_of_memory(error):
                raise
            _log.warning("out of memory with a micro-batch of %d rows", self.size)
            failed = error.with_traceback(None)  # whose frames hold the step's tensors
        undo()
        self._halve(failed)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        restore_random_state()
        try:
            return compute()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise StepTooLarge(self._explain()) from error

    def save(self, folder: Path) -> None:
        """Write the size to a checkpoint, from which a run continues as it would have without a stop."""
        (folder / FILE_NAME).write_text(json.dumps({"size": self.size, "halved": self._halved}))

    def restore(self, checkpoint: Path) -> None:
        """Read the size from a checkpoint; one of an earlier version has none, and the size is kept.

        A smaller size, measured on the device that the run is resumed on, is kept too.
        """
        file = checkpoint / FILE_NAME
        if file.is_file():
            stored = json.loads(file.read_text())
            if int(stored["size"]) <= self.size:
                self.size, self._halved = int(stored["size"]), bool(stored["halved"])

    def _halve(self, error: BaseException) -> None:
        # the other processes wait in the pass that failed here
        if self._halved or self.size == 1 or count_processes() > 1:
            raise StepTooLarge(self._explain()) from error
        before, self.size, self._halved = self.size, self.size // 2, True
        if self._on_halved is not None:
            self._on_halved(HalvedMicroBatch(before, self.size))

    def _explain(self) -> str:
        if self.size == 1:
            return (
                "the device ran out of memory with a single row at a time: a smaller max_length, or a smaller model, "
                "takes less"
            )
        if count_processes() > 1:
            return f"a process's device ran out of memory: micro_batch_size {self.size // 2} or less takes less"
        return (
            f"the device ran out of memory with micro-batches of {self.size} rows, to which they had been halved: "
            f"micro_batch_size {self.size // 2} or less, or a smaller max_length, takes less"
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error reports that the memory of a GPU, or of the host for a tensor, is used up."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(error)


def collate_in_parts(dataloader: Any, rows: Sequence[Any]) -> list[dict[str, Any]]:
    """Collate the rows of a step as the dataloader's run computes them: in micro-batches, or as one batch."""
    collate = dataloader.collate_fn
    return collate.collate_micro_batches(rows) if isinstance(collate, MicroBatchCollator) else [collate(rows)]


def get_rows_computed_at_once(dataloader: Any, batch_size: int) -> int:
    """Return the rows of a micro-batch of a dataloader's run; without micro-batches those of a batch."""
    collate = dataloader.collate_fn
    return min(collate.size, batch_size) if isinstance(collate, MicroBatchCollator) else batch_size


def count_learned_tokens(batch: Mapping[str, Any], *, encoder: bool) -> int:
    """Count the tokens that a batch's loss is the mean of; a decoder-only model cannot predict the first of a row."""
    labels = batch["labels"]
    return int(((labels if encoder else labels[..., 1:]) != IGNORED_LABEL).sum())


def compute_shares(batches: Sequence[Mapping[str, Any]], *, encoder: bool, everywhere: bool = False) -> list[float]:
    """Compute the share of each micro-batch in the learned tokens of its step; `everywhere`, of all processes' batches.

    The step's mean token loss, and its gradient, are the sums of the micro-batches' weighted by them.
    """
    everywhere = everywhere and count_processes() > 1
    if len(batches) == 1 and not everywhere:
        return [1.0]
    counts = [count_learned_tokens(batch, encoder=encoder) for batch in batches]
    total = sum_over_processes([sum(counts)])[0] if everywhere else sum(counts)
    return [count / total if total else 1.0 / len(batches) for count in counts]


def _keep_random_state() -> Callable[[], None]:
    """Return a function that restores torch's present random state."""
    cpu = torch.get_rng_state()
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []

    def restore() -> None:
        torch.set_rng_state(cpu)
        if gpus:
            torch.cuda.set_rng_state_all(gpus)

    return restore
