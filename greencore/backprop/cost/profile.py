"""FLOPs of a training step for any set of trained tensors, from its traced operators (paper §2.3, §3.1)."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import nextafter
from operator import attrgetter

import torch

from greencore.backprop.cost.autograd_graph import ANY_TENSOR
from greencore.backprop.cost.operator_flops import OpFlops
from greencore.backprop.cost.trace import Batch, trace_step


@dataclass(frozen=True)
class TensorCost:
    """FLOPs per step of one weight tensor's gradients (paper Eq. 3, 5).

    `t_dw` computes the tensor's own gradient. `t_dy` carries the activation gradient from this tensor to the next
    deeper one; the deepest trained tensor is not charged its own.
    """

    name: str
    t_dw: int
    t_dy: int
    params: int


@dataclass(frozen=True)
class SharedCost:
    """Backward FLOPs spent once if any bit of `needed_by` and any bit of `when` is selected.

    With a `when` they may be negative: what running other operators saves.
    """

    needed_by: int
    flops: int
    when: int = ANY_TENSOR


@dataclass(frozen=True)
class StepFlops:
    """FLOPs of one kind in a step: forward, and backward by the tensors that need them."""

    forward: int
    backward: tuple[SharedCost, ...]

    def total(self, mask: int) -> int:
        """Return the FLOPs of a step that trains the tensors of the bit mask."""
        return self.forward + _sum_flops(self.backward, mask)


NO_FLOPS = StepFlops(0, ())


@dataclass(frozen=True)
class Profile:
    """Exact FLOPs of one training step for every set of trained tensors; built by `profile`.

    `tensors` run from the model's output to its input, in the order in which a step completes their gradients. One
    multiply-accumulate is 2 FLOPs (the paper's "PFLOPs" are multiply-accumulates, so half of these).

    A step costs `forward_flops`, the `exclusive` FLOPs of each selected tensor, every `shared` cost that a selected
    tensor needs, and the `conditional` costs (with a `when`), where the selection changes which operators run. The sum
    without the conditional costs is an upper bound.

    Matrix products are separate from all else (normalisation, activation, softmax, bias, residual sums):
    `product_step_flops` and `elementwise_step_flops` add up to `step_flops`.
    """

    tensors: tuple[TensorCost, ...]
    forward_flops: int
    full_flops: int
    exclusive: tuple[int, ...]
    shared: tuple[SharedCost, ...]
    counted: StepFlops
    products: StepFlops
    conditional: tuple[SharedCost, ...]

    def step_flops(self, names: Collection[str]) -> int:
        """Return the FLOPs of a step that trains exactly these tensors: T_fp and what Eq. 5 adds to it.

        Raises `KeyError` for an unknown name.
        """
        mask = self.mask(names)
        own = sum(cost for index, cost in enumerate(self.exclusive) if mask >> index & 1)
        return own + self.forward_flops + _sum_flops((*self.shared, *self.conditional), mask)

    def product_step_flops(self, names: Collection[str]) -> int:
        """Return the matrix products of `step_flops`, including those of fused attention and grouped experts."""
        return self.products.total(self.mask(names))

    def elementwise_step_flops(self, names: Collection[str]) -> int:
        """Return the rest of `step_flops`: normalisation, activation, softmax, bias, residual sums, loss."""
        return self.step_flops(names) - self.product_step_flops(names)

    def matmul_step_flops(self, names: Collection[str]) -> int:
        """Return the part of `product_step_flops` that torch's FlopCounterMode counts, for comparison.

        It counts neither the CPU's fused attention nor grouped products of experts.
        """
        return self.counted.total(self.mask(names))

    def share(self, names: Collection[str]) -> float:
        """Return `step_flops` as a share of full fine-tuning's, which ρ limits (paper Eq. 4)."""
        return self.step_flops(names) / self.full_flops

    @cached_property
    def floor(self) -> float:
        """The smallest feasible ρ: the forward pass and the cheapest gradient of a single tensor."""
        return self.round_up_share(min(self.step_flops([tensor.name]) for tensor in self.tensors))

    def round_up_share(self, flops: int) -> float:
        """Return the smallest ρ whose budget holds these FLOPs of a step."""
        share = flops / self.full_flops
        return share if share * self.full_flops >= flops else nextafter(share, 1.0)

    def mask(self, names: Iterable[str]) -> int:
        """Return the tensors as a bit mask: bit k is `tensors[k]`. Raises `KeyError` for an unknown name."""
        mask = 0
        for name in names:
            mask |= 1 << self._index[name]
        return mask

    @cached_property
    def _index(self) -> dict[str, int]:
        return {tensor.name: index for index, tensor in enumerate(self.tensors)}


def profile(model: torch.nn.Module, batch: Batch, *, names: Collection[str] | None = None) -> Profile:
    """Profile a training step of `model` from its traced autograd graph (paper §3.1), without a rule per family.

    `batch` maps the model's arguments, `labels` among them, to tensors; only their shapes matter. With an
    `attention_mask` it is costed as a padded batch. The model may be on the meta device, is left unchanged, and is
    profiled in its current mode: in training mode, gradient checkpointing costs what it recomputes. `names` limits the
    trainable tensors (default: every floating-point parameter); full fine-tuning trains all of them. Raises
    `greencore.backprop.TraceError`.
    """
    trace = trace_step(model, batch, None if names is None else frozenset(names))
    spent: dict[tuple[int, int], OpFlops] = defaultdict(OpFlops)
    for cost in trace.backward:
        if cost.needed_by:
            spent[cost.needed_by, cost.when] += cost.flops

    def select_kind(kind: Callable[[OpFlops], int]) -> StepFlops:
        costs = ((needed_by, kind(flops), when) for (needed_by, when), flops in spent.items())
        return StepFlops(kind(trace.forward), tuple(SharedCost(*cost) for cost in costs if cost[1]))

    total = select_kind(attrgetter("total"))
    return build_profile(
        trace.tensors,
        forward=total.forward,
        total={cost.needed_by: cost.flops for cost in total.backward if cost.when == ANY_TENSOR},
        counted=select_kind(attrgetter("counted")),
        products=select_kind(attrgetter("products")),
        conditional=tuple(cost for cost in total.backward if cost.when != ANY_TENSOR),
    )


def build_profile(
    tensors: tuple[tuple[str, int], ...],
    *,
    forward: int,
    total: Mapping[int, int],
    counted: StepFlops = NO_FLOPS,
    products: StepFlops = NO_FLOPS,
    conditional: tuple[SharedCost, ...] = (),
) -> Profile:
    """Build a profile from backward FLOPs by the set of tensors (bit mask) that needs them."""
    exclusive = [0] * len(tensors)
    shared = []
    for mask, flops in total.items():
        if mask.bit_count() == 1:
            exclusive[mask.bit_length() - 1] = flops
        elif flops:
            shared.append(SharedCost(mask, flops))
    carried = _compute_carried_flops(len(tensors), shared)
    everything = (1 << len(tensors)) - 1
    return Profile(
        tensors=tuple(
            TensorCost(name, t_dw=exclusive[index], t_dy=carried[index], params=params)
            for index, (name, params) in enumerate(tensors)
        ),
        forward_flops=forward,
        full_flops=forward + sum(total.values()) + _sum_flops(conditional, everything),
        exclusive=tuple(exclusive),
        shared=tuple(shared),
        counted=counted,
        products=products,
        conditional=conditional,
    )


def _sum_flops(costs: Iterable[SharedCost], mask: int) -> int:
    return sum(cost.flops for cost in costs if cost.needed_by & mask and cost.when & mask)


def _compute_carried_flops(tensors: int, shared: Collection[SharedCost]) -> list[int]:
    """Compute t_dy of each tensor: the shared FLOPs that its next deeper neighbour is the first to need."""
    carried = [0] * tensors
    for cost in shared:
        first = (cost.needed_by & -cost.needed_by).bit_length() - 1
        if first > 0:
            carried[first - 1] += cost.flops
    return carried
