"""Fine-tuning run from rows to a result folder: set up, evaluate, train, evaluate, save."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import torch
import transformers
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerState,
)

from greencore.dataset import Row
from greencore.settings.checks import check_processes
from greencore.settings.hyperparameters import Hyperparameters
from greencore.training.batches.batch_layout import OrderedSampler, choose_layout
from greencore.training.batches.batch_shapes import is_encoder_decoder, row_lengths
from greencore.training.batches.learned_positions import LearnedPositionsCollator, choose_logit_positions
from greencore.training.batches.micro_batches import Collate, MicroBatchCollator
from greencore.training.batches.packing import PackedCollator
from greencore.training.batches.positions import get_position_limits
from greencore.training.checkpoints.folder import CheckpointFolder
from greencore.training.checkpoints.trainer import CheckpointedTrainer
from greencore.training.data.chat_template import CLOCK_FILE_NAME, TemplateClock
from greencore.training.data.end_of_text import choose_padding_token_id, set_stop_tokens
from greencore.training.data.prompt_formats import resolve_prompt_format
from greencore.training.data.target_language import configure_target_language
from greencore.training.data.tokenisation import (
    Collator,
    TokenisedRows,
    find_turn_end_token_of_rows,
)
from greencore.training.evaluation.callback import EvaluationCallback
from greencore.training.evaluation.evaluate import Evaluation
from greencore.training.evaluation.evaluator import Evaluator, resolve_sample_format
from greencore.training.evaluation.ledger import EvaluationLedger
from greencore.training.finite_checks import check_held_out_loss, check_model
from greencore.training.inputs import tokenise_run_rows
from greencore.training.listener import (
    ListenerCallback,
    TrainingListener,
    TrainingStopped,
    announce_evaluation,
    count_finished_epochs,
    is_within_epoch,
    share_decisions,
)
from greencore.training.methods.baselines import Baseline, add_adapter
from greencore.training.methods.callback import RhoSchedule, build_callback
from greencore.training.methods.epoch_ledger import EpochReport
from greencore.training.methods.modes import set_use_cache
from greencore.training.methods.parallelism import initialise_sharding
from greencore.training.methods.selection_callback import SelectionCallback
from greencore.training.micro_batch_choice import load_or_measure_micro_batch
from greencore.training.models.loading import enable_gradient_checkpointing, load_model, load_tokenizer
from greencore.training.models.precision import PRECISION_FILE_NAME, choose_device, recall_precision
from greencore.training.models.result import save_result
from greencore.training.models.whole_groups import allow_whole_groups
from greencore.training.processes import agree, count_processes, join_processes
from greencore.training.recipe import build_training_arguments
from greencore.training.run_memory import RunMemory, load_or_choose_recomputation

Method = Literal["greentrainer"] | Baseline


@dataclass(frozen=True)
class SampleCompletion:
    """Completion of the sample prompt before and after training."""

    prompt: str
    before: str
    after: str


@dataclass(frozen=True)
class TrainingResult:
    """Result of a run; `completed` is False where the listener stopped it, which leaves only checkpoints.

    `step` is the optimiser step whose weights the result has, `stopped_early` the reason of early stopping.
    `held_out_duplicates` counts rows excluded from evaluation because an equal row was trained on. `dropped_lines` are
    the line numbers of rows that are not used, since no token of them is learned.
    """

    completed: bool
    artifact: Path | None = None
    before: Evaluation | None = None
    after: Evaluation | None = None
    sample: SampleCompletion | None = None
    epochs: tuple[EpochReport, ...] = ()
    held_out_duplicates: int = 0
    dropped_lines: tuple[int, ...] = ()
    step: int | None = None
    stopped_early: str | None = None


def fine_tune(
    *,
    model_folder: Path,
    model_name: str | None = None,
    rows: Sequence[Row],
    validation_rows: Sequence[Row] | None = None,
    hyperparameters: Hyperparameters,
    rho: RhoSchedule = 1.0,
    highest_rho: float | None = None,
    method: Method = "greentrainer",
    folder: Path,
    result_folder: Path | None = None,
    checkpoints: CheckpointFolder | None = None,
    listener: TrainingListener | None = None,
) -> TrainingResult:
    """Fine-tune the model in `model_folder` on `rows` by `method`, and save the result in `result_folder`.

    For "greentrainer" `rho` is in (0, 1], or a function of the epoch (from 0) to such a value; 1 is full fine-tuning.
    By `highest_rho`, the function's largest value (1 where it is not given), the memory of a step is predicted. The
    other methods are the paper's baselines, which ignore `rho`. `validation_rows`, less those that equal one of
    `rows`, are held out in place of a share of `rows`. After each epoch, and where the listener stops the run, `folder`
    (or `checkpoints`) holds a checkpoint, from which a later call resumes. At the end `result_folder`, by default
    `folder/artifacts`, holds the tokenizer and the model (a LoRA merged into it), the adapter for "prefix" and where
    `lora.result` asks for it, or the changed tensors where the hyperparameters ask for a delta; it names the base
    `model_name`, by default as its folder is named. Training and all evaluations run in the precision of the run's
    first start.

    Raises `BudgetTooSmall` where ρ is below the minimum, `MaxLengthExceeded` where `max_length` exceeds the model's
    positions, `SettingUnsupported` for a setting that the model, method or device does not support, ValueError for a
    baseline without trainable tensors in this model, `InvalidRow` for a row that cannot be tokenised,
    `ValidationRowsUnusable` for validation rows of another form, `ModelError` for a model with non-finite weights,
    `NotFinite` with the first step whose loss or gradient norm is not finite, `CheckpointUnusable` for a checkpoint of
    another model, `DiskFull` where the result cannot be written.
    """
    join_processes()
    check_processes(hyperparameters, count_processes())
    listener, checkpoints = share_decisions(listener or TrainingListener()), checkpoints or CheckpointFolder(folder)
    constant_rho = rho if isinstance(rho, int | float) else 1.0
    setup = _set_up(
        model_folder,
        rows,
        validation_rows,
        hyperparameters,
        method=method,
        highest_rho=constant_rho if highest_rho is None else highest_rho,
        folder=folder,
        resumes=agree(checkpoints.find_newest()) is not None,
    )
    try:
        with announce_evaluation(setup.model, listener):
            before = setup.evaluator.evaluate_once(setup.model, folder / "before.json")
    except TrainingStopped:
        return TrainingResult(completed=False)

    with allow_whole_groups(folder) as keep_whole:
        adaptive = build_callback(method, rho, hyperparameters.adaptive, keep_whole=keep_whole)
        model, epochs, end = _train(
            setup, hyperparameters, adaptive, method, folder=folder, checkpoints=checkpoints, listener=listener
        )
    stopped = TrainingResult(completed=False, before=before.evaluation, epochs=epochs)
    if end is None:
        return stopped
    try:
        with announce_evaluation(model, listener):
            after = setup.evaluator.evaluate(model)
    except TrainingStopped:
        return stopped
    if after.evaluation is not None:
        check_held_out_loss(after.evaluation.loss, "after training")
    prompt = hyperparameters.sample_prompt
    sample = None if prompt is None else SampleCompletion(prompt, before.sample or "", after.sample or "")
    artifact = save_result(
        model,
        setup.tokenizer,
        result_folder or folder / "artifacts",
        method=method,
        hyperparameters=hyperparameters,
        base=model_folder,
        base_name=model_name or model_folder.name,
    )
    return TrainingResult(
        True,
        artifact,
        before.evaluation,
        after.evaluation,
        sample,
        epochs,
        setup.held_out_duplicates,
        setup.dropped_lines,
        end.step,
        end.stopped_early,
    )


@dataclass(frozen=True)
class _Setup:
    """Model, tokenised training rows and evaluator of a run."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    train_set: TokenisedRows
    collator: Collate
    sampler: OrderedSampler | None
    evaluator: Evaluator
    held_out_duplicates: int
    dropped_lines: tuple[int, ...]


def _set_up(
    model_folder: Path,
    rows: Sequence[Row],
    validation_rows: Sequence[Row] | None,
    hyperparameters: Hyperparameters,
    *,
    method: Method,
    highest_rho: float,
    folder: Path,
    resumes: bool,
) -> _Setup:
    """Seed the run, load and check the model, and split and tokenise the rows."""
    transformers.set_seed(hyperparameters.seed)
    transformers.utils.logging.disable_progress_bar()
    tokenizer = load_tokenizer(model_folder)
    precision = recall_precision(hyperparameters.precision, folder / PRECISION_FILE_NAME)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    model = load_model(model_folder, dtype, attention=hyperparameters.attention, shards=count_processes())
    check_model(model)
    initialise_sharding(model)
    if count_processes() == 1:
        model.to(choose_device())  # type: ignore[arg-type]
    learned_only = choose_logit_positions(hyperparameters.logits, model, folder, resumes=resumes) == "learned"
    positions = get_position_limits(model, method=method)
    positions.check_max_length(hyperparameters.max_length)
    clock = TemplateClock(folder / CLOCK_FILE_NAME)
    prompt_format = resolve_prompt_format(hyperparameters.prompt_format, tokenizer, clock)
    tokens = tokenise_run_rows(model, tokenizer, rows, validation_rows, hyperparameters, prompt_format)
    train_set, held_out_set = tokens.training, tokens.held_out
    set_stop_tokens(model, tokenizer, find_turn_end_token_of_rows(train_set.rows, tokenizer, prompt_format))
    configure_target_language(model, tokenizer)
    evaluator = Evaluator(
        tokenizer=tokenizer,
        rows=held_out_set.rows,
        tokens=held_out_set,
        settings=hyperparameters,
        prompt_format=prompt_format,
        sample_prompt_format=resolve_sample_format(rows, prompt_format, tokenizer),
        bf16=precision == "mixed",
        learned_only=learned_only,
    )
    pad = choose_padding_token_id(model, tokenizer)
    lengths = row_lengths(train_set.examples, encoder=is_encoder_decoder(model), learned_only=learned_only)
    layout = choose_layout(
        model,
        lengths,
        hyperparameters,
        method=method,
        learned_only=learned_only,
        test_packing=lambda: PackedCollator(model, pad),
    )
    recomputes = hyperparameters.gradient_checkpointing
    if recomputes == "auto":
        memory = RunMemory(model_folder, method, highest_rho, lengths, positions, layout, count_processes())
        recomputes = load_or_choose_recomputation(folder, memory, model, hyperparameters, precision)
    if recomputes:
        enable_gradient_checkpointing(model)
    collator: Collate = PackedCollator(model, pad) if layout.packing else Collator(pad, positions)
    if learned_only:
        collator = LearnedPositionsCollator(collator)
    sampler = OrderedSampler(layout, lengths) if layout.group_by_length else None
    return _Setup(
        model,
        tokenizer,
        train_set,
        collator,
        sampler,
        evaluator,
        tokens.held_out_duplicates,
        tokens.dropped_lines,
    )


@dataclass(frozen=True)
class _End:
    """Step of the weights that training ended with, and the reason where it ended early."""

    step: int
    stopped_early: str | None


def _train(
    setup: _Setup,
    hyperparameters: Hyperparameters,
    adaptive: SelectionCallback,
    method: Method,
    *,
    folder: Path,
    checkpoints: CheckpointFolder,
    listener: TrainingListener,
) -> tuple[PreTrainedModel, tuple[EpochReport, ...], _End | None]:
    """Train by a method from the newest checkpoint on, with an adapter around the model for "lora" and "prefix".

    Returns the trained model, the reports of the epochs trained, and the end of training; None where it was stopped.
    """
    model, config = setup.model, setup.model.config
    use_cache = getattr(config, "use_cache", None)
    model = add_adapter(method, model, hyperparameters.lora)
    evaluations = EvaluationCallback(listener, setup.evaluator, hyperparameters, use_cache=use_cache)
    progress = ListenerCallback(listener, adaptive, evaluations.ledger)
    collator = MicroBatchCollator(
        setup.collator, hyperparameters.rows_at_once, on_halved=listener.on_micro_batch_halved
    )
    trainer = CheckpointedTrainer(
        checkpoints=checkpoints,
        collator=collator,
        hyperparameters=hyperparameters,
        model=model,
        args=build_training_arguments(
            folder,
            hyperparameters,
            bf16=setup.evaluator.bf16,
            save_strategy="epoch",
            save_only_model=count_processes() > 1,  # transformers has no resumption of sharded models; ours is its own
            logging_steps=1,
        ),
        train_dataset=setup.train_set.examples,
        sampler=setup.sampler,
        callbacks=[adaptive, evaluations, progress],
    )
    trainer.remove_callback(PrinterCallback)  # the listener receives progress instead
    checkpoint, end = agree(checkpoints.find_newest()), None
    try:
        state = None if checkpoint is None else _end_at_checkpoint(trainer, evaluations, checkpoint, listener)
        if state is None:
            if hyperparameters.micro_batch_size == "auto":
                choice = load_or_measure_micro_batch(
                    folder, model, setup.train_set.examples, hyperparameters, trainer.compute_micro_batch_loss
                )
                collator.size = choice.rows
                listener.on_micro_batch_chosen(rows=choice.rows, reason=choice.reason)
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
            state = trainer.state
            if state.global_step < state.max_steps and not progress.ended_early:
                raise TrainingStopped
        state.max_steps = state.global_step  # where the listener ended the run, this was its last step as well
        if evaluations.is_due(state):
            evaluations.evaluate(model, state)
        kept = _restore_kept_step(trainer, evaluations.ledger, checkpoints, listener, last_step=state.global_step)
        end = _End(kept, evaluations.ledger.stopped_early)
    except TrainingStopped:
        pass  # the newest checkpoint is what a later call resumes from
    # the Trainer switches the cache off, and generation needs it
    set_use_cache(config, use_cache)
    return model, tuple(adaptive.epochs), end


def _end_at_checkpoint(
    trainer: CheckpointedTrainer, evaluations: EvaluationCallback, checkpoint: Path, listener: TrainingListener
) -> TrainerState | None:
    """Return the state of a checkpoint at which the run ends, with its weights restored; None where training goes on.

    An evaluation of its step that was stopped is repeated first, and may end the run. Raises `TrainingStopped`.
    """
    state: TrainerState = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    evaluations.restore(state)
    if evaluations.is_due(state):
        trainer.restore_weights(checkpoint)
        evaluations.evaluate(cast(PreTrainedModel, trainer.model), state)
        if evaluations.ledger.stopped_early is not None and is_within_epoch(state):
            trainer.end_epoch(checkpoint, state)
    if evaluations.ledger.stopped_early is None and not _is_complete(state, listener):
        return None
    trainer.restore_weights(checkpoint)
    return state


def _restore_kept_step(
    trainer: CheckpointedTrainer,
    ledger: EvaluationLedger,
    checkpoints: CheckpointFolder,
    listener: TrainingListener,
    *,
    last_step: int,
) -> int:
    """Restore the weights of the step that the run keeps, and return it: the best evaluation's, or the last."""
    kept_step = ledger.kept_step
    if kept_step is None or kept_step == last_step:
        return last_step
    if (best := agree(checkpoints.find_step(kept_step))) is None:
        listener.on_best_missing(step=kept_step)
        return last_step
    trainer.restore_weights(best)
    return kept_step


def _is_complete(state: TrainerState, listener: TrainingListener) -> bool:
    """Return whether a checkpoint is the last of its run, so that only the final evaluation and result are missing."""
    if state.global_step >= state.max_steps:
        return True
    return not is_within_epoch(state) and listener.should_end_after(count_finished_epochs(state) - 1)
