"""A device that runs train on: its memory, the precision of a run there, and the bytes of its weights and steps."""

from dataclasses import dataclass
from typing import Literal

from greencore.settings.hyperparameters import Hyperparameters
from greencore.settings.value_types import PrecisionName

CPU = "cpu"  # the name of the device of a machine without a GPU
MAX_GPUS = 64  # of one machine, and so of one run
RunPrecision = Literal["bf16", "mixed", "fp32"]


def resolve_precision(wanted: PrecisionName, *, bf16: bool) -> RunPrecision:
    """Return the precision that a run takes on a device that computes natively in bfloat16, or does not."""
    if wanted in ("bf16", "fp32"):
        return wanted
    if not bf16:
        return "fp32"
    return "bf16" if wanted == "auto" else "mixed"


@dataclass(frozen=True)
class Device:
    """A device's name, the bytes of its memory, whether it computes in bfloat16, and how many a machine has."""

    name: str
    memory_bytes: int
    computes_bf16: bool = False
    gpus: int = 1

    def choose_precision(self, hyperparameters: Hyperparameters) -> RunPrecision:
        """Return the precision that a run takes there."""
        return resolve_precision(hyperparameters.precision, bf16=self.computes_bf16)


@dataclass(frozen=True)
class BytesPerWeight:
    """Bytes that a run holds of each weight, and of each that it trains its gradient and its optimiser's state."""

    weight: int
    gradient: int
    state: int


def count_bytes_per_weight(hyperparameters: Hyperparameters, precision: RunPrecision) -> BytesPerWeight:
    """Count the bytes of a run's weights and of what its optimiser needs of those that it trains.

    Adafactor's state, a number for each row and column, counts as none. The state of bfloat16 weights is in float32,
    their master copies included, and so are their gradients where those of several micro-batches add up.
    """
    numbers = {"adamw": 2, "adafactor": 0, "sgd": 1 if hyperparameters.sgd_momentum else 0}[hyperparameters.optimizer]
    half, split = precision == "bf16", hyperparameters.batch_size > hyperparameters.rows_at_once
    return BytesPerWeight(weight=2 if half else 4, gradient=2 if half and not split else 4, state=4 * (numbers + half))


@dataclass(frozen=True)
class PeakMemory:
    """Bytes of a training step: of weights, gradients and optimiser state, and at most beyond weights and state.

    The latter are `passes` in forward and backward passes, a probe's among them (activations, and the gradients that
    are there), and `step` in the optimiser's step. `measured_gradients` are those of a step that measures importance,
    of every tensor within reach; 0 where none does.
    """

    weights: int
    gradients: int
    optimizer_state: int
    passes: int
    step: int
    measured_gradients: int = 0

    @property
    def peak(self) -> int:
        """Bytes of the whole step at its peak."""
        return self.weights + self.optimizer_state + max(self.passes, self.step)
