"""Two torchrun processes train the same tensors, and end with the weights of one process."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_model

from greencore.dataset import PromptRow
from greencore.training import GreenTrainerCallback
from tests.greencore.training.methods.trainers import counting_trainer

ROWS = [PromptRow(f"w{1 + number} w2 w3 w4 w5 w6", " w7 w8 w9 w10") for number in range(16)]


def main(model_folder: str, output: str, rows_each: str) -> None:
    """Train in one process of a run, and write its selections and weights."""
    rank = int(os.environ.get("RANK", "0"))
    green = GreenTrainerCallback(lambda epoch: [0.6, 0.8][epoch], reselect_every=3)
    trainer, model = counting_trainer(
        Path(model_folder),
        Path(output) / "run",
        ROWS,
        [green],
        epochs=2,
        per_device_train_batch_size=int(rows_each),
        optim="sgd",  # Adam's first steps turn rounding into signs
        learning_rate=0.05,
    )
    trainer.train()
    reports = [[r.epoch, r.tensors, r.flops, r.full_flops, r.probe_flops, dict(r.importance)] for r in green.epochs]
    (Path(output) / f"reports-{rank}.json").write_text(json.dumps(reports))
    save_model(model, str(Path(output) / f"weights-{rank}.safetensors"))


def run(model_folder: Path, output: Path, *, processes: int) -> tuple[list[Any], list[dict[str, torch.Tensor]]]:
    output.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", f"--master-port={port}"]
    subprocess.run(
        [
            sys.executable,
            *(launch if processes > 1 else []),
            __file__,
            str(model_folder),
            str(output),
            str(4 // processes),
        ],
        check=True,
        timeout=240,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[4]), "OMP_NUM_THREADS": "1"},
    )
    ranks = range(processes)
    return (
        [json.loads((output / f"reports-{rank}.json").read_text()) for rank in ranks],
        [load_file(output / f"weights-{rank}.safetensors") for rank in ranks],
    )


def test_two_processes_select_the_same_and_end_with_the_weights_of_one(model_folder: Path, tmp_path: Path) -> None:
    [alone], [expected] = run(model_folder, tmp_path / "one", processes=1)
    reports, weights = run(model_folder, tmp_path / "two", processes=2)
    assert reports[0] == reports[1]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in expected)
    for ours, theirs in zip(reports[0], alone, strict=True):
        assert ours[:2] == theirs[:2]
        assert ours[2:5] == pytest.approx(theirs[2:5], rel=1e-4)  # some costs are per batch
        assert ours[5] == pytest.approx(theirs[5], rel=1e-3, abs=1e-9)
    for name, value in expected.items():
        torch.testing.assert_close(weights[0][name], value, msg=name)


if __name__ == "__main__":
    main(*sys.argv[1:])
    if torch.distributed.is_initialized():
        # Left to the interpreter's end, the group's threads may be torn down while they run, which aborts the process.
        torch.distributed.destroy_process_group()
