"""Runs in several processes, each with a part of every tensor: the run of one process, stopped and resumed.

Killed ones go on to the same bits in `tests/chaos/test_gpus.py`.
"""

import filecmp
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from tests.greencore.training.conftest import small_model
from tests.greencore.training.families import family_folder
from tests.greencore.training.process_runs import Recorder, launch, run

CASES: dict[str, dict[str, Any]] = {
    "greentrainer": {"micro_batch_size": 1, "keep": "best"},
    "lora": {"method": "lora", "lora": {"targets": "all-linear", "dropout": 0.0}},
    "full": {"method": "full", "result": "delta"},
    "prefix": {"method": "prefix", "optimizer": "sgd", "learning_rate": 0.05},
    "half": {"precision": "bf16", "batch_size": 8, "micro_batch_size": 2, "adaptive": {"probe_batches": 1}},
    "t5": {"optimizer": "sgd", "learning_rate": 0.05, "eval_share": 0, "sample_prompt": "w1 w2"},
    "moe": {"optimizer": "sgd", "learning_rate": 0.05},  # Adam turns the rounding of small gradients into signs
}
STOP = 8  # within the second epoch

Recorded = dict[str, tuple[Recorder, Path]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder of each case's model."""
    root = tmp_path_factory.mktemp("models")
    others = {
        "moe": family_folder("mixtral", root / "routed", num_hidden_layers=2),
        "t5": family_folder("t5", root / "t5", num_layers=2, dropout_rate=0.0),
    }
    return dict.fromkeys(CASES, small_model(root / "small")) | others


@pytest.fixture(scope="module")
def alone(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """Each case's run in one process, and its folder."""
    root = tmp_path_factory.mktemp("alone")
    return {name: (run(models[name], root / name, **case), root / name) for name, case in CASES.items()}


@pytest.fixture(scope="module")
def together(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """Each case's run in two processes; of the first one also a part, what follows on it, and a refusal."""
    root = tmp_path_factory.mktemp("together")
    runs = {name: {"model_folder": models[name], "folder": root / name, **case} for name, case in CASES.items()}
    first = runs["greentrainer"]
    runs |= {
        "stopped": {**first, "folder": root / "stopped", "stop_after": STOP},
        "before": {**first, "folder": root / "resumed", "stop_after": STOP},
        "resumed": {**first, "folder": root / "resumed"},
        "refused": {**first, "folder": root / "refused", "optimizer": "adafactor"},
    }
    recorded = launch(list(runs.values()), processes=2)
    return {name: (record, Path(one["folder"])) for (name, one), record in zip(runs.items(), recorded, strict=True)}


@pytest.mark.parametrize("name", CASES)
def test_two_processes_end_with_the_result_of_one(alone: Recorded, together: Recorded, name: str) -> None:
    (expected, one), (found, two) = alone[name], together[name]
    assert found.selections == expected.selections
    half = name == "half"  # micro-batches' gradients are then added in bfloat16
    assert found.losses == pytest.approx(expected.losses, rel=1e-3 if half else 1e-4)
    if not half:
        check_results(two, one)


def test_adafactor_is_refused(together: Recorded) -> None:
    refused, _ = together["refused"]
    assert refused.refusal is not None
    assert "adafactor cannot step tensors of which each process holds a part" in refused.refusal


def test_a_stopped_run_goes_on_to_the_same_bits(together: Recorded) -> None:
    whole, folder = together["greentrainer"]
    (before, _), (after, resumed) = together["before"], together["resumed"]
    assert before.losses | after.losses == whole.losses
    assert min(after.losses) == max(before.losses) + 1
    assert filecmp.cmp(result_file(resumed), result_file(folder), shallow=False)


def test_a_run_goes_on_in_another_number_of_processes(
    models: dict[str, Path],
    alone: Recorded,
    together: Recorded,
    tmp_path: Path,
) -> None:
    """Two processes, then four, then one."""
    expected, folder = alone["greentrainer"]
    before, stopped = together["stopped"]
    shutil.copytree(stopped, tmp_path / "run")
    [in_four] = launch([{**resumed(models, tmp_path / "run"), "stop_after": 12}], processes=4)
    in_one = run(models["greentrainer"], tmp_path / "run", **CASES["greentrainer"])
    assert before.losses | in_four.losses | in_one.losses == pytest.approx(expected.losses, rel=1e-4)
    check_results(tmp_path / "run", folder)


def resumed(models: dict[str, Path], folder: Path) -> dict[str, Any]:
    """Arguments of the first case's run that goes on in a folder."""
    return {"model_folder": models["greentrainer"], "folder": folder, **CASES["greentrainer"]}


def result_file(folder: Path) -> Path:
    [file] = (folder / "artifacts").glob("*.safetensors")
    return file


def check_results(found: Path, expected: Path) -> None:
    ours, theirs = load_file(result_file(found)), load_file(result_file(expected))
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert_close(ours[name], tensor, msg=name)
