"""Trainer on the small model whose steps are counted by torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments

from greencore.dataset import Row
from greencore.training.data.tokenisation import Collator, tokenise_rows
from greencore.training.methods.selection_callback import SelectionCallback
from greencore.training.models.loading import load_model, load_tokenizer
from tests.greencore.backprop.executed import torch_flop_counter


class CountingTrainer(Trainer):
    """Records the FLOPs that torch counts in every batch, if `counting`: counting takes longer than the batch.

    `trained` are the names of the tensors that needed gradients in it.
    """

    counted: list[int]
    trained: list[set[str]]
    counting: bool

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        if not self.counting:
            return super().training_step(*args, **kwargs)
        assert isinstance(self.model, torch.nn.Module)
        self.trained.append({name for name, tensor in self.model.named_parameters() if tensor.requires_grad})
        with torch_flop_counter() as counter:
            loss = super().training_step(*args, **kwargs)
        self.counted.append(counter.get_total_flops())
        return loss

    def list_measured(self, green: SelectionCallback) -> list[bool]:
        """List for each batch whether it measured importance, with gradients beyond those of every selection."""
        batches = len(self.trained) // len(green.epochs)
        selections = [[set(chosen.tensors) for chosen in report.selections] for report in green.epochs]
        return [names not in selections[number // batches] for number, names in enumerate(self.trained)]


def counting_trainer(
    model_folder: Path,
    output: Path,
    data: Sequence[Row],
    callbacks: Sequence[TrainerCallback],
    *,
    model: PreTrainedModel | None = None,
    collator: Any = None,
    evaluate: bool = False,
    epochs: int = 3,
    counting: bool = True,
    **options: Any,
) -> tuple[CountingTrainer, PreTrainedModel]:
    """Build a trainer of `data` and of the model in a folder, or of another model with the same vocabulary."""
    model = model or load_model(model_folder)
    examples = tokenise_rows(
        data, load_tokenizer(model_folder), max_length=64, encoder=bool(model.config.is_encoder_decoder)
    ).examples
    defaults: dict[str, Any] = {
        "num_train_epochs": epochs,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-3,
        "save_strategy": "no",
        "use_cpu": True,
    }
    trainer = CountingTrainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(output),
            dataloader_pin_memory=False,
            remove_unused_columns=False,
            report_to="none",
            disable_tqdm=True,
            **(defaults | options),
        ),
        train_dataset=examples,
        eval_dataset=examples[:4] if evaluate else None,
        data_collator=collator or Collator(0),
        callbacks=list(callbacks),
    )
    trainer.counted, trainer.trained, trainer.counting = [], [], counting
    return trainer, model
