"""Predicted peak memory of the kit's measurements, as a job's preparation predicts it, in processes beside them."""

import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.gpu.scales import LEARNED_SHARE, Batch, Cell
from greencore.device import PeakMemory
from greencore.settings.hyperparameters import Hyperparameters
from greencore.training.batches.batch_layout import BatchLayout
from greencore.training.batches.positions import PositionLimits
from greencore.training.run_memory import RunMemory

EPOCHS = 2
LONGEST_SECONDS = 60.0  # to wait for a prediction


def build_hyperparameters(batch: Batch, *, recomputed: bool) -> Hyperparameters:
    """Build the settings of a measurement's run."""
    return Hyperparameters(
        epochs=EPOCHS, batch_size=batch.rows, max_length=batch.tokens, gradient_checkpointing=recomputed
    )


def predict(cell: Cell, recomputed: bool) -> PeakMemory | None:
    """Predict the memory of a measurement's steps; None where it cannot be predicted."""
    batch = cell.batch
    with tempfile.TemporaryDirectory() as folder:
        cell.model.build_config().save_pretrained(folder)
        memory = RunMemory(
            folder=Path(folder),
            method=cell.arm.method,
            rho=cell.arm.rho,
            lengths=[(batch.tokens, batch.tokens // LEARNED_SHARE)] * batch.rows,
            limits=PositionLimits(),
            layout=BatchLayout(batch.rows, batch.rows, learned_only=True),
        )
        return memory.predict(build_hyperparameters(batch, recomputed=recomputed), "bf16")


class Predictions:
    """Predicts the memory of cells, each once. With `processes` those of `cells` are begun at once, side by side."""

    def __init__(self, cells: Sequence[Cell], *, processes: int) -> None:
        # A fork of a process that has used CUDA, or runs threads, is not safe.
        context = get_context("spawn")
        self._pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_hide_gpus) if processes else None
        self._begun: dict[tuple[str, bool], Future[PeakMemory | None]] = {}
        self._known: dict[tuple[str, bool], PeakMemory | None] = {}
        for cell in cells:
            self._begin(cell, recomputed=False)

    def get(self, cell: Cell, *, recomputed: bool) -> PeakMemory | None:
        """Return the memory of a cell's steps; None where it cannot be predicted."""
        key = (cell.name, recomputed)
        if key not in self._known:
            self._begin(cell, recomputed=recomputed)
            self._known[key] = self._await(self._begun[key]) if self._pool else predict(cell, recomputed)
        return self._known[key]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _begin(self, cell: Cell, *, recomputed: bool) -> None:
        key = (cell.name, recomputed)
        if self._pool and key not in self._begun:
            self._begun[key] = self._pool.submit(predict, cell, recomputed)

    def _await(self, begun: Future[PeakMemory | None]) -> PeakMemory | None:
        try:
            return begun.result(timeout=LONGEST_SECONDS)
        except (TimeoutError, BrokenExecutor) as error:
            print(f"the memory of a step is not predicted: {error!r}")
            return None


def _hide_gpus() -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
