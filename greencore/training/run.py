"""One fine-tuning run, from rows to a folder with the result: set up, evaluate, train, evaluate, save."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

import transformers
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from greencore.dataset import Row
from greencore.hyperparameters import Hyperparameters
from greencore.training.baselines import Baseline
from greencore.training.callback import BaselineCallback, GreenTrainerCallback, Schedule
from greencore.training.checkpoint import CheckpointedTrainer, latest_checkpoint, make_durable
from greencore.training.delta import FILE_NAME, write_delta
from greencore.training.evaluation import Evaluation, complete, evaluate, mean_loss
from greencore.training.formats import prompt_format
from greencore.training.ledger import EpochReport
from greencore.training.models import load_model, load_tokenizer
from greencore.training.precision import bf16_pays, device
from greencore.training.rows import Collator, Tokenised, split, tokenise
from greencore.training.selection_callback import SelectionCallback
from greencore.training.shapes import encodes

Method = Literal["greentrainer"] | Baseline


class Listener:
    """Told how a run comes along; every method may be left as it is."""

    def started(self, *, steps: int, steps_done: int, epochs_done: int, device: str, precision: str) -> None:
        """Training begins, or goes on after the steps and whole epochs that a checkpoint holds."""

    def epoch_begins(self, epoch: int) -> None:
        """An epoch (numbered from 0) begins with its first step; one that is gone on with is not told again."""

    def step(self, *, done: int, steps: int, loss: float) -> None:
        """An optimiser step is done; `loss` is that step's."""

    def epoch(self, report: EpochReport, *, train_loss: float, eval_loss: float | None) -> None:
        """An epoch is over and its checkpoint is on disk."""

    def stop(self) -> bool:
        """Asked after every step: whether to stop here, with a checkpoint, and leave the rest for later."""
        return False

    def ends_after(self, epoch: int) -> bool:
        """Asked after every epoch (numbered from 0) but the last: whether the run is over with it."""
        return False


@dataclass(frozen=True)
class Sample:
    """One prompt's completion before and after training."""

    prompt: str
    before: str
    after: str


@dataclass(frozen=True)
class Result:
    """What a run came to. `completed` is False where the listener stopped it; then only checkpoints are there."""

    completed: bool
    artifact: Path | None
    before: Evaluation | None
    after: Evaluation | None
    sample: Sample | None
    epochs: tuple[EpochReport, ...]


def fine_tune(
    *,
    model_folder: Path,
    model_name: str | None = None,
    rows: Sequence[Row],
    hyperparameters: Hyperparameters,
    rho: Schedule = 1.0,
    method: Method = "greentrainer",
    folder: Path,
    listener: Listener | None = None,
) -> Result:
    """Fine-tune the model in `model_folder` on `rows` by `method`, and save it under `folder`.

    With "greentrainer" `rho` is in (0, 1] or a function from the epoch's number (from 0) to such a value; 1 is full
    fine-tuning. The other methods are the paper's baselines, for which `rho` means nothing. After each epoch, and
    where the listener stops the run, `folder` holds a checkpoint, from which a later call goes on; at the end
    `folder/artifacts` holds the model and its tokenizer, a LoRA merged into it, or with "prefix" the adapter alone;
    where the hyperparameters ask for a delta, the changed tensors in the model's place. There the base is called
    `model_name`, or as its folder is.
    Raises `greencore.backprop.BudgetTooSmall` where ρ is below the floor, ValueError for a baseline that the model has
    no tensor for.
    """
    listener = listener or Listener()
    transformers.set_seed(hyperparameters.seed)
    transformers.utils.logging.disable_progress_bar()
    tokenizer = load_tokenizer(model_folder)
    model = load_model(model_folder)
    model.to(device())  # type: ignore[arg-type]
    config, use_cache = model.config, getattr(model.config, "use_cache", None)
    training, held_out = split(rows, eval_share=hyperparameters.eval_share, seed=hyperparameters.seed)
    train_set = tokenised(training, tokenizer, hyperparameters, encoder=encodes(model))
    examination = _Examination(tokenizer, held_out, hyperparameters, encoder=encodes(model))
    before = examination.kept(model, folder / "before.json")

    if method in ("lora", "prefix"):
        from greencore.training.adapters import with_adapter

        model = cast(PreTrainedModel, with_adapter(method, model))
    adaptive = GreenTrainerCallback(rho) if method == "greentrainer" else BaselineCallback(method)
    checkpoint = latest_checkpoint(folder)
    relay = _Relay(listener, adaptive, examination)
    trainer = CheckpointedTrainer(
        model=model,
        args=_arguments(folder, hyperparameters),
        train_dataset=train_set.examples,
        data_collator=Collator(tokenizer.pad_token_id),
        callbacks=[adaptive, relay],
    )
    trainer.remove_callback(PrinterCallback)  # the listener is told instead
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    reports = tuple(adaptive.epochs)
    if trainer.state.global_step < trainer.state.max_steps and not relay.ended_early:
        return Result(False, None, before.evaluation, None, None, reports)
    after = examination.take(model)
    sample = None
    if hyperparameters.sample_prompt is not None:
        sample = Sample(hyperparameters.sample_prompt, before.sample or "", after.sample or "")
    if method == "lora":
        from greencore.training.adapters import merged

        model = merged(cast(Any, model))
    if use_cache is not None:
        config.use_cache = use_cache  # which the Trainer has switched off, and generation wants
    base = model_folder if hyperparameters.result == "delta" and method != "prefix" else None
    name = model_name or model_folder.name
    artifact = _save(model, tokenizer, folder / "artifacts", base=base, base_name=name)
    return Result(True, artifact, before.evaluation, after.evaluation, sample, reports)


def tokenised(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, hyperparameters: Hyperparameters, *, encoder: bool
) -> Tokenised:
    """Rows as a run with these hyperparameters trains them. Raises `ModelError`."""
    return tokenise(
        rows,
        tokenizer,
        max_length=hyperparameters.max_length,
        prompt_format=prompt_format(hyperparameters.prompt_format, tokenizer),
        encoder=encoder,
    )


def _arguments(folder: Path, hyperparameters: Hyperparameters) -> TrainingArguments:
    where = device()
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=hyperparameters.epochs,
        per_device_train_batch_size=hyperparameters.batch_size,
        learning_rate=hyperparameters.learning_rate,
        weight_decay=hyperparameters.weight_decay,
        lr_scheduler_type="linear",
        seed=hyperparameters.seed,
        bf16=bf16_pays(where.type),
        use_cpu=where.type == "cpu",
        dataloader_pin_memory=where.type == "cuda",
        remove_unused_columns=False,
        save_strategy="epoch",
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
    )


@dataclass(frozen=True)
class _Marks:
    """What an examination found: the held-out rows' figures, and the sample prompt's completion."""

    evaluation: Evaluation | None
    sample: str | None


class _Examination:
    """Asks the same questions before, between and after."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        rows: Sequence[Row],
        hyperparameters: Hyperparameters,
        *,
        encoder: bool,
    ) -> None:
        self._tokenizer, self._rows, self._settings = tokenizer, rows, hyperparameters
        self._tokens = tokenised(rows, tokenizer, hyperparameters, encoder=encoder)

    def take(self, model: PreTrainedModel) -> _Marks:
        settings = self._settings
        evaluation, sample = None, None
        if self._rows:
            evaluation = evaluate(
                model,
                self._tokenizer,
                self._rows,
                self._tokens,
                batch_size=settings.batch_size,
                max_new_tokens=settings.max_new_tokens,
                prompt_format=prompt_format(settings.prompt_format, self._tokenizer),
                max_prompt_length=settings.max_length,
            )
        if settings.sample_prompt is not None:
            [sample] = complete(
                model, self._tokenizer, [settings.sample_prompt], max_new_tokens=settings.max_new_tokens
            )
        return _Marks(evaluation, sample)

    def kept(self, model: PreTrainedModel, file: Path) -> _Marks:
        """The marks before training; a run that goes on has them from its first start."""
        if file.is_file():
            kept = json.loads(file.read_text())
            return _Marks(Evaluation(**kept["evaluation"]) if kept["evaluation"] else None, kept["sample"])
        marks = self.take(model)
        file.parent.mkdir(parents=True, exist_ok=True)
        working = file.with_suffix(".part")
        working.write_text(json.dumps(asdict(marks)))
        working.rename(file)
        return marks

    def loss(self, model: PreTrainedModel) -> float | None:
        """The held-out loss alone, which costs no generation."""
        if not self._rows:
            return None
        return mean_loss(model, self._tokenizer, self._tokens, batch_size=self._settings.batch_size)


class _Relay(TrainerCallback):
    """Passes the Trainer's events on to the listener, and the listener's wish to stop back."""

    def __init__(self, listener: Listener, adaptive: SelectionCallback, examination: _Examination) -> None:
        self._listener, self._adaptive, self._examination = listener, adaptive, examination
        self._losses: list[float] = []
        self._epochs_told = 0
        self.ended_early = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        precision = "bf16 autocast" if args.bf16 else "fp32"
        self._listener.started(
            steps=state.max_steps,
            steps_done=state.global_step,
            epochs_done=_whole_epochs(state),
            device=args.device.type,
            precision=precision,
        )

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._losses.clear()
        if not _within_an_epoch(state):
            self._listener.epoch_begins(_whole_epochs(state))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if logs and "loss" in logs:
            self._losses.append(logs["loss"])
            self._listener.step(done=state.global_step, steps=state.max_steps, loss=logs["loss"])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step < state.max_steps and self._listener.stop():
            control.should_training_stop = True
            control.should_save = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if _within_an_epoch(state):
            control.should_save = False  # stopped within the epoch: its checkpoint is there already

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if _within_an_epoch(state) or len(self._adaptive.epochs) == self._epochs_told:
            return  # a stop, of which the listener knows
        self._epochs_told = len(self._adaptive.epochs)
        report = self._adaptive.epochs[-1]
        # A run that goes on after a stop in the epoch's last step has nothing left of it to average.
        train_loss = sum(self._losses) / len(self._losses) if self._losses else float("nan")
        eval_loss = self._examination.loss(kwargs["model"])
        self._listener.epoch(report, train_loss=train_loss, eval_loss=eval_loss)
        if state.global_step < state.max_steps and self._listener.ends_after(report.epoch):
            control.should_training_stop = self.ended_early = True


def _whole_epochs(state: TrainerState) -> int:
    return int((state.epoch or 0.0) + 1e-6)


def _within_an_epoch(state: TrainerState) -> bool:
    return abs((state.epoch or 0.0) - round(state.epoch or 0.0)) > 1e-6


def _save(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, destination: Path, *, base: Path | None, base_name: str
) -> Path:
    """Write the result aside, flush it, and rename it: it is whole or it is not there.

    With `base`, what differs from it; what is saved speaks of the base by its name, not by where it lay.
    """
    working = destination.with_name(".artifacts")
    shutil.rmtree(working, ignore_errors=True)
    working.mkdir(parents=True)
    if base is not None:
        write_delta(model, base, working / FILE_NAME, base_name=base_name)
    else:
        model.save_pretrained(working)
        if hasattr(model, "peft_config"):
            _name_base(working / "adapter_config.json", base_name)
            (working / "README.md").unlink(missing_ok=True)  # peft's, which knows nothing of the run
    tokenizer.save_pretrained(working)
    make_durable(working)
    if destination.exists():
        shutil.rmtree(destination)
    working.rename(destination)
    return destination


def _name_base(adapter_config: Path, base_name: str) -> None:
    """Done in the file: told another name, peft looks for it on the hub as it saves."""
    config = json.loads(adapter_config.read_text())
    adapter_config.write_text(json.dumps(config | {"base_model_name_or_path": base_name}, indent=2) + "\n")
