"""The same questions before, between and after: what a run has changed."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from greencore.dataset import MessagesRow, Row, TextRow
from greencore.hyperparameters import Hyperparameters
from greencore.training.evaluation import Evaluation, complete, evaluate, mean_loss
from greencore.training.formats import PLAIN, PromptFormat, prompt_format
from greencore.training.kept import keep
from greencore.training.models import ModelError
from greencore.training.precision import bf16_autocast
from greencore.training.rows import Tokenised


@dataclass(frozen=True)
class Marks:
    """What an examination found: the held-out rows' figures, and the sample prompt's completion."""

    evaluation: Evaluation | None
    sample: str | None
    bf16: bool


class Examination:
    """Asks a model about the held-out rows, which `tokens` are in the model's own, and for the sample's completion.

    The rows' prompts are put in `form`, the sample prompt in `sample_form` (see `sample_format`).
    Always in one precision, bf16 autocast or fp32: `bf16` says which, until `kept` has found that of the run's start.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        rows: Sequence[Row],
        tokens: Tokenised,
        hyperparameters: Hyperparameters,
        *,
        form: PromptFormat,
        sample_form: PromptFormat,
        bf16: bool,
    ) -> None:
        self.bf16 = bf16
        self._tokenizer, self._rows, self._tokens, self._settings = tokenizer, rows, tokens, hyperparameters
        self._form, self._sample_form = form, sample_form

    def take(self, model: PreTrainedModel) -> Marks:
        """Ask everything."""
        with bf16_autocast(model.device, enabled=self.bf16):
            return self._take(model)

    def _take(self, model: PreTrainedModel) -> Marks:
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
                prompt_format=self._form,
                max_prompt_length=settings.max_length,
            )
        if settings.sample_prompt is not None:
            [sample] = complete(
                model,
                self._tokenizer,
                [settings.sample_prompt],
                max_new_tokens=settings.max_new_tokens,
                prompt_format=self._sample_form,
            )
        return Marks(evaluation, sample, self.bf16)

    def kept(self, model: PreTrainedModel, file: Path) -> Marks:
        """The marks before training; a run that goes on has them, and their precision, from its first start.

        A file of an earlier version does not say in which precision it was measured: then the marks are taken again,
        as they are where the file is damaged.
        Raises `ModelError` for a model without a finite loss on the held-out rows.
        """

        def take() -> dict[str, Any]:
            marks = self.take(model)
            if marks.evaluation is not None and not math.isfinite(marks.evaluation.loss):
                raise ModelError(f"its loss on the held-out rows is {marks.evaluation.loss} before training")
            return asdict(marks)

        marks = keep(file, take, _read_marks)
        self.bf16 = marks.bf16
        return marks

    def loss(self, model: PreTrainedModel) -> float | None:
        """The held-out loss alone, which costs no generation."""
        if not self._rows:
            return None
        with bf16_autocast(model.device, enabled=self.bf16):
            return mean_loss(model, self._tokenizer, self._tokens, batch_size=self._settings.batch_size)


def _read_marks(kept: Any) -> Marks:
    """Raises KeyError or TypeError for what is no marks."""
    evaluation = None if kept["evaluation"] is None else Evaluation(**kept["evaluation"])
    return Marks(evaluation, kept["sample"], bool(kept["bf16"]))


def sample_format(rows: Sequence[Row], form: PromptFormat, tokenizer: PreTrainedTokenizerBase) -> PromptFormat:
    """The format in which a sample prompt is put as most of the rows are.

    That is `form` for prompts, a user's turn for conversations, and nothing for plain text. Raises `ModelError` for
    a chat template that does not take one.
    """
    [(kind, _)] = Counter(map(type, rows)).most_common(1)
    if kind is MessagesRow:
        return prompt_format("chat", tokenizer, form.clock)
    return PLAIN if kind is TextRow else form
