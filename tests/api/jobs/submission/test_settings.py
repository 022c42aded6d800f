"""`POST /jobs`: hyperparameters that contradict each other, the method or the data."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.api.jobs.submission.submissions import error_fields, error_message


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"hyperparameters": {"packing": True, "group_by_length": True}}, "group_by_length"),
        ({"hyperparameters": {"packing": "always"}}, "packing"),
        ({"hyperparameters": {"attention": "linear"}}, "attention"),
        ({"hyperparameters": {"attention": "flash", "precision": "fp32"}}, "attention"),
        ({"method": "prefix", "hyperparameters": {"packing": True}}, "packing"),
        ({"method": "prefix", "hyperparameters": {"gradient_checkpointing": True}}, "gradient_checkpointing"),
    ],
    ids=str,
)
def test_contradicting_layouts_are_refused_with_the_field(submit: Any, body: dict[str, Any], field: str) -> None:
    assert set(error_fields(submit(**body))) == {f"hyperparameters.{field}"}


def test_auto_contradicts_nothing(submit: Any) -> None:
    auto = dict.fromkeys(("packing", "group_by_length", "gradient_checkpointing"), "auto")
    assert submit(method="prefix", hyperparameters=auto).status_code == 201


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"method": "full", "hyperparameters": {"lora": {"rank": 4}}}, "lora"),
        ({"hyperparameters": {"lora": {}}}, "lora"),
        ({"method": "lora", "hyperparameters": {"adaptive": {}}}, "adaptive"),
        ({"method": "auto", "hyperparameters": {"adaptive": {}}}, "adaptive"),
        ({"method": "auto", "hyperparameters": {"lora": {"rank": 0}}}, "lora.rank"),
        ({"method": "lora", "hyperparameters": {"lora": {"rank": 0}}}, "lora.rank"),
        ({"method": "lora", "hyperparameters": {"lora": {"targets": "all"}}}, "lora.targets"),
        ({"method": "lora", "hyperparameters": {"lora": {"targets": []}}}, "lora.targets"),
        ({"method": "lora", "hyperparameters": {"lora": {"targets": ["q_proj", "v" * 201]}}}, "lora.targets[1]"),
        ({"method": "lora", "hyperparameters": {"lora": {"result": "adapter"}, "result": "delta"}}, "lora"),
        ({"hyperparameters": {"adaptive": {"reselect_every": 0}}}, "adaptive.reselect_every"),
        ({"hyperparameters": {"adaptive": {"never_train": [""]}}}, "adaptive.never_train[0]"),
        ({"hyperparameters": {"adaptive": {"always_train": ["*"] * 65}}}, "adaptive.always_train"),
    ],
    ids=str,
)
def test_settings_of_a_method_are_refused_with_the_field(submit: Any, body: dict[str, Any], field: str) -> None:
    assert set(error_fields(submit(**body))) == {f"hyperparameters.{field}"}


def test_a_job_keeps_the_settings_of_its_method(submit: Any, client: TestClient) -> None:
    adaptive = {"reselect_every": 50, "never_train": ["*.embed_tokens.*"], "always_train": ["*norm*"]}
    job = submit(hyperparameters={"adaptive": adaptive}).json()
    assert adaptive.items() <= job["hyperparameters"]["adaptive"].items()
    lora = {"rank": 16, "targets": "all-linear", "result": "adapter"}
    job = submit(method="lora", hyperparameters={"lora": lora}).json()
    assert lora.items() <= job["hyperparameters"]["lora"].items()


@pytest.mark.parametrize(
    ("hyperparameters", "field"),
    [
        ({"epochs": 2, "max_steps": 10}, "max_steps"),
        ({"epochs": None}, "max_steps"),
        ({"micro_batch_size": 5}, "micro_batch_size"),
        ({"micro_batch_size": "most"}, "micro_batch_size"),
        ({"warmup_ratio": 0.1, "warmup_steps": 3}, "warmup_steps"),
        ({"max_steps": 10, "warmup_steps": 11}, "warmup_steps"),
        ({"scheduler": "constant", "min_lr_ratio": 0.1}, "min_lr_ratio"),
        ({"momentum": 0.9}, "momentum"),
        ({"optimizer": "sgd", "adam_beta1": 0.8}, "adam_beta1"),
        ({"optimizer": "adafactor", "adam_beta2": 0.8}, "adam_beta2"),
        ({"scheduler": "polynomial"}, "scheduler"),
    ],
    ids=str,
)
def test_a_contradicting_recipe_is_refused_with_the_field(
    submit: Any, hyperparameters: dict[str, Any], field: str
) -> None:
    assert error_fields(submit(hyperparameters=hyperparameters)) == [f"hyperparameters.{field}"]


def test_a_length_in_steps_replaces_the_epochs(submit: Any, client: TestClient, dataset_id: str) -> None:
    job = submit(hyperparameters={"max_steps": 5, "batch_size": 1}).json()
    rows = client.get(f"/datasets/{dataset_id}").json()["rows"]
    assert job["hyperparameters"]["epochs"] is None
    assert job["progress"]["epochs"] == -(-5 // rows)
    again = submit(hyperparameters=job["hyperparameters"])
    assert again.status_code == 201


def test_steps_of_more_epochs_than_a_run_may_have_are_refused(submit: Any, client: TestClient, dataset_id: str) -> None:
    rows = client.get(f"/datasets/{dataset_id}").json()["rows"]
    most = {"batch_size": rows, "max_steps": 1000}
    assert submit(hyperparameters=most).status_code == 201

    response = submit(hyperparameters={**most, "max_steps": 1001})

    assert error_fields(response) == ["hyperparameters.max_steps"]
    assert error_message(response) == f"given 1001: that is 1001 epochs of {rows} rows, more than 1000"


def test_a_warm_up_longer_than_the_epochs_is_refused(submit: Any, client: TestClient, dataset_id: str) -> None:
    rows = client.get(f"/datasets/{dataset_id}").json()["rows"]
    longest = {"epochs": 2, "batch_size": 1, "warmup_steps": 2 * rows}
    assert submit(hyperparameters=longest).status_code == 201

    response = submit(hyperparameters={**longest, "warmup_steps": 2 * rows + 1})

    assert error_fields(response) == ["hyperparameters.warmup_steps"]
    assert error_message(response) == f"given {2 * rows + 1}, but the run has {2 * rows} steps"


@pytest.mark.parametrize("needing", [{"early_stopping": {}}, {"keep": "best"}])
def test_settings_that_need_evaluations_are_refused_where_no_row_is_held_out(
    submit: Any, needing: dict[str, Any]
) -> None:
    response = submit(hyperparameters={"eval_share": 0, **needing})

    assert error_fields(response) == [f"hyperparameters.{name}" for name in needing]
    assert "no row is held out" in error_message(response)
    assert submit(hyperparameters=needing).status_code == 201


@pytest.mark.parametrize(
    ("hyperparameters", "field"),
    [
        ({"eval_every": 0}, "eval_every"),
        ({"eval_unit": "tokens"}, "eval_unit"),
        ({"keep": "worst"}, "keep"),
        ({"early_stopping": {"patience": 0}}, "early_stopping.patience"),
        ({"early_stopping": {"min_gain": -1}}, "early_stopping.min_gain"),
        ({"early_stopping": {"metric": "rouge"}}, "early_stopping.metric"),
    ],
)
def test_evaluation_settings_out_of_range_are_refused(submit: Any, hyperparameters: dict[str, Any], field: str) -> None:
    assert error_fields(submit(hyperparameters=hyperparameters)) == [f"hyperparameters.{field}"]
