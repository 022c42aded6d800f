"""Importance against its naive definition, and what it must leave alone."""

import copy
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from transformers import PreTrainedModel

from greencore.backprop import NotFinite, importance
from greencore.backprop.importance import Metric

Batch = dict[str, torch.Tensor]
Optimizers = dict[str, Callable[[PreTrainedModel], torch.optim.Optimizer]]

OPTIMIZERS: Optimizers = {
    "adamw": lambda m: torch.optim.AdamW(m.parameters(), lr=1e-3, weight_decay=0.1, foreach=False),
    "adamw-foreach": lambda m: torch.optim.AdamW(m.parameters(), lr=1e-3, foreach=True),
    "adamw-fused": lambda m: torch.optim.AdamW(m.parameters(), lr=1e-3, fused=True),
    "sgd": lambda m: torch.optim.SGD(m.parameters(), lr=1e-2, momentum=0.9),
}


@pytest.fixture(params=OPTIMIZERS)
def optimizer(request: pytest.FixtureRequest, model: PreTrainedModel, batch: Batch) -> torch.optim.Optimizer:
    """An optimiser in mid-run: two steps taken, a learning rate that a schedule has changed."""
    optimizer = OPTIMIZERS[request.param](model)
    for _ in range(2):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
        group["lr"] *= 0.7
    return optimizer


def copied_gradients(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def naive(model: PreTrainedModel, batch: Batch, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, float]]:
    """Cache the weights, step, take the difference, restore: the paper's definition, word for word."""
    model.zero_grad()
    weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    state = copy.deepcopy(optimizer.state_dict())
    model(**batch).loss.backward()
    gradients = copied_gradients(model)
    optimizer.step()
    result: dict[str, dict[str, float]] = {"dw_grad": {}, "dw": {}, "grad": {}}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            update = parameter - weights[name]
            result["dw_grad"][name] = float(-(update.double() * gradients[name].double()).sum())
            result["dw"][name] = float(update.abs().sum())
            result["grad"][name] = float(gradients[name].abs().sum())
            parameter.copy_(weights[name])
    optimizer.load_state_dict(state)
    model.zero_grad()
    return result


def test_every_metric_equals_its_naive_definition(
    model: PreTrainedModel, batch: Batch, optimizer: torch.optim.Optimizer
) -> None:
    model.eval()
    expected = naive(model, batch, optimizer)
    for metric in get_args(Metric):
        found = importance(model, batch, optimizer, metric=metric)
        assert found == pytest.approx(expected[metric], rel=1e-4, abs=1e-9)


def test_the_probe_leaves_no_trace(model: PreTrainedModel, batch: Batch, optimizer: torch.optim.Optimizer) -> None:
    model.train()
    model(**batch).loss.backward()
    frozen = next(iter(model.parameters()))
    frozen.requires_grad_(False)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = copied_gradients(model)
    state = copy.deepcopy(optimizer.state_dict())
    random_state = torch.get_rng_state()
    importance(model, batch, optimizer)
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    assert gradients.keys() == {name for name, p in model.named_parameters() if p.grad is not None}
    assert all(torch.equal(gradients[name], p.grad) for name, p in model.named_parameters() if p.grad is not None)
    after = optimizer.state_dict()
    assert after["param_groups"] == state["param_groups"]
    assert after["state"].keys() == state["state"].keys()
    for key, values in state["state"].items():
        for entry, value in values.items():
            assert torch.equal(torch.as_tensor(after["state"][key][entry]), torch.as_tensor(value))
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not frozen.requires_grad


def test_a_tensor_without_optimizer_state_gets_none(model: PreTrainedModel, batch: Batch) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    found = importance(model, batch, optimizer)
    assert not optimizer.state
    assert all(value > 0 for value in found.values())


def test_frozen_tensors_are_measured_too(model: PreTrainedModel, batch: Batch) -> None:
    model.eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    free = importance(model, batch, optimizer)
    model.requires_grad_(False)
    assert importance(model, batch, optimizer) == pytest.approx(free)


def test_a_warm_up_that_starts_at_zero_hides_nothing(model: PreTrainedModel, batch: Batch) -> None:
    model.eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    expected = importance(model, batch, optimizer)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 10)
    assert optimizer.param_groups[0]["lr"] == 0.0
    assert importance(model, batch, optimizer) == pytest.approx(expected)
    assert optimizer.param_groups[0]["lr"] == 0.0


def test_clipping_bounds_each_tensors_own_gradient(model: PreTrainedModel, batch: Batch) -> None:
    model.eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    free = importance(model, batch, optimizer)
    clipped = importance(model, batch, optimizer, max_grad_norm=1e-3)
    for name, value in free.items():
        norm = (value / 1e-2) ** 0.5
        assert clipped[name] == pytest.approx(value * min(1.0, 1e-3 / norm), rel=1e-2)


def test_faults_are_named(model: PreTrainedModel, batch: Batch) -> None:
    optimizer = torch.optim.AdamW(model.parameters())
    with pytest.raises(ValueError, match="labels"):
        importance(model, {"input_ids": batch["input_ids"]}, optimizer)
    with pytest.raises(ValueError, match="metric is one of"):
        importance(model, batch, optimizer, metric="loss")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="holds no parameter"):
        importance(model, batch, torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))]))
    with torch.no_grad():
        next(iter(model.parameters())).fill_(float("nan"))
    with pytest.raises(NotFinite, match="loss is nan"):
        importance(model, batch, optimizer)
