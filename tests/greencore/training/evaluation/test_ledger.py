"""When a run is evaluated, which evaluation is the best, and when early stopping ends the run."""

import json
from typing import Any

import pytest

from greencore.settings.hyperparameters import Hyperparameters
from greencore.training.evaluation.ledger import EvaluationLedger


def ledger_of(**settings: Any) -> EvaluationLedger:
    return EvaluationLedger(Hyperparameters(**settings))


def due_steps(ledger: EvaluationLedger, *, per_epoch: int, steps: int) -> list[int]:
    found = []
    for step in range(1, steps + 1):
        epochs_done = step // per_epoch if step % per_epoch == 0 else None
        if ledger.is_due(step, max_steps=steps, epochs_done=epochs_done):
            ledger.add(step, 1.0, max_steps=steps)
            found.append(step)
    return found


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [4, 8, 12]),
        ({"eval_every": 2}, [8, 12]),
        ({"eval_every": 5, "eval_unit": "steps"}, [5, 10, 12]),
        ({"eval_every": 100, "eval_unit": "steps"}, [12]),
    ],
)
def test_evaluations_are_due_at_their_interval_and_at_the_end(settings: dict[str, Any], expected: list[int]) -> None:
    assert due_steps(ledger_of(**settings), per_epoch=4, steps=12) == expected


def test_an_evaluated_step_is_not_due_again() -> None:
    ledger = ledger_of()
    ledger.add(4, 1.0, max_steps=12)
    assert not ledger.is_due(4, max_steps=12, epochs_done=1)


def test_the_best_is_the_first_of_the_lowest_losses_and_kept_only_if_asked() -> None:
    for keep, kept in (("best", 2), ("last", None)):
        ledger = ledger_of(keep=keep)
        for step, loss in enumerate([3.0, 1.5, 1.5, 2.0], start=1):
            ledger.add(step, loss, max_steps=9)
        assert (ledger.best_step, ledger.best_loss, ledger.kept_step) == (2, 1.5, kept)


def stop_step(losses: list[float], **stopping: Any) -> int | None:
    """Return the step of the evaluation that ends the run; the last is the run's."""
    ledger = ledger_of(early_stopping=stopping)
    for step, loss in enumerate(losses, start=1):
        ledger.add(step, loss, max_steps=len(losses))
        if ledger.stopped_early is not None:
            assert ledger.stopped_early.startswith(f"stopped early after step {step}: ")
            return step
    return None


@pytest.mark.parametrize(
    ("losses", "stopping", "expected"),
    [
        ([3.0, 2.0, 2.1, 2.1, 1.0, 1.0], {"patience": 2}, 4),
        ([3.0, 2.0, 2.1, 1.9, 2.0, 2.0, 1.0], {"patience": 2}, 6),
        ([3.0, 2.95, 2.9, 2.5, 2.0], {"patience": 2, "min_gain": 0.2}, 3),
        ([3.0, 2.95, 2.7, 2.65, 2.4, 2.0], {"patience": 2, "min_gain": 0.2}, None),
        ([3.0, 3.0], {"patience": 1}, None),  # the run is over anyway
    ],
)
def test_a_run_ends_after_its_patience_without_a_gain(
    losses: list[float], stopping: dict[str, Any], expected: int | None
) -> None:
    assert stop_step(losses, **stopping) == expected


def test_the_reason_of_an_early_end_counts_its_evaluations() -> None:
    for patience, words in ((1, "in 1 evaluation;"), (2, "in 2 evaluations;")):
        ledger = ledger_of(early_stopping={"patience": patience})
        for step in range(1, 5):
            ledger.add(step, 1.0 + step, max_steps=9)
            if ledger.stopped_early:
                break
        assert words in str(ledger.stopped_early)


def test_a_restored_ledger_continues_with_the_same_counters() -> None:
    settings = {"keep": "best", "early_stopping": {"patience": 3, "min_gain": 0.1}}
    losses = [3.0, 2.5, 2.45, 2.44, 2.43, 2.42]
    whole, stopped = ledger_of(**settings), ledger_of(**settings)
    for step, loss in enumerate(losses, start=1):
        whole.add(step, loss, max_steps=20)
        restored = ledger_of(**settings)
        restored.restore(json.loads(json.dumps(stopped.to_json())))
        restored.add(step, loss, max_steps=20)
        stopped = restored
        assert stopped.to_json() == whole.to_json()
    assert stopped.stopped_early is not None
