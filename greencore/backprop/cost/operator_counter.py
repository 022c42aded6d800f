"""Record the operators of a step as it runs, and the gradients that each backward operator serves.

While a node of the autograd graph runs, every operator is recorded with the operators behind its inputs, so that at the
node's end each input gradient is attributed to the operators that computed it.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.hooks import RemovableHandle

from greencore.backprop.cost.autograd_graph import Node, is_leaf
from greencore.backprop.cost.expert_routing import make_grouped_matmul_output
from greencore.backprop.cost.operator_flops import (
    ZERO_FLOPS,
    OpFlops,
    count_layer_norm_backward_flops,
    count_operator_flops,
)

aten = torch.ops.aten
# The autograd engine asks for a device more often than it runs operators, and FakeTensorMode is slow to answer.
GET_DEVICE = torch.ops.prim.device.default


class BackwardOperator:
    """One operator of the backward pass: its FLOPs, and the nodes whose gradients it helps to compute.

    `node` ran it; None for sums of gradients that meet at a node, which the autograd engine runs itself.
    """

    __slots__ = ("flops", "node", "serves")

    def __init__(self, flops: OpFlops, node: Node | None, serves: Collection[Node] = ()) -> None:
        self.flops = flops
        self.node = node
        self.serves = set(serves)

    def needed_by(self, reachable: Mapping[Node, int]) -> int:
        """Return the trained tensors whose gradient needs this operator, as a bit mask."""
        mask = 0
        for node in self.serves:
            mask |= reachable[node]
        return mask


class OperatorRecorder(TorchDispatchMode):
    """Records operators: of a forward pass in `forward`, of the nodes with backward hooks in `backward`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.forward: list[OpFlops] = []
        self.backward: list[BackwardOperator] = []
        self._in_backward = False
        self._weights: frozenset[Node] = frozenset()
        self._paused = False
        self._hooks: list[RemovableHandle] = []
        self._node: Node | None = None
        # An id identifies a tensor only while the tensor is alive, so each entry keeps its tensor.
        self._origins: dict[int, tuple[torch.Tensor, frozenset[int]]] = {}
        self._gradient_receivers: dict[int, tuple[torch.Tensor, frozenset[Node]]] = {}

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        # A hook refers to its node, and through the recorder to all others: a cycle that is never collected.
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Pause the recording within the context."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    @property
    def is_paused(self) -> bool:
        """Whether the recording is paused."""
        return self._paused

    def register_backward_hooks(self, nodes: Collection[Node], *, weights: Collection[Node] = ()) -> None:
        """Record the coming backward pass of these nodes; accumulation into `weights` costs no FLOPs."""
        self._in_backward = True
        self._weights = frozenset(weights)
        for node in nodes:
            if not is_leaf(node):
                self._register_hooks(node)

    def add_marker(self) -> int:
        """Append an entry without FLOPs to `backward`, to be attached to tensors, and return its index."""
        return self._append_operator(ZERO_FLOPS, None)

    def attach_marker(self, tensor: torch.Tensor, marker: int) -> None:
        """Make `backward[marker]` serve what the running node computes from `tensor`."""
        if self._node is not None:
            self._set_origin(tensor, self._get_origin(tensor) | {marker})

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is GET_DEVICE and isinstance(args[0], FakeTensor):
            return args[0].fake_device
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

        self._hooks += node.register_prehook(before), node.register_hook(after)

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
        """Record the engine's sum of gradients that reach a node along several paths."""
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
        _, origin = self._origins.get(id(tensor), (tensor, frozenset()))
        return origin

    def _set_origin(self, tensor: torch.Tensor, origin: frozenset[int]) -> None:
        self._origins[id(tensor)] = tensor, origin
