"""Runs of the frontier on a small model: what they train, what they count, and what they keep."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.training.finetuning import meter_training
from benchmarks.training.frontier.arms import FULL, LORA, SFT, FrontierArm, PlannedRun
from benchmarks.training.frontier.report import choose_rate, tabulate
from benchmarks.training.frontier.runs import Frontier, Scale
from benchmarks.training.frontier.schedules import BlocksInTurn, RandomBlocks, Suffix
from benchmarks.training.frontier.step_recorder import RecordedPass, StepRecorder, from_json, to_json
from benchmarks.training.splits import SplitSizes
from greencore.training import GreenTrainerCallback
from tests.greencore.training.conftest import small_model

pytestmark = pytest.mark.usefixtures("remembered_traces")

SCALE = Scale(SplitSizes(16, 4, 2, max_length=48), max_new_tokens=2)
STEPS_PER_EPOCH = 4
SUFFIX = FrontierArm("full above 2", (1e-3,), schedule=Suffix(2), cache="cold")
LORA_SUFFIX = FrontierArm("LoRA above 2", (1e-3,), adapts_from=2, cache="cold")
GREEN = tuple(
    FrontierArm(f"GT-0.7 {batches}", (1e-3,), kind="greentrainer", rho=0.7, probe_batches=batches)
    for batches in (1, None)
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for split, amount in (("train", 16), ("validation", 4), ("test", 2)):
        rows = [
            {"source": " ".join(f"w{(row + i) % 60}" for i in range(8 + row)), "targets": [f"w{row} w{row + 1} w3"]}
            for row in range(amount)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def frontier(data: Path, model: Path, tmp_path: Path) -> Frontier:
    return Frontier(data, SCALE, tmp_path / "work", model=model)


def run(frontier: Frontier, arm: FrontierArm, budget: float = 1.0, seed: int = 0) -> dict[str, Any]:
    planned = PlannedRun(arm, arm.rates[0], seed, budget)
    frontier.run(planned, best=0.0)
    found = frontier.find(planned)
    assert found is not None
    return found


def price(frontier: Frontier, recorded: RecordedPass) -> float:
    return frontier.prices.count_flops(SUFFIX, {recorded: 1})


def test_full_fine_tuning_takes_its_budget_and_learns(frontier: Frontier) -> None:
    found = run(frontier, FULL, 2.0)
    assert found["steps"] == 2 * STEPS_PER_EPOCH
    assert found["epochs_of_full"] == pytest.approx(2.0, rel=0.05)
    assert found["validation_loss"] < frontier.score_untrained()["validation_loss"]


@pytest.mark.parametrize(
    "arm",
    [
        *(LORA, SUFFIX, LORA_SUFFIX),
        FrontierArm("LISA", (1e-3,), schedule=RandomBlocks(1, every=2)),
        FrontierArm("BAdam", (1e-3,), schedule=BlocksInTurn(1, every=2)),
        FrontierArm("two phases", (1e-3,), schedule=Suffix(2, 1 / 3), adapts_from=0, cache="cold"),
    ],
    ids=lambda arm: arm.name,
)
def test_every_schedule_takes_as_many_steps_as_its_budget_pays_for(frontier: Frontier, arm: FrontierArm) -> None:
    assert run(frontier, arm, 3.0)["epochs_of_full"] == pytest.approx(3.0, abs=0.3)


def test_the_output_of_a_frozen_prefix_counts_once_a_row(frontier: Frontier) -> None:
    planned = PlannedRun(SUFFIX, SUFFIX.rates[0], 0, 1.0)
    recorder = StepRecorder(cache="cold")
    meter_training(frontier.build_trainer(planned, 2 * STEPS_PER_EPOCH, recorder))
    known = sum(each.cached_rows * count for each, count in recorder.passes.items())
    assert known == 16  # every row of the second epoch, and none of the first
    assert {each.boundary for each in recorder.passes} == {2}
    assert from_json(json.loads(json.dumps(to_json(recorder.passes)))) == recorder.passes
    uncached = sum(n * price(frontier, replace(each, cached_rows=0)) for each, n in recorder.passes.items())
    forward = sum(n * price(frontier, replace(each, names=(), cached_rows=0)) for each, n in recorder.passes.items())
    saved = uncached - frontier.prices.count_flops(SUFFIX, recorder.passes)
    assert 0.5 * forward / 2 < saved < 2 / 3 * forward / 2  # two of three blocks, in one of two epochs
    assert recorder.cached_cpu_seconds > 0


def test_a_cache_that_is_filled_already_is_read_from_the_first_step(frontier: Frontier) -> None:
    arm = replace(SUFFIX, name="filled", cache="filled")
    recorder = StepRecorder(cache="filled")
    meter_training(frontier.build_trainer(PlannedRun(arm, arm.rates[0], 0, 1.0), STEPS_PER_EPOCH, recorder))
    assert sum(each.cached_rows * count for each, count in recorder.passes.items()) == 16
    cold, filled = (frontier.prices.choose_steps(each, 1.0, seed=0) for each in (SUFFIX, arm))
    assert filled > cold
    assert run(frontier, arm)["epochs_of_full"] == pytest.approx(1.0, abs=0.2)


def test_to_fill_a_cache_takes_the_forward_pass_of_the_blocks_below_once(frontier: Frontier) -> None:
    assert 0.1 < frontier.prices.price_filling(LORA_SUFFIX) < 0.3  # two of three blocks, a third of the step
    assert frontier.prices.price_filling(replace(LORA_SUFFIX, adapts_from=0)) == 0


def test_rows_that_were_met_before_the_prefix_was_frozen_are_not_known(frontier: Frontier) -> None:
    arm = FrontierArm("two phases", (1e-3,), schedule=Suffix(2, 1 / 3), cache="cold")
    recorder = StepRecorder(cache="cold")
    meter_training(frontier.build_trainer(PlannedRun(arm, arm.rates[0], 0, 1.0), 3 * STEPS_PER_EPOCH, recorder))
    assert {each.boundary for each in recorder.passes} == {0, 2}
    assert sum(each.cached_rows * count for each, count in recorder.passes.items()) == 16  # of the third epoch


@pytest.mark.parametrize("arm", GREEN, ids=lambda arm: arm.name)
def test_recorded_flops_are_those_that_adaptive_backpropagation_reports(frontier: Frontier, arm: FrontierArm) -> None:
    recorder = StepRecorder(cache=None)
    trainer = frontier.build_trainer(PlannedRun(arm, arm.rates[0], 0, 1.0), 2 * STEPS_PER_EPOCH, recorder)
    meter_training(trainer)
    [callback] = [each for each in trainer.callback_handler.callbacks if isinstance(each, GreenTrainerCallback)]
    reported = sum(epoch.flops + epoch.probe_flops for epoch in callback.epochs)
    assert len(callback.epochs) == 2
    assert frontier.prices.count_flops(arm, recorder.passes) == pytest.approx(reported, rel=1e-6)
    assert run(frontier, arm, 2.0)["epochs_of_full"] == pytest.approx(2.0, abs=0.3)


@pytest.mark.parametrize(("ours", "theirs"), list(zip((FULL, LORA), SFT, strict=True)), ids=("full", "LoRA"))
def test_our_baselines_learn_what_trls_trainer_learns(
    frontier: Frontier, ours: FrontierArm, theirs: FrontierArm
) -> None:
    own, other = run(frontier, ours), run(frontier, theirs)
    assert own["steps"] == other["steps"]
    assert own["validation_loss"] == pytest.approx(other["validation_loss"], abs=1e-4)


def test_a_kept_run_is_found_by_another_process_and_reported(
    frontier: Frontier, data: Path, model: Path, tmp_path: Path
) -> None:
    first, second = run(frontier, FULL, seed=0), run(frontier, FULL, seed=1)
    other = Frontier(data, SCALE, tmp_path / "work", model=model)
    assert other.find(PlannedRun(FULL, FULL.rates[0], 0, 1.0)) == first
    assert choose_rate(other, FULL, 1.0, seed=0) == FULL.rates[0]
    [row] = tabulate(other, [0, 1])
    assert row["validation loss"] == pytest.approx((first["validation_loss"] + second["validation_loss"]) / 2)
    assert len(row["runs"]) == 2
