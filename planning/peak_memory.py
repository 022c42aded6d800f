"""Memory of a job that does not exist yet, beside that of the live devices: what is certain, and what is predicted."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from greencore.device import Device, PeakMemory, RunPrecision, count_bytes_per_weight
from greencore.policy import Policy, parse_stored_policy
from greencore.settings.hyperparameters import Hyperparameters
from greencore.settings.method_settings import AdaptiveSettings
from planning.compute_costs import PAD_TO_MULTIPLE, ROW_PARAMETERS, find_token_counts
from planning.live_devices import GIGABYTE, computes_attention, find_largest_device, get_device, list_gpu_numbers
from store.repositories.models import ModelRepository
from store.tables import Dataset, Job, Worker

# Jobs that agree in these, in model, method, precision and highest ρ keep the same activations of a token.
ACTIVATION_PARAMETERS = ("attention", "packing", "lora", "adaptive", "logits")
MAX_LENGTH_RATIO = 2.0  # of the longest rows: attention grows with the square, and the prediction in proportion
MAX_COMPARED_JOBS = 50
OWN_ROWS = "of the same rows"


@dataclass(frozen=True)
class JobSettings:
    """What a job's memory follows from: its method, the highest ρ of its policy, its hyperparameters and GPUs."""

    model: str
    method: str
    highest_rho: float
    hyperparameters: Hyperparameters
    gpus: int = 1

    @classmethod
    def of(
        cls, model: str, method: str, policy: Policy, hyperparameters: Hyperparameters, gpus: int = 1
    ) -> "JobSettings":
        """Build from a submission's values."""
        return cls(model, method, policy.rho_range[1] if method == "greentrainer" else 1.0, hyperparameters, gpus)

    def count_rows(self, training_rows: int) -> int:
        """Count the rows that one process computes at once."""
        given = self.of_process
        return min(given.rows_at_once, given.batch_size, training_rows)

    @property
    def of_process(self) -> Hyperparameters:
        """Hyperparameters by which one process computes its part of a step's rows."""
        part = -(-self.hyperparameters.batch_size // self.gpus)
        return self.hyperparameters.model_copy(update={"batch_size": part})

    @property
    def trains_every_tensor(self) -> bool:
        """Whether some step may train every tensor of the model."""
        never = (self.hyperparameters.adaptive or AdaptiveSettings()).never_train
        return self.method == "full" or (self.method == "greentrainer" and self.highest_rho >= 1 and not never)

    @property
    def measures_in_steps(self) -> bool:
        """Whether some steps measure importance, with the gradients of every tensor within the budget's reach."""
        apart = (self.hyperparameters.adaptive or AdaptiveSettings()).probe_batches
        return self.method == "greentrainer" and self.highest_rho < 1 and apart is None

    @property
    def certain_parts(self) -> str:
        """What a step holds whatever its rows are, in words."""
        return "weights, gradients and optimiser state" if self.trains_every_tensor else "weights"


@dataclass(frozen=True)
class PredictedMemory:
    """Peak bytes of a step, None until a similar job was prepared, and those of a live worker's largest device.

    `least_bytes` are those of the weights, and of gradients and optimiser state where every tensor is trained: no step
    takes less. None while the model is not measured.
    """

    peak_bytes: int | None
    least_bytes: int | None
    device_bytes: int | None
    basis: str


def explain_impossible_job(session: Session, devices: Sequence[Device | None], wanted: JobSettings) -> str | None:
    """Return why a job fits none of the live devices whatever its rows are, with what would fit; else None.

    None as well where a device's memory, or the model's size, is not known, and while no worker is alive.
    """
    largest = find_largest_device(devices)
    if largest is None or not all(device is not None and _exceeds(session, device, wanted) for device in devices):
        return None
    least = _count_least_bytes(session, wanted, largest.choose_precision(wanted.hyperparameters))
    assert least is not None
    given = wanted.hyperparameters
    changes = {
        "the method lora": replace(wanted, method="lora"),
        "precision bf16": replace(wanted, hyperparameters=given.model_copy(update={"precision": "bf16"})),
        "optimizer adafactor": replace(wanted, hyperparameters=given.model_copy(update={"optimizer": "adafactor"})),
    }
    if wanted.gpus > 1:
        del changes["optimizer adafactor"]
    helpful = [name for name, changed in changes.items() if not _exceeds(session, largest, changed)]
    numbers = [gpus for gpus in list_gpu_numbers(given, [largest]) if gpus > wanted.gpus]
    enough = (gpus for gpus in numbers if not _exceeds(session, largest, replace(wanted, gpus=gpus)))
    helpful += [f"resources.gpus {gpus}" for gpus in islice(enough, 1)]
    advice = f"with {' or '.join(helpful)} they would take less" if helpful else "a smaller model takes less"
    of_each = f" in each of {wanted.gpus} processes" if wanted.gpus > 1 else ""
    return (
        f"its {wanted.certain_parts} alone take{of_each} {least / GIGABYTE:.3g} of "
        f"{largest.memory_bytes / GIGABYTE:.3g} GB on the largest device of a live worker ({largest.name}): {advice}"
    )


def predict_memory(
    session: Session, devices: Sequence[Device | None], dataset: Dataset, wanted: JobSettings
) -> PredictedMemory:
    """Predict a job's peak memory on the largest device from the newest prepared job that is similar enough.

    Weights, gradients and optimiser state follow from the settings; activations are taken as proportional to the
    tokens of a micro-batch of the longest rows.
    """
    largest = find_largest_device(devices)
    possible = [largest] if largest else [Device("unknown", 0, bf16) for bf16 in (True, False)]
    precisions = {device.choose_precision(wanted.hyperparameters) for device in possible}
    least = min(
        (size for one in precisions if (size := _count_least_bytes(session, wanted, one)) is not None), default=None
    )
    device_bytes = None if largest is None else largest.memory_bytes
    if (found := _predict_peak(session, dataset, wanted, precisions)) is not None:
        peak, basis = found
        if wanted.hyperparameters.micro_batch_size == "auto" and device_bytes is not None:
            peak = min(peak, device_bytes)
        return PredictedMemory(peak, least, device_bytes, basis)
    basis = "the peak is predicted as the job is prepared, from a traced step"
    if least is not None:
        basis = f"the {wanted.certain_parts} alone; {basis}"
    return PredictedMemory(None, least, device_bytes, basis)


def list_possible_workers(
    session: Session, workers: Sequence[Worker], dataset: Dataset, wanted: JobSettings
) -> list[Worker]:
    """List the workers whose device may hold a job that is not prepared yet; all of them where none may.

    Left out are those that the predicted peak exceeds, or the least that is certain where `auto` may take less than the
    peak, and for flash attention those without a GPU. The cost does not depend on the number of workers.
    """
    needed: dict[RunPrecision, int | None] = {}

    def may_hold(worker: Worker) -> bool:
        if not computes_attention(worker, wanted.hyperparameters.attention):
            return False
        if (device := get_device(worker)) is None:
            return True
        precision = device.choose_precision(wanted.hyperparameters)
        if precision not in needed:
            needed[precision] = _count_needed_bytes(session, dataset, wanted, precision)
        size = needed[precision]
        return size is None or size <= device.memory_bytes

    return [worker for worker in workers if may_hold(worker)] or list(workers)


@dataclass(frozen=True, kw_only=True)
class TracedStep(PeakMemory):
    """Bytes of a step that was traced in a precision, on a micro-batch of `rows` rows of `tokens` tokens.

    `several`: the step has several micro-batches, so that gradients are there from the second on. Logits are computed
    at `learned` positions of a row; 0 where they are at all.
    """

    precision: RunPrecision
    rows: int
    tokens: int
    several: bool
    learned: int = 0

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "TracedStep":
        """Parse `estimate.step_memory` of a job."""
        return cls(**stored)

    def predict(self, given: Hyperparameters, wanted: Hyperparameters, *, rows: int, tokens: int, learned: int) -> int:
        """Predict the peak in bytes of such a step with other settings; `given` are those that it was traced with.

        Both are those of one process (`JobSettings.of_process`), on as many GPUs.
        """
        longer = max(tokens / self.tokens, learned / self.learned if self.learned else 0.0)
        share = rows / self.rows * longer
        held = max(self.gradients, self.measured_gradients)  # in the passes
        kept = held if self.several else 0
        several = wanted.batch_size > wanted.rows_at_once
        if self.several:  # under `auto` the step may be of fewer rows than the settings say
            given = given.model_copy(update={"micro_batch_size": self.rows})
        traced, changed = (count_bytes_per_weight(one, self.precision) for one in (given, wanted))
        gradients, largest = (size / traced.gradient * changed.gradient for size in (self.gradients, held))
        passes = max((self.passes - kept) * share, 0 if several else largest) + (largest if several else 0)
        step = self.step - self.gradients + gradients
        state = self.optimizer_state + self.gradients / traced.gradient * (changed.state - traced.state)
        return round(self.weights + state + max(passes, step))


def _exceeds(session: Session, device: Device, wanted: JobSettings) -> bool:
    least = _count_least_bytes(session, wanted, device.choose_precision(wanted.hyperparameters))
    return least is not None and least > device.memory_bytes


def _count_least_bytes(session: Session, wanted: JobSettings, precision: RunPrecision) -> int | None:
    model = ModelRepository(session).get(wanted.model)
    if model is None:
        return None
    each = count_bytes_per_weight(wanted.of_process, precision)
    trained = each.gradient + each.state if wanted.trains_every_tensor else 0
    return -(-model.parameters * (each.weight + trained) // wanted.gpus)


def _count_needed_bytes(session: Session, dataset: Dataset, wanted: JobSettings, precision: RunPrecision) -> int | None:
    """Return the bytes that a job is known or predicted to need in a precision at least; None where unknown."""
    given = wanted.hyperparameters
    recomputes = given.gradient_checkpointing == "auto" and wanted.method != "prefix"
    if not recomputes and given.micro_batch_size != "auto":
        found = _predict_peak(session, dataset, wanted, {precision})
        if found is not None:
            return found[0]
    return _count_least_bytes(session, wanted, precision)


def _predict_peak(
    session: Session, dataset: Dataset, wanted: JobSettings, precisions: Set[RunPrecision]
) -> tuple[int, str] | None:
    """Predict a job's peak in bytes from the newest similar job of these precisions, with its basis; None without."""

    @cache
    def find_longest_counted() -> tuple[int, int] | None:
        statistics = find_token_counts(session, dataset, wanted.model, wanted.hyperparameters)
        counts = None if statistics is None else statistics.counts
        return (counts["tokens"]["max"], counts["completion"]["max"]) if counts else None

    for job in _list_similar_jobs(session, wanted, precisions):
        longest = _find_longest_row(dataset, wanted, job, find_longest_counted)
        if not 1 / MAX_LENGTH_RATIO <= longest.tokens / job.traced.tokens <= MAX_LENGTH_RATIO:
            continue
        rows = job.training_examples if longest.source == OWN_ROWS else dataset.rows
        rows = wanted.count_rows(rows)
        given = replace(wanted, hyperparameters=job.given)
        peak = job.traced.predict(
            given.of_process, wanted.of_process, rows=rows, tokens=longest.tokens, learned=longest.learned
        )
        basis = "the traced step of a prepared job with this model and method"
        if (rows, longest.tokens) != (job.traced.rows, job.traced.tokens):
            basis += f", scaled to {rows} rows of {longest.tokens} tokens, {longest.source}"
        return peak, basis
    return None


@dataclass(frozen=True)
class _PreparedJob:
    """What is compared of a prepared job: its settings, traced step, training examples and the content of its rows."""

    given: Hyperparameters
    traced: TracedStep
    training_examples: int
    blob: str


def _list_similar_jobs(session: Session, wanted: JobSettings, precisions: Set[RunPrecision]) -> Iterator[_PreparedJob]:
    """Yield the newest prepared jobs whose activations of a token are those of the wanted one, newest first."""
    step, recomputes = Job.estimate["step_memory"], Job.estimate["gradient_checkpointing"]
    query = (
        select(
            Job.hyperparameters,
            Job.policy,
            step.label("step"),
            recomputes.label("recomputes"),
            Job.estimate["training_examples"].label("training_examples"),
            Dataset.blob,
        )
        .join(Dataset, Dataset.id == Job.dataset_id)
        .where(Job.model == wanted.model, Job.method == wanted.method, Job.gpus == wanted.gpus)
        .where(step["precision"].astext.in_(precisions))  # null where it was not predicted
        .order_by(Job.id.desc())
        .limit(MAX_COMPARED_JOBS)
    )
    settings = wanted.hyperparameters.model_dump(mode="json")
    for row in session.execute(query):
        given = Hyperparameters.model_validate(row.hyperparameters)
        dumped = given.model_dump(mode="json")
        prepared = JobSettings.of(wanted.model, wanted.method, parse_stored_policy(row.policy), given)
        if (
            all(dumped[name] == settings[name] for name in ACTIVATION_PARAMETERS)
            and prepared.highest_rho == wanted.highest_rho
            and bool(row.step.get("measured_gradients")) == wanted.measures_in_steps  # of an earlier version: not so
            and wanted.hyperparameters.gradient_checkpointing in ("auto", row.recomputes)
        ):
            yield _PreparedJob(given, TracedStep.from_json(row.step), row.training_examples, row.blob)


@dataclass(frozen=True)
class _LongestRow:
    """Padded tokens of a dataset's longest row, and learned tokens of the row that has most; and their source."""

    tokens: int
    learned: int
    source: str


def _find_longest_row(
    dataset: Dataset,
    wanted: JobSettings,
    job: _PreparedJob,
    find_longest_counted: Callable[[], tuple[int, int] | None],
) -> _LongestRow:
    """Find the longest row from the prepared job's, the dataset's counted tokens, or `max_length`."""
    settings, given, traced = wanted.hyperparameters, job.given, job.traced
    same_rows = job.blob == dataset.blob and all(
        getattr(given, name) == getattr(settings, name) for name in ROW_PARAMETERS if name != "max_length"
    )
    if same_rows and settings.max_length == given.max_length:
        return _LongestRow(traced.tokens, traced.learned, OWN_ROWS)
    if same_rows and traced.tokens < given.max_length:  # none was cut
        most = _pad(settings.max_length)
        return _LongestRow(min(traced.tokens, most), min(traced.learned, most), OWN_ROWS)
    if (counted := find_longest_counted()) is not None:
        tokens, learned = (_pad(min(length, settings.max_length)) for length in counted)
        return _LongestRow(tokens, learned, "as the dataset's longest row has")
    most = _pad(settings.max_length)
    return _LongestRow(most, most, "the most that a row may have")


def _pad(tokens: int) -> int:
    return math.ceil(tokens / PAD_TO_MULTIPLE) * PAD_TO_MULTIPLE
