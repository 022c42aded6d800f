"""What a run trains on, as it is known before the run: the model without weights, and its tokenised rows' lengths."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from transformers import PreTrainedModel

from greencore.backprop.cost.by_length import Lengths
from greencore.dataset import Row
from greencore.settings.hyperparameters import Hyperparameters
from greencore.training.data.batch_layout import BatchLayout, choose_layout
from greencore.training.data.chat_template import TemplateClock
from greencore.training.data.end_of_text import refuse_unknown_tokens
from greencore.training.data.held_out_rows import divide_rows, report_validation_rows
from greencore.training.data.learned_positions import takes_learned_positions
from greencore.training.data.packing import PackedCollator, check_takes_positions
from greencore.training.data.positions import PositionLimits, get_position_limits
from greencore.training.data.prompt_formats import resolve_prompt_format
from greencore.training.data.tokenisation import tokenise_rows
from greencore.training.evaluation.evaluator import resolve_sample_format
from greencore.training.methods.batch_shapes import is_encoder_decoder, row_lengths
from greencore.training.models.loading import load_meta_model, load_model, load_tokenizer


@dataclass(frozen=True)
class TrainingInputs:
    """The model in `folder`, on the meta device as `meta_model`, and the rows that are trained on and held out.

    `lengths` are those of the training examples, without padding, with the learned positions of each where
    `learned_only`; `positions` are the model's limits of them. A conversation may be tokenised to several examples.
    `dropped_lines` are the line numbers of rows of the dataset that are neither trained on nor held out, since nothing
    of them is learned; `held_out_duplicates` counts rows that are not held out since an equal row is trained on.
    """

    folder: Path
    meta_model: PreTrainedModel
    lengths: Sequence[Lengths]
    positions: PositionLimits
    learned_only: bool
    training_rows: int
    held_out_rows: int
    shortened_prompts: int
    shortened_completions: int
    held_out_duplicates: int
    dropped_lines: tuple[int, ...]

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
    training, held_out, duplicates = divide_rows(
        rows, validation_rows, eval_share=hyperparameters.eval_share, seed=hyperparameters.seed
    )
    meta_model = load_meta_model(folder, attention=hyperparameters.attention)
    encoder = is_encoder_decoder(meta_model)
    positions = get_position_limits(meta_model, method=method)
    positions.check_max_length(hyperparameters.max_length)
    form = resolve_prompt_format(hyperparameters.prompt_format, tokenizer, TemplateClock())
    # The held-out rows, too: a row that cannot be tokenised is refused now.
    tokenise = partial(
        tokenise_rows,
        tokenizer=tokenizer,
        max_length=hyperparameters.max_length,
        prompt_format=form,
        encoder=encoder,
        train_on=hyperparameters.train_on,
    )
    tokens = tokenise(training)
    tokens.refuse_empty()
    with report_validation_rows(validation_rows):
        rest = tokenise(held_out)
        if validation_rows is not None:
            rest.refuse_empty()
    refuse_unknown_tokens(meta_model, tokenizer, (*tokens.examples, *rest.examples))
    if hyperparameters.sample_prompt is not None:
        resolve_sample_format(rows, form, tokenizer)
    learned_only = hyperparameters.logits == "learned" and takes_learned_positions(meta_model)
    return TrainingInputs(
        folder=folder,
        meta_model=meta_model,
        lengths=row_lengths(tokens.examples, encoder=encoder, learned_only=learned_only),
        positions=positions,
        learned_only=learned_only,
        training_rows=len(tokens.rows),
        held_out_rows=len(rest.rows),
        shortened_prompts=tokens.shortened_prompts,
        shortened_completions=tokens.shortened_completions,
        held_out_duplicates=duplicates,
        dropped_lines=tuple(sorted(tokens.dropped_lines + (rest.dropped_lines if validation_rows is None else ()))),
    )
