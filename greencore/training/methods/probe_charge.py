"""Share of an epoch's FLOPs that its probes take, where they are charged to the epoch's budget."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from greencore.backprop.cost.by_length import Lengths
from greencore.training.batches.batch_shapes import StepShape
from greencore.training.methods.step_costs import StepCosts


@dataclass(frozen=True)
class ProbeCharge:
    """The probes of an epoch: one at its start and, with `reselect_every`, one after each of so many steps.

    `row_counts` is the number of training rows by unpadded length, divided among `processes`. A probe has `batches`, or
    is one of the epoch's steps where it is None; a batch takes `passes`, one for each micro-batch. `trained_share` is
    that of the epoch's steps that run: `max_steps` may cut it.
    """

    batches: int | None
    reselect_every: int | None
    row_counts: Mapping[Lengths, int]
    steps_per_epoch: int
    clipped: bool
    processes: int = 1
    passes: int = 1
    trained_share: float = 1.0

    def compute_share(
        self, costs: StepCosts, full_costs: StepCosts, affordable: Collection[str], *, done: int = 0, spent: int = 0
    ) -> float:
        """Compute the most that an epoch's probes of the `affordable` tensors take of its FLOPs with every tensor.

        `done` probes took `spent` FLOPs in all processes; the others are counted at their most
        (`compute_max_probe_flops`). Unpadded rows are the least that the epoch can cost, since padding only adds to it.
        """
        rows = self.row_counts.items()
        epoch: float = sum(amount * full_costs.full_flops(StepShape(1, lengths)) for lengths, amount in rows)
        epoch *= self.trained_share
        steps = round(self.steps_per_epoch * self.trained_share)
        probes = 1 if self.reselect_every is None else -(-steps // self.reselect_every)
        to_come = max(0, probes - done)
        most = self.passes * compute_max_probe_flops(costs, affordable, batches=self.batches, clipped=self.clipped)
        return (spent / self.processes + to_come * most) / (epoch / self.processes)


def compute_max_probe_flops(costs: StepCosts, names: Collection[str], *, batches: int | None, clipped: bool) -> int:
    """Compute the most FLOPs of probing these tensors on the longest rows, in passes of whole batches.

    Batches of their own are run twice where clipping may act. A step that measures (None) takes what it is beyond a
    step of the cheapest selection.
    """
    if batches is None:
        return costs.longest_step_flops(names) - costs.longest_step_flops(costs.cheapest)
    return batches * (2 if clipped else 1) * costs.longest_step_flops(names)
