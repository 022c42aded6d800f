"""Matrix products in bfloat16 as a device computes them that has such instructions, on a processor that has none.

Such a device multiplies bfloat16 numbers exactly, adds up in float32 and rounds the sum to bfloat16 once. The same in
float32 is as exact, and some 20 times faster than PyTorch's emulation on a processor without the instructions.
"""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_any, tree_map

aten = torch.ops.aten
PRODUCTS = {
    aten.mm,
    aten.addmm,
    aten.bmm,
    aten.baddbmm,
    aten._scaled_dot_product_flash_attention_for_cpu,
    aten._scaled_dot_product_flash_attention_for_cpu_backward,
}


class Bf16Products(TorchDispatchMode):
    """Computes the products of bfloat16 tensors in float32, and rounds their results, within its context."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func._overloadpacket not in PRODUCTS or not tree_any(_is_bf16, (args, kwargs)):
            return func(*args, **kwargs)
        widened_args, widened_kwargs = tree_map(_widen, (args, kwargs))
        result = func(*widened_args, **widened_kwargs)
        if func._overloadpacket is aten._scaled_dot_product_flash_attention_for_cpu:
            attention, log_sum_exp = result
            return _round(attention), log_sum_exp  # which is float32 under bfloat16 too
        return tree_map(_round, result)


def _is_bf16(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype == torch.bfloat16


def _widen(value: Any) -> Any:
    return value.float() if _is_bf16(value) else value


def _round(value: Any) -> Any:
    return value.bfloat16() if isinstance(value, torch.Tensor) and value.dtype == torch.float32 else value
