"""Step costs of a run: the budget holds at every length and is used up."""

import random
from pathlib import Path

import pytest
import torch

from greencore.backprop import BudgetTooSmall, Profile, profile
from greencore.training.batches.batch_shapes import BatchShapes, StepShape
from greencore.training.methods.step_costs import StepCosts
from greencore.training.models.loading import load_meta_model, load_model
from tests.greencore.training.conftest import small_model


@pytest.fixture(scope="module", autouse=True)
def remembered_traces() -> None:
    """Have every model traced, since traces are what is tested."""


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("model"), layers=6)  # whose tensors fill any budget


@pytest.fixture(scope="module")
def costs(model_folder: Path) -> StepCosts:
    return StepCosts(load_model(model_folder), BatchShapes(4, (8,), (64,)))


@pytest.fixture(scope="module")
def traced_profiles(model_folder: Path) -> list[Profile]:
    """Profiles at lengths of which `costs` has traced the first and the last only."""
    model = load_model(model_folder)
    batches = [torch.zeros(4, length, dtype=torch.long) for length in (8, 24, 48, 64)]
    return [profile(model, {"input_ids": ids, "labels": ids}) for ids in batches]


@pytest.mark.parametrize("rho", [0.5, 0.7, 0.9])
def test_a_selection_stays_within_rho_at_every_length_by_either_count(
    costs: StepCosts, traced_profiles: list[Profile], rho: float
) -> None:
    chosen = costs.select({name: 1.0 + index for index, name in enumerate(costs.tensors)}, rho)
    for traced in traced_profiles:
        assert traced.share(chosen.names) <= rho
        assert traced.matmul_step_flops(chosen.names) <= rho * traced.matmul_step_flops(costs.tensors)
    assert rho - 0.02 < costs.compute_max_share(chosen.names) <= rho


def test_the_budget_left_by_positive_importance_goes_to_other_tensors(costs: StepCosts) -> None:
    best = costs.tensors[5]
    importance = dict.fromkeys(costs.tensors, -1.0) | {best: 1.0}
    chosen = costs.select(importance, 0.8)
    assert best in chosen.names
    assert 0.78 < costs.compute_max_share(chosen.names) <= 0.8


def test_the_budget_is_used_up_for_any_importances(costs: StepCosts) -> None:
    """Signs and orders of magnitude are mixed, as in a real probe."""
    draw = random.Random(0)
    for _ in range(400):
        importance = {name: draw.choice([-1, 1]) * 10 ** draw.gauss(0, 1) for name in costs.tensors}
        rho = draw.uniform(0.42, 0.6)
        assert rho - 0.02 < costs.compute_max_share(costs.select(importance, rho).names) <= rho


def test_below_the_floor_the_error_states_the_floor_of_every_length(costs: StepCosts) -> None:
    importance = dict.fromkeys(costs.tensors, 1.0)
    with pytest.raises(BudgetTooSmall) as refusal:
        costs.select(importance, costs.floor - 1e-6)
    assert refusal.value.floor == costs.floor
    assert costs.compute_max_share(costs.select(importance, costs.floor).names) == costs.floor


def test_flops_of_an_epoch_add_up_over_its_batches(costs: StepCosts) -> None:
    long, half = StepShape(4, (16,)), StepShape(2, (32,))
    assert costs.count_flops(costs.tensors, {long: 2, half: 1}) == round(
        2 * costs.full_flops(long) + costs.full_flops(half)
    )
    assert costs.full_flops(half) == pytest.approx(costs.full_flops(StepShape(4, (32,))) / 2)


def test_a_meta_model_costs_nearly_the_same(costs: StepCosts, model_folder: Path) -> None:
    """Only the attention kernel differs between devices."""
    skeleton = StepCosts(load_meta_model(model_folder), BatchShapes(4, (8,), (64,)))
    assert skeleton.tensors == costs.tensors
    assert skeleton.floor == pytest.approx(costs.floor, rel=0.02)
