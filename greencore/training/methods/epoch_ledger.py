"""Ledger of one epoch: the tensors that were selected, the steps that ran, and their FLOPs."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from greencore.backprop.selection.importance_curve import ConcaveCurve
from greencore.training.batches.batch_shapes import StepShape
from greencore.training.methods.step_costs import StepCosts


@dataclass(frozen=True)
class Reselection:
    """Tensors that are trained from an optimiser step on, and the probe that selected them.

    `importance` is raw (in the metric's unit) for every tensor within the budget's reach, and empty without a probe. Of
    a probe in a training step `probe_flops` are those beyond a step of the selected tensors, and `probe_seconds` those
    between its gradients and their use.
    """

    step: int
    tensors: tuple[str, ...]
    importance: Mapping[str, float] = field(default_factory=dict)
    probe_flops: int = 0
    probe_seconds: float = 0.0


@dataclass(frozen=True)
class Measurement:
    """Tensors whose importance is measured in the optimiser step after `step`, for the selection that it applies."""

    step: int
    tensors: tuple[str, ...]


@dataclass(frozen=True)
class EpochReport:
    """Report of one epoch: the share ρ of FLOPs that was asked for, the trained tensors, and the FLOPs spent.

    `share` is `flops / full_flops` over the epoch's own batches and at most `rho`; it excludes the probes' FLOPs: of a
    step that measures importance `flops` are those that the selected tensors alone would have taken.
    `plain_full_flops` are `full_flops` with the logits of all positions, where the run computes those of learned ones.
    `tensors` are all that some selection of the epoch trained, from output to input; `importance` is the last probe's,
    and `curve` the importance within each share up to ρ by that probe; None without a probe. With several processes
    `flops`, `full_flops` and `probe_flops` are the sums over all of them.
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
    plain_full_flops: int = 0

    @property
    def share(self) -> float:
        """Share of full fine-tuning's FLOPs that the epoch's steps took."""
        return self.flops / self.full_flops if self.full_flops else 0.0

    @property
    def plain_share(self) -> float:
        """`share` with full fine-tuning's logits computed at all positions, as the paper counts it."""
        return self.flops / self.plain_full_flops if self.plain_full_flops else self.share

    @property
    def share_with_probe(self) -> float:
        """`share` with the probes' FLOPs added: at most ρ where they are charged."""
        return (self.flops + self.probe_flops) / self.full_flops if self.full_flops else 0.0


class EpochLedger:
    """Counts an epoch's steps by selection; as JSON it is part of a checkpoint, from which a run resumes."""

    def __init__(self, epoch: int, rho: float) -> None:
        self.epoch, self.rho = epoch, rho
        self.selections: list[Reselection] = []
        self.measurement: Measurement | None = None
        self._steps: list[Counter[StepShape]] = []
        self._measured_steps = Counter[StepShape]()
        self._selections_as_json: list[dict[str, Any]] = []

    @property
    def current(self) -> Reselection:
        """The selection that is trained now."""
        return self.selections[-1]

    @property
    def trained(self) -> tuple[str, ...]:
        """The tensors that need gradients now: those selected, or all that are measured."""
        return self.current.tensors if self.measurement is None else self.measurement.tensors

    def begin_measurement(self, measurement: Measurement) -> None:
        """Count the following steps for the selection that the measurement will make."""
        self.measurement = measurement

    def count_measured_flops(self, costs: StepCosts, names: Collection[str]) -> int:
        """Sum the FLOPs of the steps of the measurement, if they had trained exactly these tensors."""
        return costs.count_flops(names, self._measured_steps)

    def add_selection(self, selection: Reselection) -> None:
        """Count the steps of the measurement, where there is one, and those that follow for another selection."""
        self.selections.append(selection)
        self._steps.append(self._measured_steps)
        self._selections_as_json.append(asdict(selection))
        self.measurement, self._measured_steps = None, Counter()

    def count_step(self, shape: StepShape) -> None:
        """Count one forward and backward pass."""
        steps = self._steps[-1] if self.measurement is None else self._measured_steps
        steps[shape] += 1

    def count_flops(self, costs: StepCosts, full_costs: StepCosts) -> tuple[int, int, int]:
        """Sum the FLOPs so far, forward and backward: of the selected tensors, and of training all tensors.

        The last are those of training all tensors with the logits of all positions.
        """
        counted = list(zip(self.selections, self._steps, strict=True))
        return (
            sum(costs.count_flops(selection.tensors, steps) for selection, steps in counted),
            sum(full_costs.count_flops(full_costs.tensors, steps) for _, steps in counted),
            round(sum(n * full_costs.plain_full_flops(shape) for _, steps in counted for shape, n in steps.items())),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the ledger as JSON."""
        return {
            "epoch": self.epoch,
            "rho": self.rho,
            "selections": self._selections_as_json,
            "steps": [_dump_steps(steps) for steps in self._steps],
            "measurement": None if self.measurement is None else asdict(self.measurement),
            "measured_steps": _dump_steps(self._measured_steps),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "EpochLedger":
        """Build a ledger from the JSON of `to_json`."""
        ledger = cls(value["epoch"], value["rho"])
        for selection, steps in zip(value["selections"], value["steps"], strict=True):
            ledger.add_selection(Reselection(**{**selection, "tensors": tuple(selection["tensors"])}))
            ledger._steps[-1] = _parse_steps(steps)
        if (measurement := value.get("measurement")) is not None:
            ledger.begin_measurement(Measurement(measurement["step"], tuple(measurement["tensors"])))
            ledger._measured_steps = _parse_steps(value["measured_steps"])
        return ledger


def _dump_steps(steps: Mapping[StepShape, int]) -> list[Any]:
    return [[shape.rows, list(shape.lengths), count] for shape, count in steps.items()]


def _parse_steps(steps: list[Any]) -> Counter[StepShape]:
    return Counter({StepShape(rows, tuple(lengths)): count for rows, lengths, count in steps})
