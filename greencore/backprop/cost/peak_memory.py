"""Peak memory of a training step, predicted on tensors without data.

The step runs under FakeTensorMode, as for its FLOPs, while a dispatch mode follows the storage of every tensor from the
operator that makes it until nothing refers to it: weights, gradients, optimiser state, saved activations, with views
and shared storages counted once, and the temporary tensors between operators. What a kernel allocates within itself is
not seen, nor what an allocator keeps without need.
"""

import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from greencore.backprop.cost.expert_routing import make_grouped_matmul_output
from greencore.backprop.cost.trace import Batch, TraceError, disable_step_hooks, replace_tensors
from greencore.backprop.importance import measure_tensor
from greencore.backprop.master_weights import MasterWeights, set_gradient_types
from greencore.backprop.optimizer_dry_run import OptimizerDryRun
from greencore.device import PeakMemory
from greencore.settings.method_settings import Metric

CLIPPED = 0.5  # a factor of gradients whose norm is clipped: any but 1 needs a copy of them
MOST = 0.8  # of what is probed is trained: then its largest tensor is taken to be among it
OptimizerFactory = Callable[[list[torch.Tensor]], torch.optim.Optimizer]
LossFunction = Callable[[torch.nn.Module, Mapping[str, torch.Tensor]], torch.Tensor]


class StorageTracker(TorchDispatchMode):
    """Follows the storages that operators make within its context: bytes alive now, and at most."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.alive = self.peak = 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def add(self, tensor: torch.Tensor) -> None:
        """Count a tensor's storage, once, for as long as something refers to it."""
        storage = tensor.untyped_storage()
        if storage in self._known:
            return
        self._known.add(storage)
        size = storage.nbytes()
        weakref.finalize(storage, self._release, size)
        self.alive += size
        self.peak = max(self.peak, self.alive)

    def _release(self, size: int) -> None:
        self.alive -= size

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        grouped = func is torch.ops.aten._grouped_mm.default
        out = make_grouped_matmul_output(*args, **kwargs or {}) if grouped else func(*args, **kwargs or {})
        for value in tree_iter(out):
            if isinstance(value, torch.Tensor):
                self.add(value)
        return out


def predict_peak_memory(
    model: torch.nn.Module,
    batch: Batch,
    *,
    names: Collection[str],
    optimizer: OptimizerFactory,
    compute_loss: LossFunction,
    probed: Collection[str] = (),
    measured: Collection[str] = (),
    metric: Metric = "dw_grad",
    micro_batches: int = 1,
    autocast: bool = False,
    dtype: torch.dtype | None = None,
    processes: int = 1,
    gathered: tuple[int, int] = (0, 0),
) -> PeakMemory:
    """Predict the peak memory of an optimiser step that trains the named parameters, on any but the first step.

    Forward and backward run `micro_batches` times before the optimiser's step, on batches of `batch`'s shapes, on the
    kernels of a CPU. An importance probe of the `probed` parameters runs in addition, while the optimiser holds its
    state: its gradients are measured by `metric`, for most of them by dry runs of the optimiser, and freed as they
    arrive. Where the step itself measures the `measured` parameters, their gradients are all there until its end. With
    `dtype` the weights have another type than the model's.

    In one of several `processes` (FSDP2), each of which has its part of every tensor, `gathered` are the weights that
    are whole at once, and the most of one gathering, whose gradients are whole before each process has its part of
    them; `batch` is its own. The model, which may be on the meta device, runs
    in its current mode and is left unchanged. Raises `greencore.backprop.TraceError` for a step that cannot run on
    tensors without data.
    """
    try:
        return _predict(
            model,
            batch,
            frozenset(names),
            optimizer,
            compute_loss,
            probed,
            measured,
            metric,
            micro_batches,
            autocast,
            dtype,
            processes,
            gathered,
        )
    except Exception as error:
        raise TraceError(f"the memory of {type(model).__name__} cannot be predicted: {error}") from error


def _predict(
    model: torch.nn.Module,
    batch: Batch,
    names: Collection[str],
    optimizer: OptimizerFactory,
    compute_loss: LossFunction,
    probed: Collection[str],
    measured: Collection[str],
    metric: Metric,
    micro_batches: int,
    autocast: bool,
    dtype: torch.dtype | None,
    processes: int,
    gathered: tuple[int, int],
) -> PeakMemory:
    parameters = dict(model.named_parameters())
    with FakeTensorMode(allow_non_fake_inputs=True), ExitStack() as stack:
        tracker = StorageTracker()
        fakes = {name: torch.empty(p.shape, dtype=dtype or p.dtype) for name, p in parameters.items()}
        replaced = {id(parameter): fakes[name] for name, parameter in parameters.items()}
        replaced |= {id(buffer): torch.empty(buffer.shape, dtype=buffer.dtype) for buffer in model.buffers()}
        for fake in replaced.values():
            tracker.add(fake)
        weights = tracker.alive
        trained = [fakes[name].requires_grad_() for name in parameters if name in names]
        inputs = {key: torch.empty(value.shape, dtype=value.dtype) for key, value in batch.items()}
        for context in (disable_step_hooks(model), replace_tensors(model, replaced), tracker, torch.enable_grad()):
            stack.enter_context(context)
        others = [fakes[name] for name in parameters if name in {*probed, *measured} and name not in names]
        stepper = optimizer([*trained, *others])
        if isinstance(stepper, MasterWeights):
            set_gradient_types(fakes.values(), parts=micro_batches)
        for tensor in trained:  # a first step, after which there is optimiser state
            tensor.grad = torch.empty_like(tensor, dtype=tensor.grad_dtype)
        before = tracker.alive
        stepper.step()
        state = tracker.alive - before
        gradients = before - weights
        stepper.zero_grad()
        tracker.peak = tracker.alive

        def run_pass() -> None:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                loss = compute_loss(model, inputs)
            loss.backward()

        if probed:
            tensors = [fakes[name] for name in probed]
            _run_probe(stepper, metric, trained, tensors, run_pass, several=micro_batches > 1)
        _train_instead(others if measured else (), ())
        with _keep_parts([*trained, *(others if measured else ())], processes):
            for _ in range(min(micro_batches, 2)):  # from the second on, all have the same peak
                run_pass()
            passes = tracker.peak
        before = tracker.alive
        if measured:
            _measure_step(stepper, metric, trained, [fakes[name] for name in measured])
        for tensor in others:
            tensor.grad = None
        dropped = before - tracker.alive
        if processes == 1:  # measuring the importance of parts takes less than what else a pass does
            passes = tracker.peak
        tracker.peak = tracker.alive
        stepper.step()
        kept = weights + state
        whole = PeakMemory(
            weights,
            gradients,
            state,
            passes=passes - kept,
            step=tracker.peak - kept,
            measured_gradients=gradients + dropped if measured else 0,
        )
    of_weight = weights / max(1, sum(map(torch.Tensor.numel, parameters.values())))
    of_gradient = gradients / max(1, sum(map(torch.Tensor.numel, trained)))
    return whole if processes == 1 else _divide(whole, processes, gathered, of_weight, of_gradient)


@contextmanager
def _keep_parts(tensors: Collection[torch.Tensor], processes: int) -> Iterator[None]:
    """Keep a part of each gradient as it arrives in the block, as one of several processes does, and at its end all."""
    if processes == 1:
        yield
        return
    parts: dict[torch.Tensor, torch.Tensor] = {}

    def keep_part(tensor: torch.Tensor) -> None:
        assert tensor.grad is not None
        parts[tensor] = torch.empty(-(-tensor.numel() // processes), dtype=tensor.grad.dtype)
        tensor.grad = None

    hooks = [tensor.register_post_accumulate_grad_hook(keep_part) for tensor in tensors]
    yield
    for hook in hooks:
        hook.remove()
    for tensor in parts:
        tensor.grad = torch.empty_like(tensor, dtype=tensor.grad_dtype)


def _divide(
    whole: PeakMemory, processes: int, gathered: tuple[int, int], of_weight: float, of_gradient: float
) -> PeakMemory:
    """Return the memory of one of several processes, whose passes have kept only parts of the gradients."""
    at_once, largest = gathered

    def part(size: int) -> int:
        return -(-size // processes)

    return PeakMemory(
        part(whole.weights) + round(at_once * of_weight),
        part(whole.gradients),
        part(whole.optimizer_state),
        passes=whole.passes + round(largest * of_gradient),
        step=part(whole.step),
        measured_gradients=part(whole.measured_gradients),
    )


def _run_probe(
    optimizer: torch.optim.Optimizer,
    metric: Metric,
    trained: Collection[torch.Tensor],
    probed: Collection[torch.Tensor],
    run_pass: Callable[[], None],
    *,
    several: bool,
) -> None:
    """Run the passes of a probe of `several` micro-batches or one, with the probed tensors trained alone.

    Gradients of earlier micro-batches are kept, as in a probe; those of the last are freed after a dry run on each. The
    buffers of its dry runs are there from the start: a probe whose gradients are clipped runs its passes twice, and the
    second has them. Those of the largest tensor's optimiser state are there where it is likely to have one: where most
    of what is probed is trained.
    """
    measure = _build_measure(optimizer, metric)

    def arrive(tensor: torch.Tensor) -> None:
        gradient, tensor.grad = tensor.grad, None
        assert gradient is not None
        measure(tensor, gradient)

    largest = max(probed, key=torch.Tensor.numel)
    with _likely_state(optimizer, largest, trained, probed):
        measure(largest, torch.empty_like(largest, dtype=largest.grad_dtype))

    _train_instead(probed, trained)
    if several:
        run_pass()
    hooks = [tensor.register_post_accumulate_grad_hook(arrive) for tensor in probed]
    run_pass()
    for hook in hooks:
        hook.remove()
    _train_instead(trained, probed)


def _measure_step(
    optimizer: torch.optim.Optimizer,
    metric: Metric,
    trained: Collection[torch.Tensor],
    measured: Collection[torch.Tensor],
) -> None:
    """Measure importance from the step's gradients, all of which are kept; the buffers are those of `_run_probe`."""
    measure = _build_measure(optimizer, metric)
    largest = max(measured, key=torch.Tensor.numel)
    for tensor in (largest, *measured):
        gradient = tensor.grad
        if gradient is not None:  # one that the loss does not depend on has none
            with _likely_state(optimizer, largest, trained, measured):
                measure(tensor, gradient)
            tensor.grad = gradient


def _build_measure(
    optimizer: torch.optim.Optimizer, metric: Metric
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return a function that measures a tensor's importance as a probe does, in its memory."""
    dry_run = OptimizerDryRun(optimizer)

    @torch.no_grad()
    def measure(tensor: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        return measure_tensor(dry_run, metric, tensor, gradient, CLIPPED)

    return measure


@contextmanager
def _likely_state(
    optimizer: torch.optim.Optimizer,
    largest: torch.Tensor,
    trained: Collection[torch.Tensor],
    probed: Collection[torch.Tensor],
) -> Iterator[None]:
    """Leave the largest tensor's optimiser state out where it is not likely to have one, as little is trained."""
    state = optimizer.state.get(largest)
    if state is not None and sum(map(torch.Tensor.numel, trained)) < MOST * sum(map(torch.Tensor.numel, probed)):
        del optimizer.state[largest]
    yield
    if state is not None:
        optimizer.state[largest] = state


def _train_instead(tensors: Collection[torch.Tensor], others: Collection[torch.Tensor]) -> None:
    """Let gradients flow into the tensors, and not into the others."""
    for tensor in others:
        tensor.requires_grad_(False)
    for tensor in tensors:
        tensor.requires_grad_()
