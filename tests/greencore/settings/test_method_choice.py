"""The method that `auto` comes to: by the table's losses at the nearest budget, with the settings that were given."""

import json
from typing import Any

import pytest

from greencore.settings.hyperparameters import MAX_EPOCHS, Hyperparameters
from greencore.settings.method_choice import (
    FrontierInvalid,
    MethodBudget,
    MethodChoice,
    MethodsUnavailable,
    choose_method,
    load_frontier,
    parse_frontier,
)
from greencore.settings.method_settings import LoraSettings
from tests.method_table import FRONTIER, LORA, TABLE

STEPS_PER_EPOCH = 100


def choose(
    budget: float,
    *,
    lora_share: float | str = 0.8,
    full_share: float | str = 1.0,
    width: int | None = None,
    **given: Any,
) -> MethodChoice:
    def measure_share(method: str, settings: LoraSettings | None) -> float | str:
        assert (settings is not None) == (method == "lora")
        return lora_share if method == "lora" else full_share

    settings = Hyperparameters.model_validate(given)
    basis = MethodBudget(budget, "as tested")
    return choose_method(FRONTIER, basis, settings, measure_share, steps_per_epoch=STEPS_PER_EPOCH, width=width)


@pytest.mark.parametrize(
    ("budget", "method", "epochs", "steps"),
    [
        (1e-9, "lora", None, 1),
        (0.2, "lora", None, 25),
        (0.999, "lora", None, 124),
        (1.0, "lora", None, 125),  # as near to both: the smaller
        (1.005, "full", 1, None),
        (2.5, "full", None, 250),
        (3.0, "full", 3, None),
        (1e9, "full", MAX_EPOCHS, None),
    ],
)
def test_the_lowest_loss_at_the_nearest_budget_decides_and_the_budget_is_spent(
    budget: float, method: str, epochs: int | None, steps: int | None
) -> None:
    found = choose(budget)
    chosen = found.hyperparameters
    assert (found.method, chosen.epochs, chosen.max_steps) == (method, epochs, steps)
    assert chosen == Hyperparameters.model_validate(chosen.model_dump(mode="json"))


def test_budgets_are_compared_by_steps_whatever_the_rows_of_an_epoch() -> None:
    budget, given = MethodBudget(1.0, ""), Hyperparameters(epochs=1)
    methods = [
        choose_method(FRONTIER, budget, given, lambda *_: 0.8, steps_per_epoch=steps).method
        for steps in (10, 100, 101, 5000)
    ]
    assert methods == ["lora", "lora", "full", "full"]


def test_beyond_an_epoch_the_runs_that_met_their_rows_again_are_compared() -> None:
    few, again = (
        choose_method(FRONTIER, MethodBudget(epochs, ""), Hyperparameters(), lambda *_: 0.8, steps_per_epoch=30)
        for epochs in (1.4, 1.42)
    )
    assert (few.method, again.method) == ("lora", "full")
    assert "42 of its steps; at 50 in 0.5 epochs, the nearest measured, " in few.reason
    assert "42.6 of its steps; at 400 in 2 epochs, the nearest measured and far off, " in again.reason


def test_the_tables_rate_and_settings_are_taken_where_none_are_set() -> None:
    low, high = choose(0.5).hyperparameters, choose(2).hyperparameters
    assert (low.learning_rate, low.lora) == (1e-3, LoraSettings.model_validate(LORA))
    assert (high.learning_rate, high.lora) == (1e-4, None)


@pytest.mark.parametrize(
    ("width", "rate"), [(None, 1e-3), (16, 1e-3), (64, 1e-3), (128, 5e-4), (576, 1.1e-4), (4096, 1.6e-5)]
)
def test_a_wider_model_gets_a_lower_rate(width: int | None, rate: float) -> None:
    assert choose(0.5, width=width).hyperparameters.learning_rate == rate
    assert choose(0.5, width=width, learning_rate=7e-4).hyperparameters.learning_rate == 7e-4


def test_settings_that_are_set_are_kept() -> None:
    found = choose(0.5, learning_rate=2e-5, lora={"rank": 4}, batch_size=8).hyperparameters
    assert (found.learning_rate, found.batch_size) == (2e-5, 8)
    assert found.lora == LoraSettings.model_validate({**LORA, "rank": 4, "alpha": 8})
    assert choose(2, lora={"rank": 4}).hyperparameters.lora is None


def test_another_rank_keeps_the_scale_of_the_update() -> None:
    given = {"rank": 4}
    assert choose(0.5, lora=given).hyperparameters.lora == LoraSettings.model_validate({**LORA, "rank": 4, "alpha": 8})
    own = {"rank": 4, "alpha": 32}
    assert choose(0.5, lora=own).hyperparameters.lora == LoraSettings.model_validate({**LORA, **own})


@pytest.mark.parametrize(
    ("budget", "length", "given", "warmup"),
    [
        (0.4, {"epochs": 1}, 50, 50),
        (0.4, {"epochs": 1}, 60, 30),
        (0.4, {"max_steps": 80}, 80, 50),
        (8, {"epochs": 1}, 100, 100),
    ],
)
def test_a_warm_up_longer_than_the_run_keeps_its_share(
    budget: float, length: dict[str, int], given: int, warmup: int
) -> None:
    chosen = choose(budget, **length, warmup_steps=given).hyperparameters
    assert chosen.warmup_steps == warmup
    assert chosen == Hyperparameters.model_validate(chosen.model_dump(mode="json"))


def test_a_budget_far_from_what_was_measured_is_said_to_be() -> None:
    assert "at 50 in 0.5 epochs, the nearest measured, validation" in choose(0.13).reason
    assert "at 50 in 0.5 epochs, the nearest measured and far off, validation" in choose(0.12).reason
    assert "at 400 in 2 epochs, the nearest measured and far off, validation" in choose(16.1).reason


def test_a_rate_of_another_optimiser_is_not_taken() -> None:
    assert choose(0.5, optimizer="sgd").hyperparameters.learning_rate == Hyperparameters().learning_rate


def test_a_method_that_cannot_train_the_model_is_passed_over_with_the_reason() -> None:
    found = choose(0.5, lora_share="has no linear module")
    assert found.method == "full"
    assert found.hyperparameters.max_steps == 50
    assert "LoRA is ruled out (has no linear module)" in found.reason
    with pytest.raises(MethodsUnavailable, match="LoRA: no module; full fine-tuning: no memory"):
        choose(0.5, lora_share="no module", full_share="no memory")


def test_the_reason_has_the_figures_and_their_source() -> None:
    assert choose(0.4).reason == (
        "a budget of 0.4 epochs of full fine-tuning (as tested), 40 of its steps; at 50 in 0.5 epochs, the "
        "nearest measured, validation losses of 2.800 by LoRA of rank 16, 2.900 by full fine-tuning; measured on tiny "
        "and ten rows with one seed, and another model or other data may differ"
    )


def test_greentrainer_keeps_the_length_whose_work_its_policy_cuts() -> None:
    runs = [{"epochs": 1, "steps": 10, "method": "greentrainer", "rho": 0.5, "learning_rate": 1e-4, "loss": 2.0}]
    frontier = parse_frontier(json.dumps({**TABLE, "runs": runs}))
    found = choose_method(
        frontier, MethodBudget(1.8, ""), Hyperparameters(epochs=3), lambda *_: "not asked", steps_per_epoch=10
    )
    assert (found.method, found.hyperparameters.epochs, found.hyperparameters.learning_rate) == (
        "greentrainer",
        3,
        1e-4,
    )


@pytest.mark.parametrize(
    ("change", "at_fault"),
    [
        ({"runs": []}, "runs"),
        ({"seeds": 0}, "seeds"),
        ({"runs": [{**TABLE["runs"][0], "steps": 0}]}, r"runs\.0\.steps"),
        ({"runs": [{**TABLE["runs"][0], "loss": float("nan")}]}, r"runs\.0\.loss"),
        ({"runs": [{**TABLE["runs"][0], "method": "prefix"}]}, r"runs\.0\.method"),
        ({"runs": [{**TABLE["runs"][0], "lora": LORA}]}, "expected lora with the method lora"),
        ({"runs": [{**TABLE["runs"][1], "lora": None}]}, "expected lora with the method lora"),
        ({"runs": [{**TABLE["runs"][1], "lora": {"rank": 0}}]}, r"runs\.0\.lora\.rank"),
    ],
)
def test_a_bad_table_is_refused_with_the_field(change: dict[str, Any], at_fault: str) -> None:
    with pytest.raises(FrontierInvalid, match=at_fault):
        parse_frontier(json.dumps({**TABLE, **change}))


def test_a_table_that_is_not_json_is_refused() -> None:
    with pytest.raises(FrontierInvalid, match="expected JSON"):
        parse_frontier("{")


def test_the_packages_table_compares_full_fine_tuning_and_lora_at_all_steps() -> None:
    frontier = load_frontier()
    for run in frontier.runs:
        assert {"full", "lora"} <= {each.method for each in frontier.list_runs(run.epochs, run.steps)}
