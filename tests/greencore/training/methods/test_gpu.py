"""FLOPs, ρ and energy metering on a GPU."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from greencore.backprop import profile
from greencore.dataset import Row
from greencore.energy import EnergyInterval, EnergyMeter
from greencore.settings.hyperparameters import Hyperparameters
from greencore.training import GreenTrainerCallback
from greencore.training.listener import TrainingListener
from greencore.training.methods.epoch_ledger import EpochReport
from greencore.training.models.loading import load_model
from greencore.training.run import TrainingResult, fine_tune
from tests.greencore.backprop.executed import count_torch_flops
from tests.greencore.training.methods.trainers import CountingTrainer, counting_trainer

pytestmark = pytest.mark.gpu


class Notes(TrainingListener):
    """Records device and epoch reports."""

    device = ""

    def __init__(self) -> None:
        self.epochs: list[EpochReport] = []

    def on_training_started(
        self, *, steps: int, steps_done: int, epochs_done: int, within_epoch: bool, device: str, precision: str
    ) -> None:
        self.device = device

    def on_epoch_finished(self, report: EpochReport, *, train_loss: float, eval_loss: float | None) -> None:
        self.epochs.append(report)


def test_matmul_flops_equal_what_torch_counts_on_the_gpu(model_folder: Path) -> None:
    model = load_model(model_folder).to("cuda")  # type: ignore[arg-type]
    ids = torch.ones(4, 32, dtype=torch.long, device="cuda")
    batch = {"input_ids": ids, "labels": ids}
    costs = profile(model, batch)
    for chosen in ([tensor.name for tensor in costs.tensors][:depth] for depth in (1, 5, 20, len(costs.tensors))):
        assert costs.matmul_step_flops(chosen) == count_torch_flops(model, batch, chosen)


def test_a_run_trains_on_the_gpu_within_rho_and_meters_it(model_folder: Path, rows: list[Row], tmp_path: Path) -> None:
    pytest.importorskip("codecarbon")  # without which energy is estimated
    notes, metered = Notes(), list[EnergyInterval]()
    with EnergyMeter(metered.append, interval_seconds=1.0):
        result = fine_tune(
            model_folder=model_folder,
            rows=rows,
            hyperparameters=Hyperparameters(epochs=2, batch_size=4, max_length=64, eval_share=0.2),
            rho=0.7,
            folder=tmp_path,
            listener=notes,
        )
    assert result.completed
    assert notes.device == "cuda"
    assert all(0.68 < report.share <= 0.7 for report in notes.epochs)
    assert {interval.gpu_method for interval in metered} == {"NVML energy counter"}
    assert sum(interval.gpu_kwh for interval in metered) > 0


class StopsAt(TrainingListener):
    """Stops a run after a step."""

    def __init__(self, step: int) -> None:
        self._step, self._done = step, 0

    def on_step_finished(self, *, done: int, steps: int, loss: float) -> None:
        self._done = done

    def should_stop(self) -> bool:
        return self._done == self._step


@pytest.mark.parametrize("precision", ["bf16", "mixed"])
def test_a_stopped_run_on_the_gpu_ends_with_the_same_weights(
    model_folder: Path, rows: list[Row], tmp_path: Path, precision: str
) -> None:
    def run(folder: Path, listener: TrainingListener | None = None) -> TrainingResult:
        settings = Hyperparameters(epochs=2, batch_size=4, max_length=64, eval_share=0.2, precision=precision)
        return fine_tune(
            model_folder=model_folder, rows=rows, hyperparameters=settings, rho=0.7, folder=folder, listener=listener
        )

    whole = run(tmp_path / "whole")
    assert not run(tmp_path / "stopped", StopsAt(2)).completed
    resumed = run(tmp_path / "stopped")
    assert whole.artifact is not None
    assert resumed.artifact is not None
    one, two = (load_file(artifact / "model.safetensors") for artifact in (whole.artifact, resumed.artifact))
    assert all(torch.equal(value, two[name]) for name, value in one.items())


@pytest.mark.parametrize("options", [{"fp16": True}, {"bf16": True}, {"activation_checkpointing": True}], ids=str)
def test_every_real_step_on_the_gpu_stays_within_rho(
    model_folder: Path, rows: list[Row], tmp_path: Path, options: dict[str, Any]
) -> None:
    def train(*callbacks: GreenTrainerCallback) -> CountingTrainer:
        trainer, _ = counting_trainer(model_folder, tmp_path, rows, callbacks, epochs=2, use_cpu=False, **options)
        trainer.train()
        return trainer

    full, green = train(), GreenTrainerCallback(lambda epoch: [0.8, 0.6][epoch], optimizer_state="host")
    trainer = train(green)
    counted = zip(trainer.counted, full.counted, trainer.list_measured(green), strict=True)
    assert max(batch / whole for batch, whole, measures in counted if not measures) <= 0.8
    assert all(report.rho - 0.03 < report.share <= report.rho for report in green.epochs)
