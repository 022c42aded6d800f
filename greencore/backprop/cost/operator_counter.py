"""Count the operators of a step as it runs, and note which gradients each operator of the backward pass serves.

While a node of the autograd graph runs, every operator is noted together with the inputs that its result was computed
from: at the node's end each input gradient names the operators behind it.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from greencore.backprop.cost.autograd_graph import Node, is_leaf
from greencore.backprop.cost.expert_routing import make_grouped_matmul_output
from greencore.backprop.cost.operator_flops import (
    ZERO_FLOPS,
    OpFlops,
    count_layer_norm_backward_flops,
    count_operator_flops,
)

aten = torch.ops.aten


class BackwardOperator:
    """One operator of the backward pass: its FLOPs, and the nodes that get a gradient computed with its help.

    `node` ran it; the sums of gradients that meet at a node are the autograd engine's own and have none.
    """

    __slots__ = ("flops", "node", "serves")

    def __init__(self, flops: OpFlops, node: Node | None, serves: Collection[Node] = ()) -> None:
        self.flops = flops
        self.node = node
        self.serves = set(serves)

    def needed_by(self, reachable: Mapping[Node, int]) -> int:
        """The trained tensors whose gradient needs this operator, as a bit mask."""
        mask = 0
        for node in self.serves:
            mask |= reachable[node]
        return mask


class OperatorRecorder(TorchDispatchMode):
    """Records a forward pass in `forward` and, of the nodes given to `register_backward_hooks`, the backward in
    `backward`.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.forward: list[OpFlops] = []
        self.backward: list[BackwardOperator] = []
        self._in_backward = False
        self._weights: frozenset[Node] = frozenset()
        self._paused = False
        self._node: Node | None = None
        # An id names a tensor only for as long as it lives: what is noted about one is kept together with it.
        self._origins: dict[int, tuple[torch.Tensor, frozenset[int]]] = {}
        self._gradient_receivers: dict[int, tuple[torch.Tensor, frozenset[Node]]] = {}

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Record nothing of what runs within."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    @property
    def is_paused(self) -> bool:
        """Whether what runs now is not recorded."""
        return self._paused

    def register_backward_hooks(self, nodes: Collection[Node], *, weights: Collection[Node] = ()) -> None:
        """Record the backward pass through these nodes, which is about to run; `weights` accumulate gradients free."""
        self._in_backward = True
        self._weights = frozenset(weights)
        for node in nodes:
            if not is_leaf(node):
                self._register_hooks(node)

    def add_marker(self) -> int:
        """The index of a new entry of `backward` without FLOPs, which serves what is computed from tensors that it
        is attached to.
        """
        return self._append_operator(ZERO_FLOPS, None)

    def attach_marker(self, tensor: torch.Tensor, marker: int) -> None:
        """Let what the running node computes from `tensor` be served by `backward[marker]`."""
        if self._node is not None:
            self._set_origin(tensor, self._get_origin(tensor) | {marker})

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.namespace != "aten":
            return func(*args, **kwargs)
        out = make_grouped_matmul_output(*args, **kwargs) if func is aten._grouped_mm.default else func(*args, **kwargs)
        if self._paused:
            return out
        if self._node is not None:
            self._record_backward(func, args, kwargs, out)
        elif not self._in_backward:
            flops = count_operator_flops(func, args, kwargs, out)
            if flops.total:
                self.forward.append(flops)
        elif func._overloadpacket in (aten.add, aten.add_):
            self._record_gradient_sum(func, args, kwargs, out)
        return out

    def _register_hooks(self, node: Node) -> None:
        def before(_: Any) -> None:
            self._node = node

        def after(grad_inputs: tuple[torch.Tensor | None, ...], _: Any) -> None:
            for (child, _index), grad in zip(node.next_functions, grad_inputs, strict=False):
                if child is None or grad is None:
                    continue
                for index in self._get_origin(grad):
                    self.backward[index].serves.add(child)
                _, receivers = self._gradient_receivers.get(id(grad), (grad, frozenset()))
                self._gradient_receivers[id(grad)] = grad, receivers | {child}
            self._node = None
            self._origins = {}

        node.register_prehook(before)
        node.register_hook(after)

    def _record_backward(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        origin: frozenset[int] = frozenset()
        for value in tree_iter((args, kwargs)):
            if isinstance(value, torch.Tensor):
                origin |= self._get_origin(value)
        if func._overloadpacket is aten.native_layer_norm_backward:
            for result, total in zip(out, count_layer_norm_backward_flops(args[0]), strict=True):
                if result is not None:
                    self._set_origin(result, origin | {self._append_operator(OpFlops(total=total), self._node)})
            return
        flops = count_operator_flops(func, args, kwargs, out)
        if flops.total:
            origin |= {self._append_operator(flops, self._node)}
        if origin:
            for result in tree_iter(out):
                if isinstance(result, torch.Tensor):
                    self._set_origin(result, origin)

    def _record_gradient_sum(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: torch.Tensor) -> None:
        """Gradients that reach a node along several paths are added up between nodes."""
        receivers = [
            self._gradient_receivers[id(value)][1] for value in args[:2] if id(value) in self._gradient_receivers
        ]
        if receivers:
            both = frozenset.intersection(*receivers) or receivers[0]
            if not both <= self._weights:
                self._append_operator(count_operator_flops(func, args, kwargs, out), None, both)
            self._gradient_receivers[id(out)] = out, both

    def _append_operator(self, flops: OpFlops, node: Node | None, serves: Collection[Node] = ()) -> int:
        self.backward.append(BackwardOperator(flops, node, serves))
        return len(self.backward) - 1

    def _get_origin(self, tensor: torch.Tensor) -> frozenset[int]:
        noted = self._origins.get(id(tensor))
        return noted[1] if noted else frozenset()

    def _set_origin(self, tensor: torch.Tensor, origin: frozenset[int]) -> None:
        self._origins[id(tensor)] = tensor, origin
