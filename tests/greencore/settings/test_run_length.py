"""Length of a run in steps and epochs, and the words for its recipe."""

import pytest

from greencore.settings.hyperparameters import Hyperparameters
from greencore.settings.recipe_text import describe_recipe
from greencore.settings.run_length import RunLength, compute_run_length
from store.repositories.jobs import whole_epochs
from store.tables import Job


@pytest.mark.parametrize(
    ("settings", "rows", "expected"),
    [
        ({"epochs": 3, "batch_size": 4}, 9, RunLength(steps=9, steps_per_epoch=3)),
        ({"max_steps": 7, "batch_size": 4}, 9, RunLength(steps=7, steps_per_epoch=3)),
        ({"max_steps": 2, "batch_size": 4}, 9, RunLength(steps=2, steps_per_epoch=3)),
    ],
)
def test_a_run_is_as_long_as_its_epochs_or_steps(settings: dict[str, int], rows: int, expected: RunLength) -> None:
    assert compute_run_length(Hyperparameters.model_validate(settings), training_rows=rows) == expected


def test_a_cut_epoch_counts_as_a_fraction() -> None:
    cut, whole = RunLength(7, 3), RunLength(9, 3)
    assert (cut.epochs, whole.epochs) == (3, 3)
    assert [cut.whole_epochs, whole.whole_epochs] == pytest.approx([7 / 3, 3.0])
    assert [cut.last_epoch_share, whole.last_epoch_share] == pytest.approx([1 / 3, 1.0])


def test_a_job_prepared_by_an_earlier_version_has_whole_epochs() -> None:
    assert whole_epochs(Job(epochs=3, steps=7, estimate={"steps_per_epoch": 3})) == pytest.approx(7 / 3)
    assert whole_epochs(Job(epochs=3, steps=9, estimate={"steps": 9})) == 3.0
    assert whole_epochs(Job(epochs=3, steps=None, estimate=None)) == 3.0


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {},
            "3 epochs; 4 rows a step; learning rate 2e-05, linear; adamw (β 0.9, 0.999), weight decay 0.01, "
            "gradients clipped to 1",
        ),
        (
            {
                "max_steps": 200,
                "batch_size": 32,
                "micro_batch_size": "auto",
                "scheduler": "cosine",
                "warmup_ratio": 0.05,
                "min_lr_ratio": 0.1,
                "optimizer": "sgd",
                "max_grad_norm": 0,
            },
            "200 steps; 32 rows a step, as many at once as memory holds; learning rate 2e-05, cosine after a warm-up "
            "of 0.05 of the steps, down to 0.1 of it; sgd (momentum 0.9), weight decay 0.01, no clipping",
        ),
        (
            {"epochs": 1, "batch_size": 1, "micro_batch_size": 1, "warmup_steps": 9, "optimizer": "adafactor"},
            "1 epoch; 1 row a step, 1 at once; learning rate 2e-05, linear after 9 steps of warm-up; adafactor, "
            "weight decay 0.01, gradients clipped to 1",
        ),
        (
            {"max_steps": 1, "batch_size": 2, "warmup_steps": 1, "optimizer": "adafactor"},
            "1 step; 2 rows a step; learning rate 2e-05, linear after 1 step of warm-up; adafactor, "
            "weight decay 0.01, gradients clipped to 1",
        ),
    ],
)
def test_a_recipe_is_one_line(settings: dict[str, object], expected: str) -> None:
    assert describe_recipe(Hyperparameters.model_validate(settings)) == expected
