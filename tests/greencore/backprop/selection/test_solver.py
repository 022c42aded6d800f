"""Selections against brute force, and on real profiles."""

import itertools
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel, T5Config, T5ForConditionalGeneration

from greencore.backprop import BudgetTooSmall, Profile, profile, select
from greencore.backprop.cost.profile import ConditionalCost, StepFlops, build_profile
from greencore.backprop.selection import decision_order, solver
from greencore.backprop.selection.cost_variants import get_variants

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
    return build_profile(tuple((name, 1) for name in tensors), forward=forward, total=costs, counted=StepFlops(0, ()))


@st.composite
def graphs(draw: st.DrawFn) -> Profile:
    """Any graph at all: every node passes gradients on to later ones, and holds tensors or none."""
    size = draw(st.integers(2, 8))
    parents = [draw(st.sets(st.integers(0, node - 1), min_size=1, max_size=2)) for node in range(1, size)]
    below = [{node} for node in range(size)]
    for node in range(size - 1, 0, -1):
        for parent in parents[node - 1]:
            below[parent] |= below[node]
    holders = [node for node in range(size) for _ in range(draw(st.integers(0, 2)))][:8] or [size - 1]
    operators = [(below[node], draw(amount)) for node in range(1, size) for _ in parents[node - 1]]
    return assembled(holders, operators, draw)


@st.composite
def encoder_decoders(draw: st.DrawFn) -> Profile:
    """A chain of decoder blocks, each with one or two tensors on a side branch that leads to the encoder."""
    blocks, encoder = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    holders: list[int] = []
    operators: list[tuple[set[int], int]] = []
    for block in range(blocks):
        deeper = set(range(block + 1, blocks))
        joined = set(range(100, 100 + encoder))
        operators += [(deeper | {block, 10 + block} | joined, draw(amount)), (deeper, draw(amount))]
        operators.append(({10 + block} | joined, draw(amount)))
        holders += [block] * draw(st.integers(0, 1)) + [10 + block] * draw(st.integers(1, 2))
    for layer in range(encoder):
        operators.append((set(range(100 + layer, 100 + encoder)), draw(amount)))
        holders.append(100 + layer)
    if draw(st.booleans()):  # an embedding that encoder and decoder share needs everything
        operators = [(served | {200}, flops) for served, flops in operators]
        holders.append(200)
    return assembled(holders, operators, draw)


amount = st.integers(0, 60)


def assembled(holders: list[int], operators: list[tuple[set[int], int]], draw: st.DrawFn) -> Profile:
    """A profile of a tensor at each of the nodes `holders`, and of operators that serve tensors at some nodes."""
    costs = {1 << tensor: draw(amount) for tensor in range(len(holders))}
    for served, flops in operators:
        mask = sum(1 << tensor for tensor, node in enumerate(holders) if node in served)
        if mask:
            costs[mask] = costs.get(mask, 0) + flops
    tensors = tuple((f"t{tensor}", 1) for tensor in range(len(holders)))
    return build_profile(tensors, forward=draw(st.integers(1, 200)), total=costs, counted=StepFlops(0, ()))


@st.composite
def conditional(draw: st.DrawFn, plain: st.SearchStrategy[Profile]) -> Profile:
    """A profile whose operators cost something else while one or two of its tensors are trained."""
    base = draw(plain)
    total = {cost.needed_by: cost.flops for cost in base.shared}
    total |= {1 << tensor: flops for tensor, flops in enumerate(base.exclusive)}
    conditions = {1 << draw(st.integers(0, len(base.tensors) - 1)) for _ in range(draw(st.integers(1, 2)))}
    changes = tuple(
        ConditionalCost(when, needed_by, draw(st.integers(-(flops // 2), 60)))
        for when in conditions
        for needed_by, flops in total.items()
        if draw(st.booleans())
    )
    names = tuple((tensor.name, 1) for tensor in base.tensors)
    return build_profile(names, forward=base.forward_flops, total=total, counted=StepFlops(0, ()), conditional=changes)


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
def test_however_few_pairs_are_kept_no_budget_is_exceeded(costs: Profile, data: st.DataObject) -> None:
    worth = {tensor.name: data.draw(st.integers(1, 100)) for tensor in costs.tensors}
    rho = data.draw(st.floats(costs.floor, 1.0))
    with pytest.MonkeyPatch.context() as few:
        few.setattr(solver, "FRONTIER_LIMITS", (2,))
        few.setattr(decision_order, "MAX_FORKS", 0)
        few.setattr(decision_order, "MAX_STRETCH_TENSORS", 1)
        chosen = select(costs, worth, rho)
    assert costs.step_flops(chosen.names) == chosen.flops <= rho * costs.full_flops


@pytest.mark.parametrize("rho", [0.45, 0.6, 0.75, 0.9])
def test_thinning_costs_less_than_a_thousandth(costs: Profile, rho: float, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(3)
    worth = {tensor.name: draw.lognormvariate(0, 1) * tensor.params for tensor in costs.tensors}
    thin = select(costs, worth, rho).importance
    monkeypatch.setattr(solver, "FRONTIER_LIMITS", (1 << 30,))
    monkeypatch.setattr(solver, "TOLERANCE", 0.0)
    assert thin >= (1 - 0.001) * select(costs, worth, rho).importance


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


def test_importance_may_lack_what_does_not_fit_by_itself(costs: Profile) -> None:
    rho = costs.floor + 0.1
    worth = {tensor.name: 1.0 for tensor in costs.tensors}
    measured = {name: value for name, value in worth.items() if costs.share([name]) <= rho}
    assert 0 < len(measured) < len(worth)
    assert select(costs, measured, rho) == select(costs, worth, rho)
    with pytest.raises(ValueError, match="no entry for"):
        select(costs, measured, 1.0)


def test_an_encoder_beside_a_deep_decoder_takes_few_choices() -> None:
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
