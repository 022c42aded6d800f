"""Conditional FLOPs of attention with a learned bias, such as T5's relative position bias.

torch's fused CPU kernels compute no gradient of the bias. While the bias is trained, products and softmax run as
separate operators in both passes; otherwise one fused kernel runs. So training the bias changes the cost of operators
that serve other tensors. The trace runs such a call with the trained bias; here it runs again without.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from greencore.backprop.cost.autograd_graph import (
    BackwardFlops,
    Node,
    collect_reachable_nodes,
    compute_reachable_tensors,
    get_gradient_node,
)
from greencore.backprop.cost.operator_counter import BackwardOperator, OperatorRecorder
from greencore.backprop.cost.operator_flops import ZERO_FLOPS, OpFlops

ATTENTION_ARGUMENTS = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
ATTENTION_INPUTS = ("query", "key", "value")


@dataclass(frozen=True)
class BiasedAttention:
    """One attention call traced with its bias trained: it ran `forward[start:stop]` and, backward, `nodes`.

    `bias` is the bias's node; `fused_forward` and `fused_backward` run while it is frozen.
    """

    bias: Node
    start: int
    stop: int
    nodes: frozenset[Node]
    fused_forward: OpFlops
    fused_backward: tuple[BackwardOperator, ...]

    def list_backward_flops(
        self,
        recorder: OperatorRecorder,
        reachable: Mapping[Node, int],
        recomputed_for: Mapping[int, int],
        all_tensors: int,
    ) -> list[BackwardFlops]:
        """List all FLOPs of the call except `fused_forward`, which the caller counts as forward FLOPs.

        `recomputed_for` maps forward operators to the tensors whose gradient makes them run again. The unconditional
        part is the fused call's cost, plus enough for the bias that the sum is never too low; the part conditional on
        the bias (`when`) corrects it to the operators that then run.
        """
        bias = reachable[self.bias]
        separate = [(flops, all_tensors) for flops in recorder.forward[self.start : self.stop]]
        separate += [
            (recorder.forward[index], recomputed_for[index])
            for index in range(self.start, self.stop)
            if index in recomputed_for
        ]
        separate += [
            (operator.flops, operator.needed_by(reachable))
            for operator in recorder.backward
            if operator.node in self.nodes
        ]
        fused = [(op.flops, op.needed_by(reachable)) for op in self.fused_backward]
        if self.start in recomputed_for:
            fed = recomputed_for[self.stop - 1]
            for _, needed_by in fused:
                fed |= needed_by
            fused.append((self.fused_forward, fed))
        surely_fused = self.fused_forward.total + sum(flops.total for flops, mask in fused if bias & ~mask == 0)
        extra = OpFlops(total=max(0, sum(flops.total for flops, _ in separate) - surely_fused))
        fixed = [BackwardFlops(flops, mask) for flops, mask in [*fused, (extra, bias)]]
        correction = [
            (-self.fused_forward, all_tensors),
            *((-flops, mask) for flops, mask in fused),
            (-extra, bias),
            *separate,
        ]
        return fixed + [BackwardFlops(flops, mask, when=bias) for flops, mask in correction]


class ForwardObserver(TorchFunctionMode):
    """Collects the `always_needed` nodes and the `biased` attention calls of a forward pass."""

    def __init__(self, recorder: OperatorRecorder) -> None:
        super().__init__()
        self.always_needed: set[Node] = set()  # they get a gradient whatever is trained
        self.biased: list[BiasedAttention] = []
        self._recorder = recorder
        # by the shapes of a call, which most layers share
        self._kernels: dict[tuple[Any, ...], _FusedKernels | None] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.nn.functional.scaled_dot_product_attention:
            return self._record_attention(func, dict(zip(ATTENTION_ARGUMENTS, args, strict=False)) | kwargs)
        out = func(*args, **kwargs)
        if func is torch.Tensor.requires_grad_ and args[0].requires_grad and not args[0].is_leaf:
            self.always_needed.add(args[0].grad_fn)
        return out

    def _record_attention(self, func: Any, arguments: dict[str, Any]) -> Any:
        start = len(self._recorder.forward)
        out = func(**arguments)
        mask = arguments.get("attn_mask")
        if mask is None or not mask.requires_grad or not torch.is_grad_enabled():
            return out
        stop = len(self._recorder.forward)
        call = tuple(
            (name, value.shape, value.dtype, value.requires_grad) if isinstance(value, torch.Tensor) else (name, value)
            for name, value in arguments.items()
        )
        if call not in self._kernels:
            self._kernels[call] = self._trace_without_bias(func, arguments, self._recorder.forward[start:stop])
        kernels = self._kernels[call]
        if kernels is None:
            return out
        inputs = [
            get_gradient_node(arguments[name]) if arguments[name].requires_grad else None for name in ATTENTION_INPUTS
        ]
        fused = tuple(
            BackwardOperator(flops, None, [node for bit, node in enumerate(inputs) if serves >> bit & 1])
            for flops, serves in kernels.backward
        )
        nodes = frozenset(collect_reachable_nodes([out.grad_fn], stop={*inputs, get_gradient_node(mask)}))
        self.biased.append(BiasedAttention(get_gradient_node(mask), start, stop, nodes, kernels.forward, fused))
        return out

    def _trace_without_bias(
        self, func: Any, arguments: dict[str, Any], with_bias: list[OpFlops]
    ) -> "_FusedKernels | None":
        """Trace the call with its bias frozen; None if the same operators run."""
        recorder = OperatorRecorder()
        inputs = {
            name: arguments[name].detach().requires_grad_(arguments[name].requires_grad) for name in ATTENTION_INPUTS
        }
        with self._recorder.pause(), recorder:
            out = func(**arguments | inputs | {"attn_mask": arguments["attn_mask"].detach()})
            if recorder.forward == with_bias:
                return None
            forward = sum(recorder.forward, ZERO_FLOPS)
            if not out.requires_grad:
                return _FusedKernels(forward, ())
            nodes = collect_reachable_nodes([out.grad_fn])
            recorder.register_backward_hooks(nodes)
            out.backward(torch.empty_like(out))
        bits = {id(value): 1 << bit for bit, value in enumerate(inputs.values())}
        reachable = compute_reachable_tensors(nodes, bits, always_needed=(), all_tensors=0)
        return _FusedKernels(
            forward, tuple((operator.flops, operator.needed_by(reachable)) for operator in recorder.backward)
        )


@dataclass(frozen=True)
class _FusedKernels:
    """FLOPs of one fused call forward, and backward with a bit for each of `ATTENTION_INPUTS` that they serve."""

    forward: OpFlops
    backward: tuple[tuple[OpFlops, int], ...]
