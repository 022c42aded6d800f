"""What a run trains on: its tokenised rows, and what is known of them and of the model before the run."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from greencore.backprop.cost.by_length import Lengths
from greencore.dataset import Row
from greencore.settings.hyperparameters import Hyperparameters
from greencore.training.batches.batch_layout import BatchLayout, choose_layout
from greencore.training.batches.batch_shapes import is_encoder_decoder, row_lengths
from greencore.training.batches.learned_positions import takes_learned_positions
from greencore.training.batches.packing import PackedCollator, check_takes_positions
from greencore.training.batches.positions import PositionLimits, get_position_limits
from greencore.training.data.chat_template import TemplateClock
from greencore.training.data.end_of_text import refuse_unknown_tokens
from greencore.training.data.held_out_rows import divide_rows, report_validation_rows
from greencore.training.data.prompt_formats import PromptFormat, resolve_prompt_format
from greencore.training.data.tokenisation import TokenisedRows, tokenise_rows
from greencore.training.evaluation.evaluator import resolve_sample_format
from greencore.training.models.loading import load_meta_model, load_model, load_tokenizer


@dataclass(frozen=True)
class RunRows:
    """The tokenised rows that a run trains on, and those that it holds out.

    `dropped_lines` are the line numbers of rows of the dataset that are in neither, since nothing of them is learned;
    `held_out_duplicates` counts rows that are not held out since an equal row is trained on.
    """

    training: TokenisedRows
    held_out: TokenisedRows
    held_out_duplicates: int
    dropped_lines: tuple[int, ...]


@dataclass(frozen=True)
class TrainingInputs:
    """The model in `folder`, on the meta device as `meta_model`, and the rows that are trained on and held out.

    `lengths` are those of the training examples, without padding, with the learned positions of each where
    `learned_only`; `positions` are the model's limits of them. A conversation may be tokenised to several examples.
    """

    folder: Path
    meta_model: PreTrainedModel
    lengths: Sequence[Lengths]
    positions: PositionLimits
    learned_only: bool
    rows: RunRows

    def choose_layout(self, hyperparameters: Hyperparameters, method: str) -> BatchLayout:
        """Return the layout of the run's batches. Raises `SettingUnsupported`."""
        return choose_layout(
            self.meta_model,
            self.lengths,
            hyperparameters,
            method=method,
            learned_only=self.learned_only,
            test_packing=lambda: self._test_packing(hyperparameters),
        )

    def _test_packing(self, hyperparameters: Hyperparameters) -> None:
        """Raise `SettingUnsupported` where the model does not keep packed rows apart.

        Only where packing is asked for are its weights loaded, on which that is tested. Under `auto` its arguments
        decide, and the run, which tests it, pads where they misled.
        """
        if hyperparameters.packing is True:
            PackedCollator(load_model(self.folder), 0)
        else:
            check_takes_positions(self.meta_model)


def prepare_inputs(
    folder: Path,
    rows: Sequence[Row],
    validation_rows: Sequence[Row] | None,
    hyperparameters: Hyperparameters,
    *,
    method: str,
) -> TrainingInputs:
    """Tokenise rows for the model in `folder`; it is evaluated on `validation_rows`, or on a share of the rows.

    Raises the errors of `fine_tune` that do not need weights.
    """
    tokenizer = load_tokenizer(folder)
    meta_model = load_meta_model(folder, attention=hyperparameters.attention)
    positions = get_position_limits(meta_model, method=method)
    positions.check_max_length(hyperparameters.max_length)
    form = resolve_prompt_format(hyperparameters.prompt_format, tokenizer, TemplateClock())
    tokens = tokenise_run_rows(meta_model, tokenizer, rows, validation_rows, hyperparameters, form)
    if hyperparameters.sample_prompt is not None:
        resolve_sample_format(rows, form, tokenizer)
    learned_only = hyperparameters.logits == "learned" and takes_learned_positions(meta_model)
    encoder = is_encoder_decoder(meta_model)
    return TrainingInputs(
        folder=folder,
        meta_model=meta_model,
        lengths=row_lengths(tokens.training.examples, encoder=encoder, learned_only=learned_only),
        positions=positions,
        learned_only=learned_only,
        rows=tokens,
    )


def tokenise_run_rows(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    validation_rows: Sequence[Row] | None,
    hyperparameters: Hyperparameters,
    prompt_format: PromptFormat,
) -> RunRows:
    """Divide rows into those trained on and those held out, and tokenise both; the model may be on the meta device.

    Raises `InvalidRow` for a row that cannot be tokenised, `ValidationRowsUnusable`, and `ModelError` for tokens that
    the model does not have.
    """
    training, held_out, duplicates = divide_rows(
        rows, validation_rows, eval_share=hyperparameters.eval_share, seed=hyperparameters.seed
    )
    tokenise = partial(
        tokenise_rows,
        tokenizer=tokenizer,
        max_length=hyperparameters.max_length,
        prompt_format=prompt_format,
        encoder=is_encoder_decoder(model),
        train_on=hyperparameters.train_on,
    )
    tokens = tokenise(training)
    tokens.refuse_empty()
    with report_validation_rows(validation_rows):
        rest = tokenise(held_out)
        if validation_rows is not None:
            rest.refuse_empty()
    refuse_unknown_tokens(model, tokenizer, (*tokens.examples, *rest.examples))
    dropped = tokens.dropped_lines + (rest.dropped_lines if validation_rows is None else ())
    return RunRows(tokens, rest, duplicates, tuple(sorted(dropped)))
