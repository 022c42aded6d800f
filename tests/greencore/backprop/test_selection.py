"""Selections against brute force, and on real profiles."""

import itertools
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from greencore.backprop import BudgetTooSmall, Profile, select
from greencore.backprop.profile import CountedCost, assemble

Batch = dict[str, torch.Tensor]


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    """Chains of blocks with parallel branches in them, as transformers have."""
    tensors: list[str] = []
    costs: dict[int, int] = {}
    above: list[tuple[set[int], int]] = []
    amount = st.integers(0, 60)
    while len(tensors) < 8 and draw(st.booleans() if tensors else st.just(True)):
        first = len(tensors)
        branches = draw(st.integers(1, 3))
        for _ in range(branches):
            costs[1 << len(tensors)] = draw(amount)
            above.append(({len(tensors)}, draw(amount)))
            tensors.append(f"t{len(tensors)}")
        above.append((set(range(first, first + branches)), draw(amount)))
        for members, _ in above:
            if min(members) < first:
                members.update(range(first, first + branches))
    for members, flops in above:
        mask = sum(1 << member for member in members)
        costs[mask] = costs.get(mask, 0) + flops
    forward = draw(st.integers(1, 200))
    return assemble(tuple((name, 1) for name in tensors), forward=forward, total=costs, counted=CountedCost(0, ()))


@given(profiles(), st.data())
@settings(max_examples=200, deadline=None)
def test_no_affordable_set_is_better(costs: Profile, data: st.DataObject) -> None:
    names = [tensor.name for tensor in costs.tensors]
    worth = {name: data.draw(st.integers(-5, 100), label=name) for name in names}
    rho = data.draw(st.floats(0.05, 0.999), label="rho")
    budget = rho * costs.full_flops
    affordable = [
        subset
        for size in range(1, len(names) + 1)
        for subset in itertools.combinations(names, size)
        if costs.step_flops(subset) <= budget
    ]
    if not affordable:
        with pytest.raises(BudgetTooSmall) as refusal:
            select(costs, worth, rho)
        assert refusal.value.floor == costs.floor > rho
        return
    chosen = select(costs, worth, rho)
    best = max(sum(worth[name] for name in subset) for subset in affordable)
    assert costs.step_flops(chosen.names) == chosen.flops <= budget
    assert chosen.importance == pytest.approx(best)


@pytest.mark.parametrize("rho", [0.45, 0.5, 0.7, 0.97])
def test_real_models_stay_within_and_close_to_the_budget(
    model: PreTrainedModel, batch: Batch, costs: Profile, rho: float
) -> None:
    draw = random.Random(7)
    worth = {tensor.name: draw.random() for tensor in costs.tensors}
    chosen = select(costs, worth, rho)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in chosen.names)
    with FlopCounterMode(display=False) as counter:
        model(**batch).loss.backward()
    assert counter.get_total_flops() == costs.matmul_step_flops(chosen.names)
    assert chosen.rho == costs.share(chosen.names) <= rho
    rest = [tensor.name for tensor in costs.tensors if tensor.name not in chosen.names]
    assert all(costs.share([*chosen.names, name]) > rho for name in rest)


def test_rho_of_one_trains_everything(costs: Profile) -> None:
    worth = {tensor.name: -1.0 for tensor in costs.tensors}
    chosen = select(costs, worth, 1.0)
    assert len(chosen.names) == len(costs.tensors)
    assert chosen.flops == costs.full_flops


def test_a_harmful_tensor_is_not_bought(costs: Profile) -> None:
    harmful = costs.tensors[0].name
    worth = {tensor.name: 1.0 for tensor in costs.tensors} | {harmful: -0.5}
    assert harmful not in select(costs, worth, 0.9).names


def test_if_every_tensor_is_harmful_the_least_harmful_is_trained(costs: Profile) -> None:
    worth = {tensor.name: -float(index + 1) for index, tensor in enumerate(costs.tensors)}
    assert select(costs, worth, 0.7).names == (costs.tensors[0].name,)


def test_below_the_floor_the_error_states_the_floor(costs: Profile) -> None:
    worth = {tensor.name: 1.0 for tensor in costs.tensors}
    with pytest.raises(BudgetTooSmall, match=f"{costs.floor:.4f}"):
        select(costs, worth, costs.floor - 0.001)
    assert select(costs, worth, costs.floor).names


def test_importance_must_be_complete_and_finite(costs: Profile) -> None:
    worth = {tensor.name: 1.0 for tensor in costs.tensors}
    name = costs.tensors[3].name
    with pytest.raises(ValueError, match=f"{name} is nan"):
        select(costs, worth | {name: float("nan")}, 0.5)
    del worth[name]
    with pytest.raises(ValueError, match=f"no entry for {name}"):
        select(costs, worth, 0.5)
