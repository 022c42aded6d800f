"""Runs of the frontier, each kept in a file of its own."""

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, Trainer, TrainerCallback

from benchmarks.training.finetuning import build_trainer, meter_training, model_folder
from benchmarks.training.frontier.arms import FrontierArm, PlannedRun
from benchmarks.training.frontier.prices import Prices, add_lora
from benchmarks.training.frontier.schedules import ScheduleCallback
from benchmarks.training.frontier.step_recorder import StepRecorder, from_json, to_json
from benchmarks.training.splits import Splits, SplitSizes
from greencore.settings.hyperparameters import Hyperparameters
from greencore.training import GreenTrainerCallback
from greencore.training.batches.batch_shapes import StepShape, get_step_shape, measure_batch_shapes
from greencore.training.batches.learned_positions import LearnedPositionsCollator
from greencore.training.data.tokenisation import Collator
from greencore.training.models.loading import load_model, load_tokenizer

Record = dict[str, Any]

ROUGE_FROM = 0.5  # budgets below take less time than the completions do


@dataclass(frozen=True)
class Scale:
    """Size of the comparison; part of every kept run's name."""

    rows: SplitSizes
    batch_size: int = 4
    max_new_tokens: int = 32
    beams: int = 1


SCALES = {
    "small": Scale(SplitSizes(160, 48, 24, max_length=128)),
    "whole": Scale(SplitSizes(None, None, None, max_length=512), max_new_tokens=64, beams=4),
}


class Frontier:
    """Runs arms on the splits in a folder, and keeps each run's result in `work`."""

    def __init__(self, data: Path, scale: Scale, work: Path, *, model: Path | None = None) -> None:
        """Tokenise the rows for the model in a folder, by default the benchmarks'.

        Raises ValueError naming the file and line that is invalid.
        """
        transformers.utils.logging.disable_progress_bar()
        transformers.utils.logging.set_verbosity_error()
        self._scale, self._work = scale, work
        self._folder = model or model_folder()
        self._tokenizer = load_tokenizer(self._folder)
        self._splits = Splits(data, self._tokenizer, scale.rows)
        assert isinstance(self._tokenizer.pad_token_id, int)
        self._collate = LearnedPositionsCollator(Collator(self._tokenizer.pad_token_id))
        self.prices = self._build_prices()

    def find(self, planned: PlannedRun) -> Record | None:
        """Return the result of a run with its FLOPs in epochs of full fine-tuning; None where it is not kept."""
        file = self._get_file(planned)
        if not file.is_file():
            return None
        record: Record = json.loads(file.read_text())
        flops = self.prices.count_flops(planned.arm, from_json(record["work"]))
        emulated = 1 - record["cached_cpu_seconds"] / record["cpu_seconds"]
        return {
            **{key: value for key, value in record.items() if key != "work"},
            "flops": flops,
            "epochs_of_full": flops / self.prices.full_epoch,
            "cpu_seconds": emulated * record["cpu_seconds"],
            "energy_kwh": emulated * record["energy_kwh"],
        }

    def run(self, planned: PlannedRun, *, best: float) -> None:
        """Train, score and keep a run; ROUGE is scored from half an epoch on, for a validation loss below `best`."""
        steps = self.prices.choose_steps(planned.arm, planned.budget, seed=planned.seed)
        recorder = StepRecorder(cache=planned.arm.cache)
        trainer = self.build_trainer(planned, steps, recorder)
        meter = meter_training(trainer)
        model = cast(PreTrainedModel, trainer.model)
        loss = self._splits.score_validation(model, batch_size=self._scale.batch_size)
        record = {
            "arm": planned.arm.name,
            "rate": planned.rate,
            "seed": planned.seed,
            "budget": planned.budget,
            "steps": steps,
            "validation_loss": loss,
            "rouge": self._score_rouge(model) if loss < best and planned.budget >= ROUGE_FROM else None,
            **asdict(meter),
            "cached_cpu_seconds": recorder.cached_cpu_seconds,
            "work": to_json(recorder.passes),
        }
        self._work.mkdir(parents=True, exist_ok=True)
        file = self._get_file(planned)
        unfinished = file.with_suffix(".part")
        unfinished.write_text(json.dumps(record))
        unfinished.rename(file)

    def score_untrained(self) -> Record:
        """Return the scores of the pretrained model, from their file where they are kept."""
        file = self._work / f"untrained-{self._hash(asdict(self._scale))}.json"
        if not file.is_file():
            model = load_model(self._folder)
            loss = self._splits.score_validation(model, batch_size=self._scale.batch_size)
            self._work.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps({"validation_loss": loss, "rouge": self._score_rouge(model)}))
        scores: Record = json.loads(file.read_text())
        return scores

    def build_trainer(self, planned: PlannedRun, steps: int, recorder: StepRecorder) -> Trainer:
        arm = planned.arm
        transformers.set_seed(planned.seed)
        model = load_model(self._folder)
        if arm.adapts_from is not None:
            model = add_lora(model, arm.adapts_from)
        recipe = Hyperparameters(
            learning_rate=planned.rate,
            batch_size=self._scale.batch_size,
            seed=planned.seed,
            max_steps=steps,
            epochs=None,
        )
        if arm.kind == "sft_trainer":
            return self._build_sft_trainer(model, recipe, recorder)
        own: TrainerCallback = (
            GreenTrainerCallback(arm.rho, metric=arm.metric, probe_batches=arm.probe_batches)
            if arm.kind == "greentrainer"
            else ScheduleCallback(arm.schedule, seed=planned.seed)
        )
        return build_trainer(
            model, self._tokenizer, self._splits.train.examples, recipe, [own, recorder], collator=self._collate
        )

    def _build_sft_trainer(self, model: PreTrainedModel, recipe: Hyperparameters, recorder: StepRecorder) -> Trainer:
        from datasets import Dataset

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what TRL imports and deprecates
            from trl.trainer.sft_config import SFTConfig
            from trl.trainer.sft_trainer import SFTTrainer

            rows = [{"input_ids": row.input_ids, "labels": row.labels} for row in self._splits.train.examples]
            return SFTTrainer(
                model=model,
                args=SFTConfig(
                    output_dir="build/benchmark",
                    max_steps=recipe.max_steps or -1,
                    per_device_train_batch_size=recipe.batch_size,
                    learning_rate=recipe.learning_rate,
                    lr_scheduler_type="linear",
                    weight_decay=recipe.weight_decay,
                    max_grad_norm=recipe.max_grad_norm,
                    max_length=self._scale.rows.max_length,
                    seed=recipe.seed,
                    use_cpu=True,
                    bf16=False,
                    gradient_checkpointing=False,
                    activation_checkpointing=False,
                    dataloader_pin_memory=False,
                    save_strategy="no",
                    logging_strategy="no",
                    report_to="none",
                    disable_tqdm=True,
                ),
                train_dataset=Dataset.from_list(rows),
                processing_class=self._tokenizer,
                callbacks=[recorder],
            )

    def _build_prices(self) -> Prices:
        examples, rows = self._splits.train.examples, self._scale.batch_size
        order = torch.Generator().manual_seed(0)
        loader = DataLoader(
            cast(Any, examples), batch_size=rows, shuffle=True, generator=order, collate_fn=self._collate
        )
        shapes = measure_batch_shapes(loader, batch_size=rows, encoder=False, longest_of_stream=0)
        lengths = [get_step_shape(batch, encoder=False).lengths for batch in loader]
        mean = StepShape(rows, tuple(round(sum(part) / len(part)) for part in zip(*lengths, strict=True)))
        return Prices(self._folder, shapes, mean, steps_per_epoch=len(loader))

    def _score_rouge(self, model: PreTrainedModel) -> Mapping[str, float]:
        return self._splits.score_rouge(model, max_new_tokens=self._scale.max_new_tokens, beams=self._scale.beams)

    def _get_file(self, planned: PlannedRun) -> Path:
        plain, arm = FrontierArm("", ()), replace(planned.arm, rates=())
        settings = {each.name: repr(getattr(arm, each.name)) for each in fields(arm)}
        # of what differs from the default, so that a later setting keeps the names of runs without it
        changed = {name: value for name, value in settings.items() if value != repr(getattr(plain, name))}
        name = planned.arm.name.replace(",", "").replace(" ", "-")
        identity = self._hash([changed, asdict(self._scale)])
        return self._work / f"{name}-{planned.budget:g}-{planned.rate:g}-{planned.seed}-{identity}.json"

    @staticmethod
    def _hash(value: Any) -> str:
        return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]
