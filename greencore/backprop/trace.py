"""Trace one training step on tensors without data, and tell which gradients need which operators (paper §3.1).

The step runs under FakeTensorMode, so it costs no memory and picks the kernels of the model's own device. While a
node of the autograd graph runs, every operator is noted together with the inputs that its result was computed from:
at the node's end each input gradient names the operators behind it. An operator is executed in a real step if and
only if some trained tensor is reachable through such an input, whatever the model family.
"""

from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from greencore.backprop.flops import OpFlops, layer_norm_backward_flops, op_flops

aten = torch.ops.aten
Batch = Mapping[str, torch.Tensor]


class TraceError(ValueError):
    """The model cannot be traced with this batch; the message says what is missing."""


@dataclass(frozen=True)
class BackwardOp:
    """FLOPs of a backward operator and the tensors that need it, as a bit mask over `Trace.tensors`."""

    flops: OpFlops
    needed_by: int


@dataclass(frozen=True)
class Trace:
    """One step: `tensors` in the order in which their gradients become complete, from output to input."""

    tensors: tuple[tuple[str, int], ...]
    forward: OpFlops
    backward: tuple[BackwardOp, ...]


class _Recorder(TorchDispatchMode):
    """Counts operators; between `begin` and `end` of a node it also keeps what each result was computed from."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counted = self.total = 0
        self.ops: list[OpFlops] = []
        self.origins: dict[int, set[int]] = {}
        self._alive: list[torch.Tensor] = []
        self._inside = False

    def begin(self) -> None:
        self.origins, self._alive, self._inside = {}, [], True

    def end(self) -> None:
        self.origins, self._alive, self._inside = {}, [], False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func.namespace != "aten":
            return out
        if not self._inside:
            flops = op_flops(func, args, kwargs, out)
            self.counted += flops.counted
            self.total += flops.total
            return out
        origin: set[int] = set()
        for value in tree_iter((args, kwargs)):
            if isinstance(value, torch.Tensor):
                origin |= self.origins.get(id(value), set())
        if func._overloadpacket is aten.native_layer_norm_backward:
            parts = layer_norm_backward_flops(args[0])
            for result, flops_of_part in zip(out, parts, strict=True):
                self._note(result, origin, OpFlops(0, flops_of_part))
            return out
        flops = op_flops(func, args, kwargs, out)
        if flops.total:
            self.ops.append(flops)
            origin = origin | {len(self.ops) - 1}
        for result in tree_iter(out):
            if isinstance(result, torch.Tensor):
                self._keep(result, origin)
        return out

    def _note(self, result: torch.Tensor | None, origin: set[int], flops: OpFlops) -> None:
        if result is not None:
            self.ops.append(flops)
            self._keep(result, origin | {len(self.ops) - 1})

    def _keep(self, result: torch.Tensor, origin: set[int]) -> None:
        self._alive.append(result)  # an id names a tensor only for as long as it lives
        self.origins[id(result)] = origin


def trace_step(model: torch.nn.Module, batch: Batch, names: frozenset[str] | None = None) -> Trace:
    """Trace forward and backward of `model(**batch).loss` with the named parameters trained (None: all).

    Only the shapes of `batch` matter; its attention mask is left out, since transformers reads values from it. The
    model, which may live on the meta device, is left as it was. Raises `TraceError` where there is no loss, no
    parameter to train, or a named parameter that the model lacks.
    """
    parameters = dict(model.named_parameters())
    unknown = (names or frozenset()) - set(parameters)
    if unknown:
        raise TraceError(f"the model has no parameter named {', '.join(sorted(unknown))}")
    trained = [
        name
        for name, parameter in parameters.items()
        if parameter.is_floating_point() and (names is None or name in names)
    ]
    if not trained:
        raise TraceError("the model has no trainable tensor: nothing is left to profile")
    if batch.get("labels") is None:
        raise TraceError("the batch has no labels, so the model has no loss: add labels of the shape of input_ids")

    recorder = _Recorder()
    completed: list[str] = []
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        stand_ins = {name: fake.from_tensor(parameter.detach()) for name, parameter in parameters.items()}
        for name in trained:
            stand_ins[name].requires_grad_(True)
        buffers = {name: fake.from_tensor(buffer) for name, buffer in model.named_buffers()}
        device = next(iter(parameters.values())).device
        inputs = {
            key: torch.empty(value.shape, dtype=value.dtype, device=device)
            for key, value in batch.items()
            if key != "attention_mask"
        }
        with torch.enable_grad(), _without_hooks(model), recorder:
            output = functional_call(model, {**stand_ins, **buffers}, kwargs=inputs)
            loss = getattr(output, "loss", None)
            if loss is None or loss.grad_fn is None:
                raise TraceError(f"{type(model).__name__} returns no loss that depends on a trained tensor")
            forward = OpFlops(recorder.counted, recorder.total)
            leaves = {id(stand_ins[name]): name for name in trained}
            for name in trained:
                stand_ins[name].register_post_accumulate_grad_hook(lambda _, name=name: completed.append(name))
            needed_by = _backward(loss, recorder, leaves, completed)
    order = {name: index for index, name in enumerate(completed)}
    return Trace(
        tensors=tuple((name, parameters[name].numel()) for name in completed),
        forward=forward,
        backward=tuple(
            BackwardOp(flops, sum(1 << order[name] for name in names_of))
            for flops, names_of in zip(recorder.ops, needed_by, strict=True)
            if names_of
        ),
    )


def _backward(
    loss: torch.Tensor, recorder: _Recorder, leaves: Mapping[int, str], completed: list[str]
) -> list[frozenset[str]]:
    """Run the backward pass; for each recorded operator, the names of the tensors whose gradient needs it."""
    assert loss.grad_fn is not None
    reached = _reachable(loss.grad_fn, leaves)
    needed_by: dict[int, frozenset[str]] = {}

    def watch(node: Any) -> None:
        def before(_: Any) -> None:
            recorder.begin()

        def after(grad_inputs: tuple[torch.Tensor | None, ...], _: Any) -> None:
            for (child, _index), grad in zip(node.next_functions, grad_inputs, strict=False):
                if child is None or grad is None:
                    continue
                for op in recorder.origins.get(id(grad), ()):
                    needed_by[op] = needed_by.get(op, frozenset()) | reached[child]
            recorder.end()

        node.register_prehook(before)
        node.register_hook(after)

    for node in reached:
        if not hasattr(node, "variable"):
            watch(node)
    loss.backward()
    return [needed_by.get(op, frozenset()) for op in range(len(recorder.ops))]


def _reachable(root: Any, leaves: Mapping[int, str]) -> dict[Any, frozenset[str]]:
    """For every node of the graph, the trained tensors below it. Equal sets are one object, to keep unions cheap."""
    reached: dict[Any, frozenset[str]] = {}
    shared: dict[frozenset[str], frozenset[str]] = {}
    stack = [(root, False)]
    while stack:
        node, expanded = stack.pop()
        if node in reached:
            continue
        if hasattr(node, "variable"):
            names = frozenset({leaves[id(node.variable)]} if id(node.variable) in leaves else ())
            reached[node] = shared.setdefault(names, names)
            continue
        children = [child for child, _ in node.next_functions if child is not None]
        if expanded:
            names = frozenset().union(*(reached[child] for child in children))
            reached[node] = shared.setdefault(names, names)
        else:
            stack.append((node, True))
            stack.extend((child, False) for child in children if child not in reached)
    return reached


@contextmanager
def _without_hooks(model: torch.nn.Module) -> Any:
    """Run without the hooks on the root module: they are for real steps only."""
    pre, post = model._forward_pre_hooks.copy(), model._forward_hooks.copy()
    model._forward_pre_hooks.clear()
    model._forward_hooks.clear()
    try:
        yield
    finally:
        model._forward_pre_hooks.update(pre)
        model._forward_hooks.update(post)
