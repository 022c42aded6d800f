"""Selections over the epochs of a run: they follow the model, not the age of the optimiser's state."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from greencore.dataset import PromptRow, Row
from greencore.training import GreenTrainerCallback
from tests.greencore.training.conftest import small_model
from tests.greencore.training.methods.trainers import counting_trainer

EPOCHS = 6


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of which half a budget trains a part."""
    return small_model(tmp_path_factory.mktemp("deep"), layers=8)


@pytest.fixture(scope="module")
def reversed_words() -> list[Row]:
    """Rows of 5 to 28 words, whose completion is the first four in reverse."""
    draw = torch.Generator().manual_seed(2)
    rows: list[Row] = []
    for index in range(48):
        words = [f"w{int(number)}" for number in torch.randint(62, (5 + index // 2,), generator=draw)]
        rows.append(PromptRow(" ".join(words), " " + " ".join(words[:4][::-1])))
    return rows


def compare_epochs(deep: Path, rows: list[Row], tmp_path: Path, green: GreenTrainerCallback) -> list[float]:
    """Train for six epochs, and return the Jaccard index of each epoch's tensors and the next one's."""
    trainer, _ = counting_trainer(deep, tmp_path, rows, [green], epochs=EPOCHS, counting=False)
    trainer.train()
    chosen = [set(report.tensors) for report in green.epochs]
    assert len(chosen) == EPOCHS
    assert all(len(names) < green.epochs[0].tensors_total / 2 for names in chosen)
    return [len(one & other) / len(one | other) for one, other in pairwise(chosen)]


@pytest.mark.parametrize("probe_batches", [None, 1])
def test_a_selection_does_not_alternate_between_epochs(
    deep: Path, reversed_words: list[Row], tmp_path: Path, probe_batches: int | None
) -> None:
    green = GreenTrainerCallback(0.5, probe_batches=probe_batches)
    assert min(compare_epochs(deep, reversed_words, tmp_path, green)) > 0.5


def test_by_the_papers_importance_it_alternates(deep: Path, reversed_words: list[Row], tmp_path: Path) -> None:
    green = GreenTrainerCallback(0.5, metric="dw_grad")
    assert max(compare_epochs(deep, reversed_words, tmp_path, green)) < 0.5
