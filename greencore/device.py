"""A device that runs train on: its memory, the precision of a run there, and the bytes of a run's weights."""

from dataclasses import dataclass
from typing import Literal

from greencore.hyperparameters import Hyperparameters, PrecisionName

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
    """A device's name, the bytes of its memory, and whether it computes natively in bfloat16."""

    name: str
    memory_bytes: int
    computes_bf16: bool = False

    def choose_precision(self, hyperparameters: Hyperparameters) -> RunPrecision:
        """Return the precision that a run takes there."""
        return resolve_precision(hyperparameters.precision, bf16=self.computes_bf16)
