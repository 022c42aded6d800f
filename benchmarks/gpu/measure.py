"""Measures the cells of a part one after the other, and writes a line of JSON for each as it ends."""

import gc
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, cast
from unittest import mock

import torch
import transformers
from transformers import PreTrainedModel

from benchmarks.gpu.gauges import Gauge
from benchmarks.gpu.kernels import build_model
from benchmarks.gpu.predictions import Predictions, build_hyperparameters
from benchmarks.gpu.requirements import explain_missing_kernels
from benchmarks.gpu.scales import FULL, LEARNED_SHARE, Cell, Part, Scale
from benchmarks.gpu.step_windows import StepWindows
from benchmarks.training.peak_memory import build_trainer
from greencore.backprop import Profile, profile
from greencore.device import PeakMemory
from greencore.training.batches.batch_shapes import measure_batch_shapes
from greencore.training.batches.learned_positions import LearnedPositionsCollator
from greencore.training.batches.micro_batches import HalvedMicroBatch, StepTooLarge, is_out_of_memory
from greencore.training.data.tokenisation import IGNORED_LABEL, Collator, Example
from greencore.training.methods import step_costs
from greencore.training.methods.adapters import with_adapter
from greencore.training.methods.callback import GreenTrainerCallback, build_callback
from greencore.training.methods.step_costs import StepCosts
from greencore.training.models.loading import enable_gradient_checkpointing

OPENING_SECONDS = 5.0  # that a cell takes, until one has been measured

LONGEST_REASON = 200  # characters of an error's message

Row = dict[str, Any]


class CellSkipped(Exception):
    """A cell cannot be measured here; the message says why."""


def measure_part(scale: Scale, part: Part, device: torch.device, *, file: Path, until: float) -> None:
    """Measure a part's cells before `until` (of `time.monotonic`), and append a line of JSON for each to the file.

    It holds what was measured, or under "skipped" the reason why nothing was.
    """
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    gauge, needed = Gauge(device), OPENING_SECONDS
    predicted = part.cells if part.predicts_memory else ()
    with (
        Predictions(predicted, processes=scale.processes) as predictions,
        share_traces(),
    ):
        for cell in part.cells:
            started = time.monotonic()
            if started + needed > until:
                row: Row = {"skipped": "the time was spent"}
            else:
                measure = partial(
                    measure_cell,
                    cell,
                    gauge,
                    predictions if part.predicts_memory else None,
                    seconds=min(scale.cell_seconds, until - time.monotonic()),
                )
                row = _measure_or_explain(measure)
                needed = time.monotonic() - started  # by the next, about
            row = {"cell": cell.name, "part": part.name, "no energy": gauge.no_energy, **row}
            with file.open("a") as lines:
                lines.write(json.dumps(row, ensure_ascii=False) + "\n")
            took = f"{row['s per step']:.3g} s a step" if "s per step" in row else f"skipped: {row['skipped']}"
            print(f"{cell.name}: {took}", flush=True)


def measure_cell(cell: Cell, gauge: Gauge, predictions: Predictions | None, *, seconds: float) -> Row:
    """Measure a cell's steps for at most so many seconds. Raises `CellSkipped`, or what a run raises."""
    if (fault := explain_missing_kernels(cell.kernels, cuda=gauge.device.type == "cuda")) is not None:
        raise CellSkipped(fault)
    gc.collect()  # of the last cell's trainer, whose parts refer to each other
    predicted, recomputed = None, False
    if predictions is not None:
        recomputed = not _fits(predictions.get(_as_full(cell), recomputed=False), gauge)
        predicted = predictions.get(cell, recomputed=recomputed)
        if not _fits(predicted, gauge):
            assert predicted is not None
            raise CellSkipped(f"it needs {predicted.peak / 2**30:.1f} GiB of {_free_gib(gauge):.1f} by the prediction")
    transformers.set_seed(0)
    model = build_model(cell, gauge.device)
    if recomputed:
        enable_gradient_checkpointing(model)
    if cell.arm.method == "lora":
        model = cast(PreTrainedModel, with_adapter("lora", model))
    settings = build_hyperparameters(cell.batch, recomputed=recomputed)
    windows = StepWindows(gauge, seconds=seconds)
    callback = build_callback(cell.arm.method, cell.arm.rho, settings.adaptive, keep_whole=False)
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(
            model,
            settings,
            Path(folder),
            make_examples(cell),
            [windows, callback],
            LearnedPositionsCollator(Collator(0)),
            on_halved=_refuse_smaller_batch,
        )
        peak = gauge.measure_peak(model, trainer.train)
    if windows.seconds_per_step is None:
        raise CellSkipped(f"no step ended within {seconds:.0f} s")
    report = callback.epochs[-1]
    return {
        "model": cell.model.name,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "tokens": cell.batch.tokens,
        "rows": cell.batch.rows,
        "kernels": cell.kernels,
        "arm": cell.arm.name,
        "rho": cell.arm.rho,
        "recomputed": recomputed,
        "share": report.share,
        "tensors": len(report.tensors),
        "TFLOP/s": report.flops / windows.epoch_steps / windows.seconds_per_step / 1e12,
        "steps": windows.steps,
        "s per step": windows.seconds_per_step,
        "J per step": windows.joules_per_step,
        "peak GiB": peak / 2**30,
        "predicted GiB": None if predicted is None else predicted.peak / 2**30,
        "prediction": None if predicted is None else asdict(predicted),
        "tracing s": windows.tracing_seconds,
        "probe s": windows.probe_seconds if isinstance(callback, GreenTrainerCallback) else None,
        "selection s": _time_selection(trainer, report.importance, cell) if report.importance else None,
        "windows": [asdict(window) for window in (*windows.firsts, *windows.others)],
    }


def make_examples(cell: Cell) -> list[Example]:
    """Make the rows of an epoch: random tokens, of which the last are learned."""
    batch, draw = cell.batch, torch.Generator().manual_seed(1)
    asked = batch.tokens - batch.tokens // LEARNED_SHARE
    ids = torch.randint(cell.model.vocabulary, (batch.rows * batch.steps, batch.tokens), generator=draw).tolist()
    return [Example(tuple(row), (IGNORED_LABEL,) * asked + tuple(row[asked:])) for row in ids]


@contextmanager
def share_traces() -> Iterator[None]:
    """Trace the steps of equal models once within the context: a trace takes as long as many steps."""
    known: dict[Any, Profile] = {}

    def profile_once(model: torch.nn.Module, batch: Mapping[str, torch.Tensor], *, names: Any = None) -> Profile:
        key = (
            type(model),
            any(getattr(module, "gradient_checkpointing", False) for module in model.modules()),
            tuple((name, tensor.shape) for name, tensor in (*model.named_parameters(), *batch.items())),
            None if names is None else frozenset(names),
        )
        if key not in known:
            known[key] = profile(model, batch, names=names)
        return known[key]

    with mock.patch.object(step_costs, "profile", profile_once):
        yield


def _time_selection(trainer: Any, importance: Mapping[str, float], cell: Cell) -> float:
    """Return the seconds of a selection, of costs that were traced before."""
    shapes = measure_batch_shapes(
        trainer.get_train_dataloader(), batch_size=cell.batch.rows, encoder=False, longest_of_stream=cell.batch.tokens
    )
    costs = StepCosts(trainer.model, shapes, names=[name for name, _ in trainer.model.named_parameters()])
    started = time.perf_counter()
    costs.select(importance, cell.arm.rho)
    return time.perf_counter() - started


def _measure_or_explain(measure: Callable[[], Row]) -> Row:
    """Return what `measure` returns, or why it failed: another cell may be measured all the same."""
    try:
        return measure()
    except CellSkipped as skipped:
        reason = str(skipped)
    except Exception as error:  # noqa: BLE001  (whatever a library or a driver raises is a line of the report)
        first_line = (str(error) or repr(error)).splitlines()[0][:LONGEST_REASON]
        reason = "out of memory" if _is_out_of_memory(error) else f"{type(error).__name__}: {first_line}"
    return {"skipped": reason}


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, StepTooLarge) or is_out_of_memory(error)


def _refuse_smaller_batch(halved: HalvedMicroBatch) -> None:
    raise StepTooLarge(f"{halved.before} rows do not fit")


def _as_full(cell: Cell) -> Cell:
    return Cell(cell.model, cell.batch, FULL, cell.kernels)


def _fits(predicted: PeakMemory | None, gauge: Gauge) -> bool:
    free = gauge.free_bytes
    return predicted is None or free is None or predicted.peak <= free


def _free_gib(gauge: Gauge) -> float:
    return (gauge.free_bytes or 0) / 2**30
