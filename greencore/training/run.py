"""One fine-tuning run, from rows to a folder with the result: set up, evaluate, train, evaluate, save."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import transformers
from transformers import (
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerState,
    TrainingArguments,
)

from greencore.backprop import NotFinite
from greencore.dataset import Row
from greencore.hyperparameters import Hyperparameters
from greencore.training.baselines import Baseline
from greencore.training.callback import BaselineCallback, GreenTrainerCallback, Schedule
from greencore.training.checkpoint import CheckpointedTrainer
from greencore.training.checkpoint_folder import CheckpointFolder, all_or_nothing, make_durable
from greencore.training.delta import FILE_NAME, write_delta
from greencore.training.end_of_text import padding_id, refuse_unknown_tokens, stop_at_every_end
from greencore.training.evaluation import Evaluation
from greencore.training.examination import Examination, sample_format
from greencore.training.finite import check_held_out_loss, check_model
from greencore.training.formats import PromptFormat, prompt_format
from greencore.training.languages import begin_in_target_language
from greencore.training.ledger import EpochReport
from greencore.training.listener import Listener, Relay, Stopped, stoppable, whole_epochs, within_an_epoch
from greencore.training.models import load_model, load_tokenizer
from greencore.training.positions import positions_of
from greencore.training.precision import device, supports_bf16
from greencore.training.rows import Collator, Tokenised, end_of_turn, held_out_duplicates, split, tokenise
from greencore.training.shapes import encodes
from greencore.training.template_clock import FILE_NAME as CLOCK_FILE
from greencore.training.template_clock import TemplateClock
from greencore.training.weights import first_not_finite

Method = Literal["greentrainer"] | Baseline


@dataclass(frozen=True)
class Sample:
    """One prompt's completion before and after training."""

    prompt: str
    before: str
    after: str


@dataclass(frozen=True)
class Result:
    """What a run came to. `completed` is False where the listener stopped it; then only checkpoints are there.

    `held_out_duplicates` is how many rows were kept out of the evaluation because an equal row was trained on.
    """

    completed: bool
    artifact: Path | None
    before: Evaluation | None
    after: Evaluation | None
    sample: Sample | None
    epochs: tuple[EpochReport, ...]
    held_out_duplicates: int = 0


def fine_tune(
    *,
    model_folder: Path,
    model_name: str | None = None,
    rows: Sequence[Row],
    hyperparameters: Hyperparameters,
    rho: Schedule = 1.0,
    method: Method = "greentrainer",
    folder: Path,
    result_folder: Path | None = None,
    checkpoints: CheckpointFolder | None = None,
    listener: Listener | None = None,
) -> Result:
    """Fine-tune the model in `model_folder` on `rows` by `method`, and save it in `result_folder`.

    With "greentrainer" `rho` is in (0, 1] or a function from the epoch's number (from 0) to such a value; 1 is full
    fine-tuning. The other methods are the paper's baselines, for which `rho` means nothing. After each epoch, and
    where the listener stops the run, `folder` (or `checkpoints`) holds a checkpoint, from which a later call goes on;
    at the end `result_folder`, by default `folder/artifacts`, holds the model and its tokenizer, a LoRA merged into
    it, or with "prefix" the adapter alone; where the hyperparameters ask for a delta, the changed tensors in the
    model's place. There the base is called `model_name`, or as its folder is.
    Every evaluation runs in the precision of the run's first start, as training does.
    Raises `greencore.backprop.BudgetTooSmall` where ρ is below the floor, `TooLong` where the model has no positions
    for rows of `max_length`, ValueError for a baseline that the model has no tensor for,
    `greencore.dataset.InvalidRow` for a row that cannot be tokenised, `ModelError` for a model that is not finite
    before training, `greencore.backprop.NotFinite` with the first step whose loss or gradient norm is not,
    CheckpointUnusable for a checkpoint of another model, DiskFull where there is no room for the result.
    """
    listener, checkpoints = listener or Listener(), checkpoints or CheckpointFolder(folder)
    transformers.set_seed(hyperparameters.seed)
    transformers.utils.logging.disable_progress_bar()
    tokenizer = load_tokenizer(model_folder)
    model = load_model(model_folder)
    check_model(model)
    model.to(device())  # type: ignore[arg-type]
    config, use_cache = model.config, getattr(model.config, "use_cache", None)
    positions = positions_of(model, method=method)
    positions.check(hyperparameters.max_length)
    training, held_out = split(rows, eval_share=hyperparameters.eval_share, seed=hyperparameters.seed)
    duplicates = held_out_duplicates(rows, eval_share=hyperparameters.eval_share, seed=hyperparameters.seed)
    form = prompt_format(hyperparameters.prompt_format, tokenizer, TemplateClock(folder / CLOCK_FILE))
    train_set = tokenised(training, tokenizer, hyperparameters, form, encoder=encodes(model))
    held_out_tokens = tokenised(held_out, tokenizer, hyperparameters, form, encoder=encodes(model))
    refuse_unknown_tokens(model, tokenizer, (*train_set.examples, *held_out_tokens.examples))
    stop_at_every_end(model, tokenizer, end_of_turn(training, tokenizer, form))
    begin_in_target_language(model, tokenizer)
    sample_form = sample_format(rows, form, tokenizer)
    examination = Examination(
        tokenizer,
        held_out,
        held_out_tokens,
        hyperparameters,
        form=form,
        sample_form=sample_form,
        bf16=supports_bf16(device()),
    )
    try:
        with stoppable(model, listener):
            before = examination.kept(model, folder / "before.json")
    except Stopped:
        return Result(False, None, None, None, None, ())

    if method in ("lora", "prefix"):
        from greencore.training.adapters import with_adapter

        model = cast(PreTrainedModel, with_adapter(method, model))
    adaptive = GreenTrainerCallback(rho) if method == "greentrainer" else BaselineCallback(method)
    checkpoint = checkpoints.newest()
    relay = Relay(listener, adaptive, examination)
    trainer = CheckpointedTrainer(
        checkpoints=checkpoints,
        model=model,
        args=_arguments(folder, hyperparameters, bf16=before.bf16),
        train_dataset=train_set.examples,
        data_collator=Collator(padding_id(model, tokenizer), positions),
        callbacks=[adaptive, relay],
    )
    trainer.remove_callback(PrinterCallback)  # the listener is told instead
    if checkpoint is not None and _ends_with(checkpoint, listener):
        trainer.restore_weights(checkpoint)
    else:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if trainer.state.global_step < trainer.state.max_steps and not relay.ended_early:
            return Result(False, None, before.evaluation, None, None, tuple(adaptive.epochs))
    reports = tuple(adaptive.epochs)
    _set_use_cache(config, use_cache)  # which the Trainer has switched off, and generation wants
    try:
        with stoppable(model, listener):
            after = examination.take(model)
    except Stopped:
        return Result(False, None, before.evaluation, None, None, reports)
    if after.evaluation is not None:
        check_held_out_loss(after.evaluation.loss, "after training")
    sample = None
    if hyperparameters.sample_prompt is not None:
        sample = Sample(hyperparameters.sample_prompt, before.sample or "", after.sample or "")
    if method == "lora":
        from greencore.training.adapters import merged

        model = merged(cast(Any, model))
    if (name := first_not_finite(model)) is not None:
        raise NotFinite(f"after training {name} is not finite: training has diverged")
    base = model_folder if hyperparameters.result == "delta" and method != "prefix" else None
    name = model_name or model_folder.name
    artifact = _save(model, tokenizer, result_folder or folder / "artifacts", base=base, base_name=name)
    return Result(True, artifact, before.evaluation, after.evaluation, sample, reports, duplicates)


def tokenised(
    rows: Sequence[Row],
    tokenizer: PreTrainedTokenizerBase,
    hyperparameters: Hyperparameters,
    form: PromptFormat,
    *,
    encoder: bool,
) -> Tokenised:
    """Rows as a run with these hyperparameters trains them in its prompt format. Raises `ModelError`, `InvalidRow`."""
    return tokenise(rows, tokenizer, max_length=hyperparameters.max_length, prompt_format=form, encoder=encoder)


def _arguments(folder: Path, hyperparameters: Hyperparameters, *, bf16: bool) -> TrainingArguments:
    where = device()
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=hyperparameters.epochs,
        per_device_train_batch_size=hyperparameters.batch_size,
        learning_rate=hyperparameters.learning_rate,
        weight_decay=hyperparameters.weight_decay,
        lr_scheduler_type="linear",
        seed=hyperparameters.seed,
        bf16=bf16,
        use_cpu=where.type == "cpu",
        dataloader_pin_memory=where.type == "cuda",
        remove_unused_columns=False,
        save_strategy="epoch",
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
    )


def _set_use_cache(config: PreTrainedConfig, use_cache: bool | None) -> None:
    if use_cache is None:  # a configuration made of several has none of its own
        vars(config).pop("use_cache", None)
    else:
        config.use_cache = use_cache


def _ends_with(checkpoint: Path, listener: Listener) -> bool:
    """Whether a run is over with its checkpoint, and only what follows on training was broken off."""
    state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    if state.global_step >= state.max_steps:
        return True
    return not within_an_epoch(state) and listener.ends_after(whole_epochs(state) - 1)


def _save(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, destination: Path, *, base: Path | None, base_name: str
) -> Path:
    """Write the result aside, flush it, and rename it: it is whole or it is not there.

    With `base`, what differs from it; what is saved speaks of the base by its name, not by where it lay.
    """
    with all_or_nothing(destination.with_name(f".{destination.name}")) as working:
        if base is not None:
            write_delta(model, base, working / FILE_NAME, base_name=base_name)
        else:
            model.save_pretrained(working)
            if hasattr(model, "peft_config"):
                _name_base(working / "adapter_config.json", base_name)
                cast(Any, model).get_base_model().generation_config.save_pretrained(working)
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
