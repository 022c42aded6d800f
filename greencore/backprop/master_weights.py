"""Optimiser of half-precision weights by float32 master copies, held only for the tensors that are trained."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from greencore.backprop.shards import is_sharded

MASTER = "master"  # a tensor's copy, in its optimiser state beside the moments
HALF_PRECISION = (torch.bfloat16, torch.float16)
CHUNK_ELEMENTS = 2**24  # weights stepped at once: their gradients need a float32 copy for as long


class MasterWeights(torch.optim.Optimizer):
    """Steps float32 copies of half-precision weights by another optimiser, and rounds the result into the weights.

    An update is often smaller than half of a bfloat16 weight's last place, which is 0.4 % of it, and would be lost. A
    tensor's copy is taken at its first step and kept in its optimiser state as `MASTER`, so that freeing the state of
    a frozen tensor frees the copy too: the tensor keeps the value last rounded. Weights of other types are stepped
    themselves. The groups are those of `inner`, so that a schedule acts on both; `inner` must step each tensor by
    itself, and is not used otherwise any more.
    """

    def __init__(self, inner: torch.optim.Optimizer) -> None:
        self.inner = inner
        super().__init__(inner.param_groups, inner.defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # as torch's own do
        """Step every tensor that has a gradient, a chunk of them at a time. `closure` is not called."""
        for group in self.param_groups:
            for chunk in _chunks([parameter for parameter in group["params"] if parameter.grad is not None]):
                self._step_chunk(group, chunk)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned. Tensors keep their type: torch's own would round them to the weights'.

        A step counter stays where it is, on the CPU, unless the group's kernel needs it on the device.
        """
        super().load_state_dict({**state_dict, "state": {}})
        parameters = [
            (parameter, bool(group.get("fused") or group.get("capturable")))
            for group in self.param_groups
            for parameter in group["params"]
        ]
        for index, entries in state_dict["state"].items():
            parameter, counts_on_device = parameters[index]
            self.state[parameter] = {
                key: value.to(parameter.device)
                if isinstance(value, torch.Tensor) and (key != "step" or counts_on_device)
                else value
                for key, value in entries.items()
            }

    def _step_chunk(self, group: dict[str, Any], chunk: list[torch.Tensor]) -> None:
        stepped, state = [], defaultdict[torch.Tensor, dict[str, Any]](dict)
        for parameter in chunk:
            entries = self.state[parameter]
            half = parameter.dtype in HALF_PRECISION
            target = entries.pop(MASTER, None) if half else parameter
            if target is None:
                target = parameter.detach().float()
            if half:
                assert parameter.grad is not None
                target.grad = parameter.grad.float()
            stepped.append(target)
            state[target] = entries
        self.inner.param_groups, self.inner.state = [{**group, "params": stepped}], state
        self.inner.step()
        for parameter, target in zip(chunk, stepped, strict=True):
            self.state[parameter] = state[target]
            if target is not parameter:
                target.grad = None
                self.state[parameter][MASTER] = target
                parameter.copy_(target)
        self.inner.param_groups, self.inner.state = [], defaultdict(dict)


def set_gradient_types(parameters: Iterable[torch.Tensor], *, parts: int) -> None:
    """Let half-precision weights take float32 gradients for a batch that is computed in `parts`, else of their type.

    A sum in bfloat16 loses 0.4 % of its size with each addition, so that a step would depend on its parts. The
    weights must have no gradient, or one of that type; only `MasterWeights` steps them by float32 ones.
    """
    for parameter in parameters:
        if parameter.dtype in HALF_PRECISION and not is_sharded(parameter):  # whose gradients FSDP2 adds in their type
            parameter.grad_dtype = torch.float32 if parts > 1 else parameter.dtype


@contextmanager
def gradient_types(parameters: Collection[torch.Tensor], *, parts: int) -> Iterator[None]:
    """Have `set_gradient_types` hold within the context; the gradients must be gone at its end."""
    kept = [(parameter, parameter.grad_dtype) for parameter in parameters if not is_sharded(parameter)]
    set_gradient_types(parameters, parts=parts)
    try:
        yield
    finally:
        for parameter, dtype in kept:
            parameter.grad_dtype = dtype


def _chunks(parameters: list[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Split tensors into runs of at most `CHUNK_ELEMENTS` elements, or of one larger tensor."""
    chunk: list[torch.Tensor] = []
    for parameter in parameters:
        if chunk and sum(map(torch.Tensor.numel, chunk)) + parameter.numel() > CHUNK_ELEMENTS:
            yield chunk
            chunk = []
        chunk.append(parameter)
    if chunk:
        yield chunk
