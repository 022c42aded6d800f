"""Importance probe of a run: the rows that it draws, and fp16 loss scales that overflow."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, TrainingArguments

from greencore.backprop import NotFinite
from greencore.dataset import Row
from greencore.training.batches.batch_shapes import BatchShapes
from greencore.training.data.tokenisation import Collator, tokenise_rows
from greencore.training.methods.probe import ImportanceProbe, ProbeResult
from greencore.training.methods.step_costs import StepCosts
from greencore.training.models.loading import load_model, load_tokenizer


class Scaled:
    """An optimiser as accelerate wraps it under fp16, with the scaler of the loss."""

    def __init__(self, optimizer: torch.optim.Optimizer, scale: float) -> None:
        self.optimizer = optimizer
        self.scaler = torch.amp.GradScaler("cpu", init_scale=scale)


@pytest.fixture
def model(model_folder: Path) -> PreTrainedModel:
    return load_model(model_folder)


@pytest.fixture
def costs(model: PreTrainedModel) -> StepCosts:
    return StepCosts(model, BatchShapes(4, (8,), (64,)))


def probed(
    model: PreTrainedModel,
    costs: StepCosts,
    model_folder: Path,
    rows: list[Row],
    *,
    scale: float = 1.0,
    number: int = 0,
) -> ProbeResult:
    examples: Any = tokenise_rows(rows, load_tokenizer(model_folder), max_length=64).examples
    arguments = TrainingArguments(output_dir=str(model_folder), use_cpu=True, per_device_train_batch_size=4)
    return ImportanceProbe("dw_grad", 2).measure(
        model,
        Scaled(torch.optim.AdamW(model.parameters(), lr=1e-3), scale),
        DataLoader(examples, batch_size=4, collate_fn=Collator(0)),
        arguments,
        names=costs.tensors,
        number=number,
        costs=costs,
    )


def test_a_loss_scale_that_overflows_is_halved_until_it_does_not(
    model: PreTrainedModel, costs: StepCosts, model_folder: Path, rows: list[Row]
) -> None:
    plain = probed(model, costs, model_folder, rows)
    scaled = probed(model, costs, model_folder, rows, scale=2.0**127)
    assert scaled.importance == pytest.approx(plain.importance, rel=1e-4)
    assert scaled.flops > plain.flops  # failed passes are counted


def test_a_nan_loss_at_any_scale_is_an_error(
    model: PreTrainedModel, costs: StepCosts, model_folder: Path, rows: list[Row]
) -> None:
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(NotFinite, match="loss is nan"):
        probed(model, costs, model_folder, rows, scale=4.0)


def test_a_probe_draws_the_same_rows_again_and_other_probes_others(
    model: PreTrainedModel, costs: StepCosts, model_folder: Path, rows: list[Row]
) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = probed(model, costs, model_folder, rows)
    assert probed(model, costs, model_folder, rows).importance == first.importance
    assert probed(model, costs, model_folder, rows, number=1).importance != first.importance
    assert torch.equal(torch.get_rng_state(), before)
