"""The account of one epoch: what was selected, which steps were run, and what they came to in FLOPs."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from greencore.backprop.selection.importance_curve import ConcaveCurve
from greencore.training.methods.batch_shapes import StepShape
from greencore.training.methods.step_costs import StepCosts


@dataclass(frozen=True)
class Reselection:
    """The tensors that were trained from an optimiser step on, and the probe that chose them.

    `importance` is raw (in units of the loss) for every tensor that the budget could reach, and empty where nothing
    had to be probed.
    """

    step: int
    tensors: tuple[str, ...]
    importance: Mapping[str, float]
    probe_flops: int
    probe_seconds: float


@dataclass(frozen=True)
class EpochReport:
    """One epoch: the share ρ of FLOPs that was asked for, what was trained, and what it came to.

    `share` is `flops / full_flops` over the epoch's own batches and at most `rho`; the probes' FLOPs and seconds
    stand beside it. `tensors` are all that some selection of the epoch trained, from output to input; `importance` is
    the last probe's, and `curve` what each share up to ρ would have brought by it; None where nothing had to be probed.
    With several processes `flops`, `full_flops` and `probe_flops` are the sums over all of them.
    """

    epoch: int
    rho: float
    tensors: tuple[str, ...]
    tensors_total: int
    importance: Mapping[str, float]
    flops: int
    full_flops: int
    probe_flops: int
    probe_seconds: float
    selections: tuple[Reselection, ...] = ()
    curve: ConcaveCurve | None = None

    @property
    def share(self) -> float:
        """What the epoch's steps took of full fine-tuning's FLOPs."""
        return self.flops / self.full_flops if self.full_flops else 0.0

    @property
    def share_with_probe(self) -> float:
        """The same with the probes' own FLOPs: at most ρ where they are charged."""
        return (self.flops + self.probe_flops) / self.full_flops if self.full_flops else 0.0


class EpochLedger:
    """Adds up one epoch, step by step; as JSON it is part of a checkpoint, so that a resumed epoch goes on in it."""

    def __init__(self, epoch: int, rho: float) -> None:
        self.epoch, self.rho = epoch, rho
        self.selections: list[Reselection] = []
        self._steps: list[Counter[StepShape]] = []
        self._selections_as_json: list[dict[str, Any]] = []

    @property
    def current(self) -> Reselection:
        """What is trained now."""
        return self.selections[-1]

    def add_selection(self, selection: Reselection) -> None:
        """Train another set of tensors from here on."""
        self.selections.append(selection)
        self._steps.append(Counter())
        self._selections_as_json.append(asdict(selection))

    def count_step(self, shape: StepShape) -> None:
        """One forward and backward pass was run."""
        self._steps[-1][shape] += 1

    def count_flops(self, costs: StepCosts, full_costs: StepCosts) -> tuple[int, int]:
        """FLOPs so far, forward and backward: as selected, and had every tensor been trained."""
        spent = full = 0
        for selection, shapes in zip(self.selections, self._steps, strict=True):
            spent += costs.count_flops(selection.tensors, shapes)[0]
            full += full_costs.count_flops((), shapes)[1]
        return spent, full

    def to_json(self) -> dict[str, Any]:
        """Numbers, texts and lists only."""
        return {
            "epoch": self.epoch,
            "rho": self.rho,
            "selections": self._selections_as_json,
            "steps": [
                [[shape.rows, list(shape.lengths), count] for shape, count in shapes.items()] for shapes in self._steps
            ],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "EpochLedger":
        """The ledger that `to_json` wrote."""
        ledger = cls(value["epoch"], value["rho"])
        for selection, shapes in zip(value["selections"], value["steps"], strict=True):
            ledger.add_selection(Reselection(**{**selection, "tensors": tuple(selection["tensors"])}))
            for rows, lengths, count in shapes:
                ledger._steps[-1][StepShape(rows, tuple(lengths))] = count
        return ledger
