"""Selections against brute force, and on real profiles."""

import itertools
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel, T5Config, T5ForConditionalGeneration

from greencore.backprop import BudgetTooSmall, Profile, profile, select
from greencore.backprop.selection import decision_order, select_tensors
from greencore.backprop.selection.cost_variants import get_variants
from tests.greencore.backprop.executed import Batch, count_torch_flops
from tests.greencore.backprop.selection.profiles import conditional, encoder_decoders, graphs, profiles


@given(
    st.one_of(profiles(), graphs(), encoder_decoders(), conditional(graphs())), st.data(), st.sampled_from([1, 3, 10])
)
@settings(max_examples=400, deadline=None)
def test_no_affordable_set_is_better(costs: Profile, data: st.DataObject, widest: int) -> None:
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
    with pytest.MonkeyPatch.context() as narrow:
        narrow.setattr(decision_order, "MAX_STRETCH_TENSORS", widest)  # a stretch that is wider makes the tree fork
        chosen = select(costs, worth, rho)
    best = max(sum(worth[name] for name in subset) for subset in _wanted(affordable, worth))
    assert costs.step_flops(chosen.names) == chosen.flops <= budget
    assert chosen.importance == pytest.approx(best)


def _wanted(affordable: list[tuple[str, ...]], worth: dict[str, int]) -> list[tuple[str, ...]]:
    """The sets that hold nothing harmful; where there are none, the tensors by themselves."""
    harmless = [subset for subset in affordable if all(worth[name] > 0 for name in subset)]
    return harmless or [subset for subset in affordable if len(subset) == 1]


@given(st.one_of(profiles(), graphs(), encoder_decoders()), st.data())
@settings(max_examples=200, deadline=None)
def test_a_small_frontier_limit_never_exceeds_the_budget(costs: Profile, data: st.DataObject) -> None:
    worth = {tensor.name: data.draw(st.integers(1, 100)) for tensor in costs.tensors}
    rho = data.draw(st.floats(costs.floor, 1.0))
    with pytest.MonkeyPatch.context() as few:
        few.setattr(select_tensors, "FRONTIER_LIMITS", (2,))
        few.setattr(decision_order, "MAX_FORKS", 0)
        few.setattr(decision_order, "MAX_STRETCH_TENSORS", 1)
        chosen = select(costs, worth, rho)
    assert costs.step_flops(chosen.names) == chosen.flops <= rho * costs.full_flops


@pytest.mark.parametrize("rho", [0.45, 0.6, 0.75, 0.9])
def test_thinning_loses_less_than_a_thousandth_of_the_importance(
    costs: Profile, rho: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(3)
    worth = {tensor.name: draw.lognormvariate(0, 1) * tensor.params for tensor in costs.tensors}
    thin = select(costs, worth, rho).importance
    monkeypatch.setattr(select_tensors, "FRONTIER_LIMITS", (1 << 30,))
    monkeypatch.setattr(select_tensors, "TOLERANCE", 0.0)
    assert thin >= (1 - 0.001) * select(costs, worth, rho).importance


@pytest.mark.parametrize("rho", [0.45, 0.5, 0.7, 0.97])
def test_real_models_stay_within_and_close_to_the_budget(
    model: PreTrainedModel, batch: Batch, costs: Profile, rho: float
) -> None:
    draw = random.Random(7)
    worth = {tensor.name: draw.random() for tensor in costs.tensors}
    chosen = select(costs, worth, rho)
    assert count_torch_flops(model, batch, chosen.names) == costs.matmul_step_flops(chosen.names)
    assert chosen.rho == costs.share(chosen.names) <= rho
    rest = [tensor.name for tensor in costs.tensors if tensor.name not in chosen.names]
    assert all(costs.share([*chosen.names, name]) > rho for name in rest)


def test_rho_of_one_trains_everything(costs: Profile) -> None:
    worth = {tensor.name: -1.0 for tensor in costs.tensors}
    chosen = select(costs, worth, 1.0)
    assert len(chosen.names) == len(costs.tensors)
    assert chosen.flops == costs.full_flops


def test_a_harmful_tensor_is_not_selected(costs: Profile) -> None:
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


def test_importance_may_lack_what_does_not_fit_by_itself(costs: Profile) -> None:
    rho = costs.floor + 0.1
    worth = {tensor.name: 1.0 for tensor in costs.tensors}
    measured = {name: value for name, value in worth.items() if costs.share([name]) <= rho}
    assert 0 < len(measured) < len(worth)
    assert select(costs, measured, rho) == select(costs, worth, rho)
    with pytest.raises(ValueError, match="no entry for"):
        select(costs, measured, 1.0)


def test_a_deep_encoder_decoder_has_few_groups() -> None:
    """Keys of every cross-attention lead to the encoder: the sets of operators that can be needed are 4 ** 24."""
    config = T5Config(
        vocab_size=96, d_model=16, d_kv=8, d_ff=32, num_layers=24, num_heads=2, feed_forward_proj="gated-gelu"
    )
    config.decoder_start_token_id = config.pad_token_id = 0
    with torch.device("meta"):
        model = T5ForConditionalGeneration._from_config(config)
        ids = torch.zeros(1, 8, dtype=torch.long)
    deep = profile(model, {"input_ids": ids, "labels": ids})
    (variant,) = get_variants(deep)
    assert len(deep.tensors) > 500
    assert _count_groups(variant.tree) < 2 * len(deep.tensors)
    chosen = select(deep, {tensor.name: float(tensor.params) for tensor in deep.tensors}, 0.6)
    assert chosen.rho == pytest.approx(0.6, abs=0.002)
    assert chosen.rho <= 0.6


def _count_groups(tree: decision_order.SearchTree) -> int:
    return len(tree.groups) + sum(_count_groups(subtree) for _, subtree in tree.subtrees)
