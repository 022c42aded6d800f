"""Trace one training step on tensors without data, and attribute its operators to trained tensors (paper §3.1).

The step runs under FakeTensorMode, so it takes no memory and selects the kernels of the model's own device. A real step
runs a backward operator if and only if a trained tensor is reachable through an input gradient that the operator helps
to compute, whatever the model family.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.distributed.fsdp import FSDPModule

from greencore.backprop.cost.autograd_graph import (
    BackwardFlops,
    Node,
    collect_reachable_nodes,
    compute_reachable_tensors,
    is_leaf,
)
from greencore.backprop.cost.biased_attention import BiasedAttention, ForwardObserver
from greencore.backprop.cost.expert_routing import use_batched_experts
from greencore.backprop.cost.operator_counter import OperatorRecorder
from greencore.backprop.cost.operator_flops import ZERO_FLOPS, OpFlops
from greencore.backprop.cost.recomputation import CheckpointedBlock, record_checkpointed_blocks
from greencore.backprop.shards import get_shard, is_sharded

DATA_DEPENDENT_ERRORS = (DataDependentOutputException, DynamicOutputShapeException)
Batch = Mapping[str, torch.Tensor]


class TraceError(ValueError):
    """The model cannot be traced with this batch; the message says what is missing."""


@dataclass(frozen=True)
class StepTrace:
    """FLOPs of one step; `tensors` (name, size) are in the order of their completed gradients, output to input."""

    tensors: tuple[tuple[str, int], ...]
    forward: OpFlops
    backward: tuple[BackwardFlops, ...]


def trace_step(model: torch.nn.Module, batch: Batch, names: frozenset[str] | None = None) -> StepTrace:
    """Trace forward and backward of `model(**batch).loss` with the named parameters trained (None: all).

    Only the shapes of `batch` matter: an attention mask counts as one with padding, and is left out where the model
    reads its values. The model, which may be on the meta device, is left unchanged and traced in its current mode: in
    training mode checkpointed blocks count what they recompute. Raises `TraceError` for a model without a loss or a
    trainable parameter, an unknown parameter name, and a step that fails or reads values of its inputs.
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
        raise TraceError("the model has no trainable tensor to profile")
    if batch.get("labels") is None:
        raise TraceError("the batch has no labels, so the model has no loss: add labels of the shape of input_ids")
    try:
        try:
            return _trace(model, batch, parameters, trained)
        except DATA_DEPENDENT_ERRORS:
            return _trace_data_dependent_model(model, batch, parameters, trained)
    except TraceError:
        raise
    except Exception as error:
        raise _explain_trace_failure(model, error) from error


def _trace_data_dependent_model(
    model: torch.nn.Module, batch: Batch, parameters: Mapping[str, torch.nn.Parameter], trained: Sequence[str]
) -> StepTrace:
    """Trace a model that reads values, such as its routing of tokens to experts or whether there is padding."""
    unmasked = {key: value for key, value in batch.items() if not key.endswith("attention_mask")}
    with use_batched_experts(model):
        try:
            return _trace(model, batch, parameters, trained)
        except DATA_DEPENDENT_ERRORS:
            return _trace(model, unmasked, parameters, trained)


def _explain_trace_failure(model: torch.nn.Module, error: Exception) -> TraceError:
    return TraceError(
        f"the forward or backward pass of {type(model).__name__} cannot be traced on tensors without data"
        f" ({type(error).__name__}: {error}): pass a batch of the arguments that it trains with; none of its operators"
        " may read values to determine a shape"
    )


def _trace(
    model: torch.nn.Module, batch: Batch, parameters: Mapping[str, torch.nn.Parameter], trained: Sequence[str]
) -> StepTrace:
    recorder = OperatorRecorder()
    completed: list[str] = []
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        fakes = {name: _fake_whole(fake, parameter) for name, parameter in parameters.items()}
        for name in trained:
            fakes[name].requires_grad_(True)
        replaced = {id(parameter): fakes[name] for name, parameter in parameters.items()}
        replaced |= {id(buffer): fake.from_tensor(buffer) for buffer in model.buffers()}
        device = next(iter(parameters.values())).device
        inputs = {key: torch.empty(value.shape, dtype=value.dtype, device=device) for key, value in batch.items()}
        observer = ForwardObserver(recorder)
        with ExitStack() as stack:
            for context in (
                torch.enable_grad(),
                disable_step_hooks(model),
                replace_tensors(model, replaced),
                recorder,
            ):
                stack.enter_context(context)
            blocks = stack.enter_context(record_checkpointed_blocks(model, recorder))
            with observer:
                output = model(**inputs)
            loss = getattr(output, "loss", None)
            if loss is None or loss.grad_fn is None:
                raise TraceError(f"{type(model).__name__} returns no loss that depends on a trained tensor")
            for name in trained:
                fakes[name].register_post_accumulate_grad_hook(lambda _, name=name: completed.append(name))
            nodes = collect_reachable_nodes([loss.grad_fn])
            leaves = {id(fakes[name]) for name in trained}
            recorder.register_backward_hooks(
                nodes, weights={n for n in nodes if is_leaf(n) and id(n.variable) in leaves}
            )
            loss.backward()
    bits = {id(fakes[name]): 1 << index for index, name in enumerate(completed)}
    all_tensors = (1 << len(completed)) - 1
    reachable = compute_reachable_tensors(nodes, bits, observer.always_needed, all_tensors)
    forward, backward = _attribute_flops(recorder, reachable, blocks, observer.biased, all_tensors)
    return StepTrace(tuple((name, parameters[name].numel()) for name in completed), forward, tuple(backward))


def _attribute_flops(
    recorder: OperatorRecorder,
    reachable: Mapping[Node, int],
    blocks: Collection[CheckpointedBlock],
    biased: Collection[BiasedAttention],
    all_tensors: int,
) -> tuple[OpFlops, list[BackwardFlops]]:
    """Return the FLOPs of the forward pass, and all others with the tensors that need them."""
    recomputed_for: dict[int, int] = {}
    for block in blocks:
        recomputed_for.update(enumerate(block.compute_recomputation_masks(recorder, reachable), start=block.start))
    switching = [call for call in biased if reachable.get(call.bias, all_tensors) != all_tensors]
    separate = {index for call in switching for index in range(call.start, call.stop)}
    separate_nodes = {node for call in switching for node in call.nodes}
    costs = [
        BackwardFlops(recorder.forward[index], mask) for index, mask in recomputed_for.items() if index not in separate
    ]
    costs += [
        BackwardFlops(operator.flops, operator.needed_by(reachable))
        for operator in recorder.backward
        if operator.node not in separate_nodes
    ]
    for call in switching:
        costs += call.list_backward_flops(recorder, reachable, recomputed_for, all_tensors)
    forward = [flops for index, flops in enumerate(recorder.forward) if index not in separate]
    return sum(forward + [call.fused_forward for call in switching], ZERO_FLOPS), costs


def _fake_whole(fake: FakeTensorMode, parameter: torch.nn.Parameter) -> torch.Tensor:
    """Return a tensor without data in place of a parameter; of one that is sharded, as large as the whole."""
    if is_sharded(parameter):
        return torch.empty(parameter.shape, dtype=parameter.dtype, device=get_shard(parameter).device)
    return fake.from_tensor(parameter.detach())


@contextmanager
def replace_tensors(model: torch.nn.Module, tensors: Mapping[int, torch.Tensor]) -> Iterator[None]:
    """Replace parameters and buffers, by the `id` of the current one, within the context.

    torch's `functional_call` does not restore a module that is registered in two places, as peft's prompts are.
    """
    present = [
        (registry, name, tensor)
        for module in model.modules()
        for registry in (module._parameters, module._buffers)
        for name, tensor in registry.items()
        if tensor is not None
    ]
    try:
        for registry, name, tensor in present:
            registry[name] = tensors[id(tensor)]  # type: ignore[assignment]
        yield
    finally:
        for registry, name, tensor in present:
            registry[name] = tensor  # type: ignore[assignment]


@contextmanager
def disable_step_hooks(model: torch.nn.Module) -> Iterator[None]:
    """Remove hooks for real steps within the context: the root module's, and those that gather sharded weights."""
    modules = [module for module in model.modules() if module is model or isinstance(module, FSDPModule)]
    registries = [registry for module in modules for registry in (module._forward_pre_hooks, module._forward_hooks)]
    kept = [registry.copy() for registry in registries]
    for registry in registries:
        registry.clear()
    try:
        yield
    finally:
        for registry, hooks in zip(registries, kept, strict=True):
            registry.update(hooks)
