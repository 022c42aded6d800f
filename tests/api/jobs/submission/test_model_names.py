"""`POST /jobs`: patterns and targets that match nothing of a measured model."""

from dataclasses import asdict
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import event

from greencore.model_names import ModelNames
from store.database import Database
from store.repositories.models import ModelRepository
from tests.api.conftest import MODEL, NOW
from tests.api.jobs.submission.submissions import error_fields, error_message

NAMES = ModelNames(
    "LlamaForCausalLM",
    tensors=("model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight", "model.norm.weight"),
    tied={"lm_head.weight": "model.embed_tokens.weight"},
    modules={"model.layers.0.mlp.up_proj": "linear", "model.norm": "LlamaRMSNorm", "lm_head": "tied"},
)


@pytest.fixture
def measured(database: Database) -> None:
    with database.session() as session:
        ModelRepository(session).put(MODEL, parameters=1, tensors=3, rho_floor=0.3, names=asdict(NAMES), at=NOW)


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize(
    ("method", "hyperparameters", "field", "message"),
    [
        ("greentrainer", {"adaptive": {"never_train": ["*.nrom.*"]}}, "adaptive.never_train", "model.norm.weight"),
        ("greentrainer", {"adaptive": {"never_train": ["lm_head.*"]}}, "adaptive.never_train", "is tied to"),
        ("greentrainer", {"adaptive": {"never_train": ["*"]}}, "adaptive.never_train", "none is left"),
        (
            "greentrainer",
            {"adaptive": {"never_train": ["*.norm.*"], "always_train": ["model.norm.weight"]}},
            "adaptive.always_train",
            "both match model.norm.weight",
        ),
        ("lora", {"lora": {"targets": ["wq"]}}, "lora.targets", "matches no module of LlamaForCausalLM"),
        ("lora", {"lora": {"targets": ["up_proj", "norm"]}}, "lora.targets", "a LlamaRMSNorm"),
        ("lora", {"lora": {"targets": ["lm_head"]}}, "lora.targets", "tied to the input embedding"),
    ],
)
def test_names_that_a_measured_model_does_not_have_are_refused(
    submit: Any, method: str, hyperparameters: dict[str, Any], field: str, message: str
) -> None:
    response = submit(method=method, hyperparameters=hyperparameters)

    assert error_fields(response) == [f"hyperparameters.{field}"]
    assert message in error_message(response)


@pytest.mark.usefixtures("measured")
def test_names_that_it_has_are_accepted(submit: Any) -> None:
    adaptive = {"never_train": ["model.embed_*"], "always_train": ["*norm.weight"]}

    assert submit(hyperparameters={"adaptive": adaptive}).status_code == 201
    assert submit(method="lora", hyperparameters={"lora": {"targets": ["up_proj"]}}).status_code == 201
    assert submit(method="lora", hyperparameters={"lora": {"targets": "all-linear"}}).status_code == 201


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize(
    ("method", "hyperparameters", "loaded"),
    [
        ("greentrainer", {}, False),
        ("greentrainer", {"adaptive": {"charge_probe": True}}, False),
        ("lora", {"lora": {"targets": "all-linear"}}, False),
        ("greentrainer", {"adaptive": {"never_train": ["model.embed_*"]}}, True),
        ("lora", {"lora": {"targets": ["up_proj"]}}, True),
    ],
)
def test_names_are_loaded_only_where_a_job_gives_some(
    app: FastAPI, submit: Any, method: str, hyperparameters: dict[str, Any], loaded: bool
) -> None:
    statements: list[str] = []
    event.listen(app.state.context.database.engine, "before_cursor_execute", lambda *call: statements.append(call[2]))
    assert submit(method=method, hyperparameters=hyperparameters).status_code == 201
    assert any("models.names" in statement for statement in statements) is loaded


def test_names_of_a_model_that_is_not_measured_yet_are_left_to_preparation(submit: Any) -> None:
    assert submit(hyperparameters={"adaptive": {"never_train": ["nothing"]}}).status_code == 201


@pytest.mark.usefixtures("measured")
def test_a_measurement_without_names_keeps_those_that_are_known(database: Database) -> None:
    with database.session() as session:
        ModelRepository(session).put(MODEL, parameters=2, tensors=3, rho_floor=0.3, at=NOW)
    with database.session() as session:
        found = ModelRepository(session).get(MODEL)
        assert found is not None
        assert found.parameters == 2
        assert found.names == asdict(NAMES) | {"tensors": list(NAMES.tensors)}
