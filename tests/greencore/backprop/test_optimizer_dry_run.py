"""Dry run of a step on one tensor: its update, what it leaves unchanged, and unsupported optimisers."""

from typing import Any

import pytest
import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from transformers.optimization import Adafactor

from greencore.backprop.optimizer_dry_run import OptimizerDryRun


@pytest.fixture
def tensors() -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(3, 4, generator=generator)) for _ in range(2)]


class Halving(torch.optim.SGD):
    """An optimiser that writes to the gradient before it steps."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad.div_(2)
        super().step(closure)


class Joint(torch.optim.SGD):
    """An optimiser that needs all of its tensors at once, and fails after it has stepped one."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step(closure)
        _, _ = self.param_groups[0]["params"]


def test_the_update_is_the_optimizers_and_everything_is_restored(tensors: list[torch.nn.Parameter]) -> None:
    first, _ = tensors
    optimizer = torch.optim.SGD(tensors, lr=0.1, momentum=0.9)
    storage, weights = first.data_ptr(), first.detach().clone()
    update = OptimizerDryRun(optimizer).compute_update(first, torch.ones_like(first))
    assert torch.allclose(update, torch.full_like(first, -0.1), atol=1e-6)
    assert torch.equal(first, weights)
    assert first.data_ptr() == storage
    assert first.grad is None
    assert not optimizer.state
    assert optimizer.param_groups[0]["params"] == tensors


def test_optimizer_state_is_restored_as_the_same_objects(tensors: list[torch.nn.Parameter]) -> None:
    optimizer = torch.optim.AdamW(tensors)
    for parameter in tensors:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    state = dict(optimizer.state[tensors[0]])
    copies = {key: value.clone() for key, value in state.items()}
    OptimizerDryRun(optimizer).compute_update(tensors[0], torch.ones_like(tensors[0]))
    assert all(optimizer.state[tensors[0]][key] is value for key, value in state.items())
    assert all(torch.equal(value, copies[key]) for key, value in state.items())


def test_the_given_gradient_is_unchanged_by_an_optimizer_that_writes_to_it(tensors: list[torch.nn.Parameter]) -> None:
    gradient = torch.ones_like(tensors[0])
    update = OptimizerDryRun(Halving(tensors, lr=0.1)).compute_update(tensors[0], gradient)
    assert torch.allclose(update, torch.full_like(gradient, -0.05), atol=1e-6)
    assert torch.equal(gradient, torch.ones_like(gradient))


def test_schedulers_and_step_hooks_are_not_triggered(tensors: list[torch.nn.Parameter]) -> None:
    optimizer = torch.optim.AdamW(tensors, lr=1e-3)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    seen = list[str]()
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    OptimizerDryRun(optimizer).compute_update(tensors[0], torch.ones_like(tensors[0]))
    assert not seen
    assert not getattr(optimizer, "_opt_called", False)
    with pytest.warns(UserWarning, match="before `optimizer.step"):  # so no step has been counted
        scheduler.step()


def test_an_optimizer_wrapped_by_accelerate_is_unwrapped(tensors: list[torch.nn.Parameter]) -> None:
    wrapped = Accelerator(cpu=True).prepare(torch.optim.SGD(tensors, lr=0.1))
    dry_run = OptimizerDryRun(wrapped)
    assert tensors[0] in dry_run
    update = dry_run.compute_update(tensors[0], torch.ones_like(tensors[0]))
    assert torch.allclose(update, torch.full_like(update, -0.1), atol=1e-6)


def test_an_optimizer_without_a_learning_rate_computes_its_own(tensors: list[torch.nn.Parameter]) -> None:
    dry_run = OptimizerDryRun(Adafactor(tensors, scale_parameter=False))
    assert dry_run.compute_update(tensors[0], torch.ones_like(tensors[0])).mean().item() == pytest.approx(
        -1e-2, rel=1e-3
    )


def test_an_update_below_the_weights_own_precision_is_measured_in_float32(tensors: list[torch.nn.Parameter]) -> None:
    narrow = torch.nn.Parameter(tensors[0].detach().to(torch.bfloat16))
    update = OptimizerDryRun(torch.optim.SGD([narrow], lr=0.5)).compute_update(narrow, torch.ones_like(narrow))
    stepped = (narrow.detach().float() - 0.5).to(torch.bfloat16)
    assert torch.equal(update, stepped.float() - narrow.detach().float())


def test_optimizers_that_cannot_step_one_tensor_alone_are_named(tensors: list[torch.nn.Parameter]) -> None:
    with pytest.raises(ValueError, match=r"optimiser LBFGS is not supported: .*AdamW.*transformers' Adafactor"):
        OptimizerDryRun(torch.optim.LBFGS(tensors))
    sparse = torch.optim.SparseAdam(tensors)
    with pytest.raises(ValueError, match="optimiser SparseAdam is not supported: its step on one tensor alone failed"):
        OptimizerDryRun(sparse).compute_update(tensors[0], torch.ones_like(tensors[0]))


def test_a_failing_step_restores_everything(tensors: list[torch.nn.Parameter]) -> None:
    weights = tensors[0].detach().clone()
    optimizer = Joint(tensors, lr=0.1, momentum=0.9)
    with pytest.raises(ValueError, match="optimiser Joint is not supported"):
        OptimizerDryRun(optimizer).compute_update(tensors[0], torch.ones_like(tensors[0]))
    assert torch.equal(tensors[0], weights)
    assert tensors[0].grad is None
    assert not optimizer.state
    assert optimizer.param_groups[0]["params"] == tensors
