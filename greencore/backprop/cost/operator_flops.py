"""FLOPs of single ATen operators: matrix products as torch counts them, all others per element.

One multiply-accumulate is 2 FLOPs. Outside matrix products each elementary operation on an element (add, multiply, exp,
rsqrt, …) is one FLOP; a fused kernel counts as the elementary operations that it fuses. Moving, casting, comparing and
indexing are free, and so is the embedding's gradient, which only assigns rows (paper Eq. 6). Accumulating a weight's
gradient, over steps or over several uses of the weight, is free too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

aten = torch.ops.aten


@dataclass(frozen=True)
class OpFlops:
    """FLOPs of executed operators: `total`, of which `products` are matrix products.

    `counted` is the part of the products that torch's FlopCounterMode counts.
    """

    counted: int = 0
    products: int = 0
    total: int = 0

    def __add__(self, other: "OpFlops") -> "OpFlops":
        return OpFlops(self.counted + other.counted, self.products + other.products, self.total + other.total)

    def __neg__(self) -> "OpFlops":
        return OpFlops(-self.counted, -self.products, -self.total)


ZERO_FLOPS = OpFlops()

# Operators without arithmetic. Views need no entry.
ZERO_FLOP_OPERATORS = {
    *(aten.cat, aten.clone, aten.constant_pad_nd, aten.copy_, aten.lift_fresh, aten.stack),  # move
    *(aten._to_copy, aten._unsafe_view),  # cast
    *(aten.embedding, aten.gather, aten.index, aten.index_select, aten.tril, aten.triu, aten.where),  # select
    *(aten.embedding_dense_backward, aten.nll_loss_backward, aten.select_backward, aten.slice_backward),
    *(aten._index_put_impl_, aten.index_put, aten.index_put_, aten.scatter, aten.masked_fill, aten.masked_fill_),
    *(aten.bernoulli_, aten.histc, aten.sort, aten.topk),  # sample, count, order
    *(aten.empty, aten.empty_like, aten.new_empty, aten.new_empty_strided, aten.scalar_tensor),  # fill
    *(aten.fill, aten.fill_, aten.full, aten.full_like, aten.ones, aten.ones_like, aten.new_ones),
    *(aten.zero_, aten.zeros, aten.zeros_like, aten.new_zeros),
}

# Elementary operations per element of the output.
FLOPS_PER_OUTPUT_ELEMENT = {
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
    aten._safe_softmax: 5,
    aten._softmax_backward_data: 4,  # multiply, sum, subtract, multiply
    aten._log_softmax: 5,
    aten._log_softmax_backward_data: 4,
    aten.native_dropout: 1,
    aten.native_dropout_backward: 1,
}

# Elementary operations per element of the first input.
FLOPS_PER_INPUT_ELEMENT = {
    aten.sum: 1,
    aten.mean: 1,
    aten.cumsum: 1,
    aten.var: 3,
    aten.var_mean: 4,
    aten.linalg_vector_norm: 2,
    aten.native_layer_norm: 8,  # mean 1, variance 3, normalise 2, scale and shift 2
    aten._fused_rms_norm: 5,  # square, mean, normalise 2, scale
}

# Per score of fused attention: scale, softmax (5); backward: recomputed score (3), softmax (4), scale.
ATTENTION_FLOPS_PER_SCORE, ATTENTION_BACKWARD_FLOPS_PER_SCORE = 6, 8

FUSED_ATTENTION = {
    aten._scaled_dot_product_flash_attention_for_cpu,
    aten._scaled_dot_product_flash_attention,
    aten._scaled_dot_product_efficient_attention,
    aten._scaled_dot_product_cudnn_attention,
    aten._flash_attention_forward,
    aten._efficient_attention_forward,
}
FUSED_ATTENTION_BACKWARD = {
    aten._scaled_dot_product_flash_attention_for_cpu_backward,
    aten._scaled_dot_product_flash_attention_backward,
    aten._scaled_dot_product_efficient_attention_backward,
    aten._scaled_dot_product_cudnn_attention_backward,
    aten._flash_attention_backward,
    aten._efficient_attention_backward,
}


def _count_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: object) -> int:
    return int(sdpa_flop_count(query.shape, _repeat_heads(key, query), _repeat_heads(value, query)))


def _count_attention_backward(
    grad: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: object
) -> int:
    shapes = (query.shape, _repeat_heads(key, query), _repeat_heads(value, query))
    return int(sdpa_backward_flop_count(grad.shape, *shapes))


def _repeat_heads(shared: torch.Tensor, query: torch.Tensor) -> tuple[int, ...]:
    """Return the shape of keys or values with as many heads as the query: several of its may share one of theirs."""
    return (shared.shape[0], query.shape[1], *shared.shape[2:])


# In torch's counter as well, which before torch 2.13 refuses heads of keys and values that several of the query share.
COUNTED_ATTENTION: dict[Any, Callable[..., int]] = {
    aten._scaled_dot_product_flash_attention: _count_attention,
    aten._scaled_dot_product_efficient_attention: _count_attention,
    aten._scaled_dot_product_cudnn_attention: _count_attention,
    aten._scaled_dot_product_flash_attention_backward: _count_attention_backward,
    aten._scaled_dot_product_efficient_attention_backward: _count_attention_backward,
    aten._scaled_dot_product_cudnn_attention_backward: _count_attention_backward,
}

# Matrix products without an entry in torch's counter: fused attention of the CPU, and grouped products of experts, of
# rows sorted into groups, each multiplied by its group's matrix or for that matrix's gradient.
UNCOUNTED_MATMULS: dict[Any, Callable[..., int]] = {
    aten._scaled_dot_product_flash_attention_for_cpu: _count_attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _count_attention_backward,
    aten._grouped_mm: lambda left, right, *_: 2 * left.numel() * right.shape[-1],
}


def count_operator_flops(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> OpFlops:
    """Count the FLOPs of one call of an ATen overload from the shapes of its arguments and result."""
    packet = func._overloadpacket
    if packet in COUNTED_ATTENTION:
        products = counted = COUNTED_ATTENTION[packet](*args)
    elif packet in flop_registry:
        products = counted = int(flop_registry[packet](*args, **kwargs, out_val=out))
    elif packet in UNCOUNTED_MATMULS:
        products, counted = int(UNCOUNTED_MATMULS[packet](*args)), 0
    else:
        return OpFlops(total=_count_elementwise_flops(func, packet, args, out))
    return OpFlops(counted, products, products + _count_fused_elementwise_flops(packet, args, products, out))


def count_layer_norm_backward_flops(grad: torch.Tensor) -> tuple[int, int, int]:
    """Count the FLOPs of the fused layer-norm backward: of the gradients of input, scale and shift.

    Eight elementary operations an element for dx, a product and a sum for the scale, a sum for the shift.
    """
    elements = grad.numel()
    return 8 * elements, 2 * elements, elements


def _count_elementwise_flops(func: Any, packet: Any, args: tuple[Any, ...], out: Any) -> int:
    if packet in ZERO_FLOP_OPERATORS:
        return 0
    if packet is aten.native_layer_norm_backward:
        parts = zip(count_layer_norm_backward_flops(args[0]), out, strict=True)
        return sum(flops for flops, part in parts if part is not None)
    result = out[0] if isinstance(out, (tuple, list)) and out else out
    if not isinstance(result, torch.Tensor) or not result.is_floating_point():
        return 0
    if packet is aten.nll_loss_forward:
        return int(args[1].numel())  # the mean of one log-probability a token
    if packet in FLOPS_PER_OUTPUT_ELEMENT:
        return FLOPS_PER_OUTPUT_ELEMENT[packet] * result.numel()
    if packet in FLOPS_PER_INPUT_ELEMENT:
        return FLOPS_PER_INPUT_ELEMENT[packet] * int(args[0].numel())
    return result.numel() if torch.Tag.pointwise in func.tags else 0


def _count_fused_elementwise_flops(packet: Any, args: tuple[Any, ...], products: int, out: Any) -> int:
    """Count the elementwise FLOPs of a matrix-product kernel: a bias added, a softmax between two products."""
    if packet is aten.addmm:
        return int(out.numel())
    if packet is aten.baddbmm:
        return 2 * int(out.numel())  # scaled and added
    if packet in FUSED_ATTENTION:
        query, value = args[0], args[2]
        scores = products // (2 * (query.shape[-1] + value.shape[-1]))
        return ATTENTION_FLOPS_PER_SCORE * int(scores)
    if packet in FUSED_ATTENTION_BACKWARD:
        query, value = args[1], args[3]
        scores = products // (2 * (3 * query.shape[-1] + 2 * value.shape[-1]))
        return ATTENTION_BACKWARD_FLOPS_PER_SCORE * int(scores)
    return 0
