"""What training any set of tensors costs (paper §2.3 and §3.1)."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import nextafter

import torch

from greencore.backprop.trace import Batch, Trace, trace_step


@dataclass(frozen=True)
class TensorCost:
    """One weight tensor and the FLOPs of its gradients, per step.

    `t_dw` computes the tensor's own gradient and serves nothing else. `t_dy` carries the gradient of the activations
    from this tensor on to the next deeper one; the deepest trained tensor is never charged its own.
    """

    name: str
    t_dw: int
    t_dy: int
    params: int


@dataclass(frozen=True)
class SharedCost:
    """Backward FLOPs that several tensors need: they are spent once if any bit of `needed_by` is selected."""

    needed_by: int
    flops: int


@dataclass(frozen=True)
class Profile:
    """Exact FLOPs of one training step, for every choice of trained tensors. Made by `profile`.

    `tensors` run from the model's output to its input, in the order in which a step completes their gradients. One
    multiply-accumulate is 2 FLOPs (the paper's "PFLOPs" are multiply-accumulates, so half of these).
    """

    tensors: tuple[TensorCost, ...]
    forward_flops: int
    full_flops: int
    exclusive: tuple[int, ...]
    shared: tuple[SharedCost, ...]
    counted: "CountedCost"

    def step_flops(self, names: Collection[str]) -> int:
        """FLOPs of a step, forward and backward, that trains just these tensors. Raises `KeyError` for a stranger."""
        mask = self.mask(names)
        own = sum(cost for index, cost in enumerate(self.exclusive) if mask >> index & 1)
        return self.forward_flops + own + sum(s.flops for s in self.shared if s.needed_by & mask)

    def matmul_step_flops(self, names: Collection[str]) -> int:
        """The part of `step_flops` that torch's FlopCounterMode counts on the model's device, for comparison."""
        mask = self.mask(names)
        return self.counted.forward + sum(s.flops for s in self.counted.backward if s.needed_by & mask)

    def share(self, names: Collection[str]) -> float:
        """`step_flops` as a share of full fine-tuning's: what ρ bounds (paper Eq. 4)."""
        return self.step_flops(names) / self.full_flops

    @cached_property
    def floor(self) -> float:
        """The smallest feasible ρ: forward, plus the cheapest single tensor's gradient."""
        flops = min(self.step_flops([tensor.name]) for tensor in self.tensors)
        floor = flops / self.full_flops
        return floor if floor * self.full_flops >= flops else nextafter(floor, 1.0)

    def mask(self, names: Iterable[str]) -> int:
        """The tensors as a bit mask: bit k is `tensors[k]`. Raises `KeyError` for a name that is not profiled."""
        mask = 0
        for name in names:
            mask |= 1 << self._index[name]
        return mask

    @cached_property
    def _index(self) -> dict[str, int]:
        return {tensor.name: index for index, tensor in enumerate(self.tensors)}


@dataclass(frozen=True)
class CountedCost:
    """The operators that torch's FlopCounterMode knows, on their own."""

    forward: int
    backward: tuple[SharedCost, ...]


def profile(model: torch.nn.Module, batch: Batch, *, names: Collection[str] | None = None) -> Profile:
    """Profile a training step of `model` from its traced autograd graph (paper §3.1), without a rule per family.

    `batch` maps the model's arguments, `labels` among them, to tensors; only their shapes matter. The model may live
    on the meta device and is left untouched. `names` limits what counts as trainable (default: every floating-point
    parameter); full fine-tuning trains them all. Raises `greencore.backprop.TraceError`.
    """
    trace = trace_step(model, batch, None if names is None else frozenset(names))
    return _from_trace(trace)


def _from_trace(trace: Trace) -> Profile:
    total: dict[int, int] = defaultdict(int)
    counted: dict[int, int] = defaultdict(int)
    for op in trace.backward:
        total[op.needed_by] += op.flops.total
        counted[op.needed_by] += op.flops.counted
    return assemble(
        trace.tensors,
        forward=trace.forward.total,
        total=total,
        counted=CountedCost(
            trace.forward.counted, tuple(SharedCost(mask, flops) for mask, flops in counted.items() if flops)
        ),
    )


def assemble(
    tensors: tuple[tuple[str, int], ...], *, forward: int, total: Mapping[int, int], counted: CountedCost
) -> Profile:
    """A profile from backward FLOPs by the set of tensors (a bit mask) that needs them."""
    exclusive = [0] * len(tensors)
    shared = []
    for mask, flops in total.items():
        if mask.bit_count() == 1:
            exclusive[mask.bit_length() - 1] = flops
        else:
            shared.append(SharedCost(mask, flops))
    carried = _carried(len(tensors), shared)
    return Profile(
        tensors=tuple(
            TensorCost(name, t_dw=exclusive[index], t_dy=carried[index], params=params)
            for index, (name, params) in enumerate(tensors)
        ),
        forward_flops=forward,
        full_flops=forward + sum(total.values()),
        exclusive=tuple(exclusive),
        shared=tuple(shared),
        counted=counted,
    )


def _carried(tensors: int, shared: Collection[SharedCost]) -> list[int]:
    """For each tensor, the shared FLOPs that its next deeper neighbour is the first to need."""
    carried = [0] * tensors
    for cost in shared:
        first = (cost.needed_by & -cost.needed_by).bit_length() - 1
        if first > 0:
            carried[first - 1] += cost.flops
    return carried


def at_length(short: Profile, long: Profile, *, lengths: tuple[int, int], length: int) -> Profile:
    """The profile at another sequence length, from two profiles of the same batch size.

    In dense attention every operator's FLOPs are a·L + b·L², so two lengths give a and b and hence all others.
    Raises `ValueError` where the two profiles are not of the same graph.
    """
    low, high = lengths
    if low == high:
        return short

    def at(first: int, second: int) -> int:
        slope, other = first / low, second / high
        square = (other - slope) / (high - low)
        return round(length * (slope + square * (length - low)))

    def masks(profile: Profile) -> dict[int, int]:
        costs = {1 << index: cost for index, cost in enumerate(profile.exclusive)}
        return costs | {cost.needed_by: cost.flops for cost in profile.shared}

    first, second = masks(short), masks(long)
    counted_first = {cost.needed_by: cost.flops for cost in short.counted.backward}
    counted_second = {cost.needed_by: cost.flops for cost in long.counted.backward}
    tensors = tuple((tensor.name, tensor.params) for tensor in short.tensors)
    same_tensors = tensors == tuple((tensor.name, tensor.params) for tensor in long.tensors)
    if not same_tensors or first.keys() != second.keys() or counted_first.keys() != counted_second.keys():
        raise ValueError("the graph changes with the sequence length: trace each length on its own")
    return assemble(
        tensors,
        forward=at(short.forward_flops, long.forward_flops),
        total={mask: at(flops, second[mask]) for mask, flops in first.items()},
        counted=CountedCost(
            at(short.counted.forward, long.counted.forward),
            tuple(SharedCost(mask, at(flops, counted_second[mask])) for mask, flops in counted_first.items()),
        ),
    )
