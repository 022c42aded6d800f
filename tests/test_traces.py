"""What makes a remembered trace that of another model, and what does not."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from greencore.backprop import profile
from greencore.training.batches.batch_shapes import BatchShapes
from greencore.training.methods.step_costs import StepCosts
from greencore.training.models.loading import enable_gradient_checkpointing, load_meta_model, load_model
from tests.greencore.training.conftest import small_model
from tests.traces import describe_model, remember_traces

SHAPES = BatchShapes(2, (8,), (8,))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("model"), layers=1)


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What `StepCosts` traced, as the models' descriptions, while traces are remembered."""
    traced = list[Any]()

    def record(model: torch.nn.Module, *given: Any, **options: Any) -> Any:
        traced.append(describe_model(model))
        return profile(model, *given, **options)

    monkeypatch.setattr("tests.traces.profile", record)
    monkeypatch.setattr("tests.traces._traced", {})
    with remember_traces():
        yield traced


def test_an_equal_model_of_another_folder_is_not_traced_again(folder: Path, tmp_path: Path, traces: list[Any]) -> None:
    first = StepCosts(load_model(folder), SHAPES)
    before = len(traces)
    second = StepCosts(load_model(small_model(tmp_path / "other", layers=1)), SHAPES)
    assert len(traces) == before > 0
    assert first.tensor_costs == second.tensor_costs


def wrap_forward(model: Any) -> None:
    def wrapped(*given: Any, **inputs: Any) -> Any:
        return type(model).forward(model, *given, **inputs)

    model.forward = wrapped


def drop_out(model: Any) -> None:
    model.config.attention_dropout = 0.5


@pytest.mark.parametrize(
    "change",
    [
        enable_gradient_checkpointing,
        lambda model: model.set_attn_implementation("eager"),
        lambda model: model.to(torch.bfloat16),
        lambda model: model.requires_grad_(False),
        lambda model: model.register_forward_pre_hook(lambda *_: None),
        lambda model: model.get_input_embeddings().register_parameter("more", torch.nn.Parameter(torch.zeros(3))),
        wrap_forward,
        drop_out,
    ],
)
def test_a_model_of_other_code_modes_or_tensors_is_traced(
    folder: Path, traces: list[Any], change: Callable[[Any], object]
) -> None:
    model = load_model(folder)
    before = describe_model(model)
    change(model)
    assert describe_model(model) != before


def test_other_shapes_names_and_devices_are_traced(folder: Path, traces: list[Any]) -> None:
    model = load_model(folder)
    [*names] = (name for name, _ in model.named_parameters())

    def count(model: torch.nn.Module, shapes: BatchShapes, names: list[str] | None = None) -> int:
        before = len(traces)
        StepCosts(model, shapes, names=names)
        return len(traces) - before

    every = count(model, SHAPES)
    assert count(model, BatchShapes(3, (8,), (8,))) == every
    assert count(model, BatchShapes(2, (8,), (16,))) > 0
    assert count(model, SHAPES, names[:1]) == every
    assert count(model, SHAPES, names[1:]) == every
    assert count(load_meta_model(folder), SHAPES) == every
    assert count(model, SHAPES) == 0
