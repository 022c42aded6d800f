"""Selections with tensors that are always or never trained, against brute force."""

import itertools
from collections.abc import Collection

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greencore.backprop import BudgetTooSmall, Profile, importance_curve, select
from greencore.backprop.selection import decision_order
from tests.greencore.backprop.selection.profiles import conditional, encoder_decoders, graphs, profiles

ALL_PROFILES = st.one_of(profiles(), graphs(), encoder_decoders(), conditional(graphs()))


def list_allowed_sets(costs: Profile, always: Collection[str], never: Collection[str]) -> list[tuple[str, ...]]:
    free = [tensor.name for tensor in costs.tensors if tensor.name not in {*always, *never}]
    sets = [(*always, *more) for size in range(len(free) + 1) for more in itertools.combinations(free, size)]
    return [names for names in sets if names]


def draw_constraints(costs: Profile, data: st.DataObject) -> tuple[list[str], list[str]]:
    """Draw which tensors are always and which are never trained, with at least one that may be."""
    names = [tensor.name for tensor in costs.tensors]
    roles = [data.draw(st.sampled_from(["free", "free", "always", "never"]), label=name) for name in names]
    always = [name for name, role in zip(names, roles, strict=True) if role == "always"]
    never = [name for name, role in zip(names, roles, strict=True) if role == "never"]
    return always, never if len(never) < len(names) else never[1:]


@given(ALL_PROFILES, st.data(), st.sampled_from([1, 3, 10]))
@settings(max_examples=400, deadline=None)
def test_no_affordable_set_within_the_constraints_is_better(costs: Profile, data: st.DataObject, widest: int) -> None:
    names = [tensor.name for tensor in costs.tensors]
    always, never = draw_constraints(costs, data)
    worth = {name: data.draw(st.integers(-5, 100), label=name) for name in names}
    rho = data.draw(st.floats(0.05, 0.999), label="rho")
    allowed = list_allowed_sets(costs, always, never)
    affordable = [names for names in allowed if costs.step_flops(names) <= rho * costs.full_flops]
    if not affordable or (always and costs.share(always) > rho):
        with pytest.raises(BudgetTooSmall) as refusal:
            select(costs, worth, rho, always=always, never=never)
        least = min(costs.share(names) for names in allowed if names == tuple(always) or not always)
        assert refusal.value.floor == pytest.approx(least)
        assert refusal.value.floor > rho
        return
    with pytest.MonkeyPatch.context() as narrow:
        narrow.setattr(decision_order, "MAX_STRETCH_TENSORS", widest)
        chosen = select(costs, worth, rho, always=always, never=never)
    harmless = [s for s in affordable if all(worth[name] > 0 or name in always for name in s)]
    best = max(sum(worth[name] for name in s) for s in harmless or [s for s in affordable if len(s) == 1])
    assert set(always) <= set(chosen.names)
    assert not set(never) & set(chosen.names)
    assert costs.step_flops(chosen.names) == chosen.flops <= rho * costs.full_flops
    assert chosen.importance == pytest.approx(best)


@given(st.one_of(profiles(), conditional(graphs())), st.data())
@settings(max_examples=150, deadline=None)
def test_the_curve_is_the_optimum_at_every_budget(costs: Profile, data: st.DataObject) -> None:
    names = [tensor.name for tensor in costs.tensors]
    always, never = draw_constraints(costs, data)
    worth = {name: data.draw(st.integers(-5, 100), label=name) for name in names}
    allowed = list_allowed_sets(costs, always, never)
    floor = costs.share(always) if always else min(costs.share(s) for s in allowed if len(s) == 1)
    if floor > 1:  # what is not trained would have spared other operators
        with pytest.raises(BudgetTooSmall):
            importance_curve(costs, worth, always=always, never=never)
        return
    curve = importance_curve(costs, worth, always=always, never=never)
    allowed = [
        s for s in allowed if (len(s) == 1 and not always) or all(worth[name] > 0 or name in always for name in s)
    ]
    for rho in data.draw(st.lists(st.floats(float(curve.rho[0]), 1.0), min_size=5, max_size=5), label="rho"):
        best = max(sum(worth[name] for name in s) for s in allowed if costs.step_flops(s) <= rho * costs.full_flops)
        assert curve.at(rho) == pytest.approx(best)


def test_rho_of_one_trains_all_but_those_that_are_never_trained(costs: Profile) -> None:
    names = [tensor.name for tensor in costs.tensors]
    worth = dict.fromkeys(names, -1.0)
    chosen = select(costs, worth, 1.0, always=names[:2], never=names[5:8])
    assert chosen.names == (*names[:5], *names[8:])
    assert chosen.rho == costs.share(chosen.names)


def test_a_harmful_tensor_is_trained_where_it_is_always_trained(costs: Profile) -> None:
    harmful, worth = costs.tensors[0].name, {tensor.name: 1.0 for tensor in costs.tensors}
    assert harmful in select(costs, worth | {harmful: -100.0}, 0.9, always=[harmful]).names


def test_the_importance_of_what_is_decided_may_be_missing(costs: Profile) -> None:
    names = [tensor.name for tensor in costs.tensors]
    worth = dict.fromkeys(names[2:], 1.0)
    chosen = select(costs, worth, 0.9, always=[names[0]], never=[names[1]])
    assert chosen.importance == len(chosen.names) - 1
    with pytest.raises(ValueError, match=f"no entry for {names[1]}"):
        select(costs, worth, 0.9, always=[names[0]])


def test_constraints_that_contradict_each_other_are_refused(costs: Profile) -> None:
    names = [tensor.name for tensor in costs.tensors]
    worth = dict.fromkeys(names, 1.0)
    with pytest.raises(ValueError, match=f"{names[3]} is both"):
        select(costs, worth, 0.9, always=names[3:5], never=names[:4])
    with pytest.raises(ValueError, match="none is left to train"):
        select(costs, worth, 0.9, never=names)
    with pytest.raises(KeyError):
        select(costs, worth, 0.9, never=["unknown"])


def test_below_the_floor_the_error_names_the_tensors_that_are_always_trained(costs: Profile) -> None:
    names = [tensor.name for tensor in costs.tensors]
    with pytest.raises(BudgetTooSmall, match="the tensors that are always trained") as refusal:
        select(costs, dict.fromkeys(names, 1.0), 0.4, always=names)
    assert refusal.value.floor == 1.0
