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

from greencore.backprop.experts import grouped_product
from greencore.backprop.flops import FREE, OpFlops, layer_norm_backward_flops, op_flops
from greencore.backprop.graph import Node, is_leaf

aten = torch.ops.aten


class Work:
    """One operator of the backward pass: its FLOPs, and the nodes that get a gradient computed with its help.

    `node` ran it; the sums of gradients that meet at a node are the autograd engine's own and have none.
    """

    __slots__ = ("flops", "node", "serves")

    def __init__(self, flops: OpFlops, node: Node | None, serves: Collection[Node] = ()) -> None:
        self.flops = flops
        self.node = node
        self.serves = set(serves)

    def needed_by(self, reached: Mapping[Node, int]) -> int:
        """The trained tensors whose gradient needs this operator, as a bit mask."""
        mask = 0
        for node in self.serves:
            mask |= reached[node]
        return mask


class Recorder(TorchDispatchMode):
    """Records a forward pass in `forward` and, of the nodes that it `watch`es, the backward pass in `backward`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.forward: list[OpFlops] = []
        self.backward: list[Work] = []
        self._watching = False
        self._weights: frozenset[Node] = frozenset()
        self._aside = False
        self._node: Node | None = None
        # An id names a tensor only for as long as it lives: what is noted about one is kept together with it.
        self._origins: dict[int, tuple[torch.Tensor, frozenset[int]]] = {}
        self._delivered: dict[int, tuple[torch.Tensor, frozenset[Node]]] = {}

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Record nothing of what runs within."""
        self._aside = True
        try:
            yield
        finally:
            self._aside = False

    @property
    def is_aside(self) -> bool:
        """Whether what runs now is not recorded."""
        return self._aside

    def watch(self, nodes: Collection[Node], *, weights: Collection[Node] = ()) -> None:
        """Record the backward pass through these nodes, which is about to run; `weights` accumulate gradients free."""
        self._watching = True
        self._weights = frozenset(weights)
        for node in nodes:
            if not is_leaf(node):
                self._watch(node)

    def marker(self) -> int:
        """The index of a new entry of `backward` without FLOPs, which serves what is computed from `mark`ed tensors."""
        return self._append(FREE, None)

    def mark(self, tensor: torch.Tensor, marker: int) -> None:
        """Let what the running node computes from `tensor` be served by `backward[marker]`."""
        if self._node is not None:
            self._note(tensor, self._origin_of(tensor) | {marker})

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.namespace != "aten":
            return func(*args, **kwargs)
        out = grouped_product(*args, **kwargs) if func is aten._grouped_mm.default else func(*args, **kwargs)
        if self._aside:
            return out
        if self._node is not None:
            self._record_backward(func, args, kwargs, out)
        elif not self._watching:
            flops = op_flops(func, args, kwargs, out)
            if flops.total:
                self.forward.append(flops)
        elif func._overloadpacket in (aten.add, aten.add_):
            self._record_sum(func, args, kwargs, out)
        return out

    def _watch(self, node: Node) -> None:
        def before(_: Any) -> None:
            self._node = node

        def after(grad_inputs: tuple[torch.Tensor | None, ...], _: Any) -> None:
            for (child, _index), grad in zip(node.next_functions, grad_inputs, strict=False):
                if child is None or grad is None:
                    continue
                for work in self._origin_of(grad):
                    self.backward[work].serves.add(child)
                _, receivers = self._delivered.get(id(grad), (grad, frozenset()))
                self._delivered[id(grad)] = grad, receivers | {child}
            self._node = None
            self._origins = {}

        node.register_prehook(before)
        node.register_hook(after)

    def _record_backward(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        origin: frozenset[int] = frozenset()
        for value in tree_iter((args, kwargs)):
            if isinstance(value, torch.Tensor):
                origin |= self._origin_of(value)
        if func._overloadpacket is aten.native_layer_norm_backward:
            for result, total in zip(out, layer_norm_backward_flops(args[0]), strict=True):
                if result is not None:
                    self._note(result, origin | {self._append(OpFlops(total=total), self._node)})
            return
        flops = op_flops(func, args, kwargs, out)
        if flops.total:
            origin |= {self._append(flops, self._node)}
        if origin:
            for result in tree_iter(out):
                if isinstance(result, torch.Tensor):
                    self._note(result, origin)

    def _record_sum(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: torch.Tensor) -> None:
        """Gradients that reach a node along several paths are added up between nodes."""
        receivers = [self._delivered[id(value)][1] for value in args[:2] if id(value) in self._delivered]
        if receivers:
            both = frozenset.intersection(*receivers) or receivers[0]
            if not both <= self._weights:
                self._append(op_flops(func, args, kwargs, out), None, both)
            self._delivered[id(out)] = out, both

    def _append(self, flops: OpFlops, node: Node | None, serves: Collection[Node] = ()) -> int:
        self.backward.append(Work(flops, node, serves))
        return len(self.backward) - 1

    def _origin_of(self, tensor: torch.Tensor) -> frozenset[int]:
        noted = self._origins.get(id(tensor))
        return noted[1] if noted else frozenset()

    def _note(self, tensor: torch.Tensor, origin: frozenset[int]) -> None:
        self._origins[id(tensor)] = tensor, origin
