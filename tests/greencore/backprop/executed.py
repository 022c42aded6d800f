"""FLOPs that a real step executes, to compare profiles with."""

from collections.abc import Collection
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from greencore.backprop.cost.operator_flops import (
    COUNTED_ATTENTION,
    ZERO_FLOP_OPERATORS,
    ZERO_FLOPS,
    OpFlops,
    count_operator_flops,
)

aten = torch.ops.aten
Batch = dict[str, torch.Tensor]


class OperatorFlopCounter(TorchDispatchMode):
    """Counts the FLOPs of every operator; `unlisted` ones make floats at no FLOPs and are no data moves."""

    def __init__(self, embedding: torch.Size) -> None:
        """`embedding` is the shape of the only weight with two uses, whose gradients are added at no cost."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._embedding = embedding
        self.flops: OpFlops = ZERO_FLOPS
        self.unlisted: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func.namespace == "aten":
            flops = count_operator_flops(func, args, kwargs, out)
            if func is aten.add.Tensor and out.shape == self._embedding:
                return out
            self.flops += flops
            floats = [leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]
            moves = func.is_view or func._overloadpacket in ZERO_FLOP_OPERATORS
            if floats and not moves and not flops.total and max(leaf.numel() for leaf in floats):
                self.unlisted.add(str(func))
        return out


def train_only(model: torch.nn.Module, names: Collection[str]) -> None:
    """Freeze all other tensors, and drop all gradients."""
    unknown = set(names) - {name for name, _ in model.named_parameters()}
    assert not unknown, unknown
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
        parameter.grad = None


def count_executed_flops(model: torch.nn.Module, batch: Batch, names: Collection[str]) -> OpFlops:
    """Count every FLOP of a real step that trains only these tensors."""
    train_only(model, names)
    embedding = model.get_input_embeddings().weight  # type: ignore[operator]
    executed = OperatorFlopCounter(embedding.shape)
    with executed:
        model(**batch).loss.backward()
    return executed.flops


def count_torch_flops(model: torch.nn.Module, batch: Batch, names: Collection[str]) -> int:
    """Count the FLOPs, by torch's FlopCounterMode, of a real step that trains only these tensors."""
    train_only(model, names)
    with torch_flop_counter() as counter:
        model(**batch).loss.backward()
    return int(counter.get_total_flops())


def torch_flop_counter() -> FlopCounterMode:
    """Return torch's counter, with our count of attention alone where torch's refuses heads that share keys."""
    return FlopCounterMode(display=False, custom_mapping={} if counts_shared_heads() else _list_own_formulas())


def counts_shared_heads() -> bool:
    """Return whether torch's counter knows attention whose heads share keys, as from torch 2.13 on."""
    try:
        sdpa_flop_count((1, 2, 1, 1), (1, 1, 1, 1), (1, 1, 1, 1))
    except AssertionError:
        return False
    return True


def _list_own_formulas() -> dict[Any, Any]:
    def build_formula(count: Any) -> Any:
        def formula(*args: Any, out_val: Any = None, **_: Any) -> int:
            return int(count(*args))

        formula._get_raw = True  # type: ignore[attr-defined]  # called with tensors, not with their shapes
        return formula

    return {packet: build_formula(count) for packet, count in COUNTED_ATTENTION.items()}
