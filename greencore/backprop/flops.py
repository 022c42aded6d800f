"""FLOPs of single ATen operators: matrix products as torch counts them, everything else element by element.

One multiply-accumulate is 2 FLOPs. Outside matrix products every elementary operation on an element (add, multiply,
exp, rsqrt, …) is one FLOP; a fused kernel counts as the elementary steps that it fuses. Moving, casting, comparing
and indexing are free, and so is the embedding's gradient, which only assigns rows (paper Eq. 6).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

aten = torch.ops.aten


@dataclass(frozen=True)
class OpFlops:
    """FLOPs of one executed operator; `counted` is the part that torch's FlopCounterMode counts."""

    counted: int
    total: int


FREE = OpFlops(0, 0)

MOVES = {
    aten._to_copy,
    aten.clone,
    aten.copy_,
    aten.where,
    aten.masked_fill,
    aten.fill,
    aten.zero_,
    aten.ones_like,
    aten.zeros_like,
    aten.expand,
    aten.detach,
    aten.alias,
    aten.lift_fresh,
}

# Elementary operations per element of the output.
STEPS_PER_OUTPUT = {
    aten.silu: 4,  # negate, exp, add, divide
    aten.silu_backward: 8,
    aten.sigmoid: 3,
    aten.gelu: 8,  # the tanh form: x³, scale, add, scale, tanh, add, halve, multiply
    aten.gelu_backward: 16,
    aten.tanh_backward: 3,
    aten.sigmoid_backward: 3,
    aten.addcmul: 3,
    aten.addcdiv: 3,
    aten._softmax: 5,  # maximum, subtract, exp, sum, divide
    aten._softmax_backward_data: 4,  # multiply, sum, subtract, multiply
    aten._log_softmax: 5,
    aten._log_softmax_backward_data: 4,
}

# Elementary operations per element of the first input.
STEPS_PER_INPUT = {
    aten.sum: 1,
    aten.mean: 1,
    aten.cumsum: 1,
    aten.var: 3,
    aten.var_mean: 4,
    aten.linalg_vector_norm: 2,
    aten.native_layer_norm: 8,  # mean 1, variance 3, normalise 2, scale and shift 2
    aten._fused_rms_norm: 5,  # square, mean, normalise 2, scale
}


def _cpu_attention(args: tuple[Any, ...]) -> int:
    query, key, value = args[:3]
    return int(sdpa_flop_count(query.shape, key.shape, value.shape))


def _cpu_attention_backward(args: tuple[Any, ...]) -> int:
    grad_out, query, key, value = args[:4]
    return int(sdpa_backward_flop_count(grad_out.shape, query.shape, key.shape, value.shape))


# torch's counter has no entry for the fused attention of the CPU, though it multiplies the same matrices.
UNCOUNTED_PRODUCTS: dict[Any, Callable[[tuple[Any, ...]], int]] = {
    aten._scaled_dot_product_flash_attention_for_cpu: _cpu_attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _cpu_attention_backward,
}


def op_flops(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> OpFlops:
    """FLOPs of one call of an ATen overload, from the shapes of its arguments and result."""
    packet = func._overloadpacket
    if packet in flop_registry:
        flops = int(flop_registry[packet](*args, **kwargs, out_val=out))
        bias = out.numel() if packet is aten.addmm else 0
        return OpFlops(flops, flops + bias)
    if packet in UNCOUNTED_PRODUCTS:
        return OpFlops(0, UNCOUNTED_PRODUCTS[packet](args))
    if packet in MOVES:
        return FREE
    result = out[0] if isinstance(out, (tuple, list)) and out else out
    if not isinstance(result, torch.Tensor) or not result.is_floating_point():
        return FREE
    if packet in STEPS_PER_OUTPUT:
        return OpFlops(0, STEPS_PER_OUTPUT[packet] * result.numel())
    if packet in STEPS_PER_INPUT:
        return OpFlops(0, STEPS_PER_INPUT[packet] * args[0].numel())
    if torch.Tag.pointwise in func.tags:
        return OpFlops(0, result.numel())
    return FREE


def layer_norm_backward_flops(grad: torch.Tensor) -> tuple[int, int, int]:
    """FLOPs of the fused layer-norm backward, apart: the input's gradient, the scale's, the shift's.

    Eight elementary operations an element for dx, a product and a sum for the scale, a sum for the shift.
    """
    elements = grad.numel()
    return 8 * elements, 2 * elements, elements
