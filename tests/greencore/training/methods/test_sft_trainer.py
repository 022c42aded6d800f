"""The callback inside TRL's SFTTrainer, which tokenises and computes its loss in its own way."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch.utils.flop_counter import FlopCounterMode
from transformers import TrainerCallback

from greencore.dataset import PromptRow, Row
from greencore.training import GreenTrainerCallback
from greencore.training.models.loading import load_model, load_tokenizer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what TRL imports and deprecates
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer


def counted_steps(model_folder: Path, output: Path, rows: list[Row], *callbacks: TrainerCallback) -> list[int]:
    """Train prompt rows with SFTTrainer; the FLOPs that torch counts in each step."""
    counted = []

    class Counting(SFTTrainer):
        def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
            with FlopCounterMode(display=False) as counter:
                loss: torch.Tensor = super().training_step(*args, **kwargs)  # type: ignore[no-untyped-call]
            counted.append(counter.get_total_flops())
            return loss

    prompts = [{"prompt": row.prompt, "completion": row.completion} for row in rows if isinstance(row, PromptRow)]
    trainer = Counting(
        model=load_model(model_folder),
        args=SFTConfig(
            output_dir=str(output),
            num_train_epochs=2,
            per_device_train_batch_size=4,
            learning_rate=1e-3,
            max_length=64,
            use_cpu=True,
            bf16=False,
            activation_checkpointing=False,
            dataloader_pin_memory=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(prompts),
        processing_class=load_tokenizer(model_folder),
        callbacks=list(callbacks),
    )
    trainer.train()
    return counted


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_an_sft_trainer_trains_within_rho(model_folder: Path, rows: list[Row], tmp_path: Path) -> None:
    full = counted_steps(model_folder, tmp_path / "full", rows)
    green = GreenTrainerCallback(0.6)
    spent = counted_steps(model_folder, tmp_path / "green", rows, green)
    assert len(spent) == len(full) > 0
    assert all(0.57 < report.share <= 0.6 for report in green.epochs)
    # SFTTrainer's own loss takes the output embedding's gradient by addmm_, which torch does not count: the same
    # products for both, but for the embedding's own gradient, which only full fine-tuning takes.
    shares = [step / whole for step, whole in zip(spent, full, strict=True)]
    measured = [shares.pop(first) for first in (len(full) // 2, 0)]  # an epoch's first step measures importance
    assert max(shares) <= 0.605 < min(measured)
    assert sum(spent) > 0.57 * sum(full)
