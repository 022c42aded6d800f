"""Evaluator of a run: the same held-out rows and sample prompt before, during and after training."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from greencore.dataset import MessagesRow, Row, TextRow
from greencore.disk import load_or_create
from greencore.hyperparameters import Hyperparameters
from greencore.training.data.prompt_formats import PLAIN, PromptFormat, resolve_prompt_format
from greencore.training.data.tokenisation import TokenisedRows
from greencore.training.evaluation.evaluate import Evaluation, compute_mean_loss, evaluate, generate_completions
from greencore.training.models.loading import ModelError
from greencore.training.models.precision import bf16_autocast

ROWS_UNTIL_MEASURED = 8  # that fit wherever a training step of a row or two does: no gradient keeps activations


@dataclass(frozen=True)
class EvaluationResult:
    """Evaluation of the held-out rows, completion of the sample prompt, and the precision of both."""

    evaluation: Evaluation | None
    sample: str | None
    bf16: bool


@dataclass(kw_only=True)
class Evaluator:
    """Evaluates a model on the held-out rows (tokenised as `tokens`) and completes the sample prompt.

    The rows' prompts are put in `prompt_format`, the sample prompt in `sample_prompt_format` (see
    `resolve_sample_format`). All evaluations run in one precision, bf16 autocast or fp32: `bf16` at first, that of the
    run's first start after `evaluate_once`.
    """

    tokenizer: PreTrainedTokenizerBase
    rows: Sequence[Row]
    tokens: TokenisedRows
    settings: Hyperparameters
    prompt_format: PromptFormat
    sample_prompt_format: PromptFormat
    bf16: bool

    def evaluate(self, model: PreTrainedModel) -> EvaluationResult:
        """Evaluate the held-out rows and complete the sample prompt."""
        settings = self.settings
        evaluation, sample = None, None
        with bf16_autocast(model.device, enabled=self.bf16):
            if self.rows:
                evaluation = evaluate(
                    model,
                    self.tokenizer,
                    self.rows,
                    self.tokens,
                    batch_size=self._batch_size,
                    max_new_tokens=settings.max_new_tokens,
                    prompt_format=self.prompt_format,
                    max_prompt_length=settings.max_length,
                )
            if settings.sample_prompt is not None:
                [sample] = generate_completions(
                    model,
                    self.tokenizer,
                    [settings.sample_prompt],
                    max_new_tokens=settings.max_new_tokens,
                    prompt_format=self.sample_prompt_format,
                )
        return EvaluationResult(evaluation, sample, self.bf16)

    def evaluate_once(self, model: PreTrainedModel, file: Path) -> EvaluationResult:
        """Return the evaluation before training, from `file` where a run resumes, and adopt its precision.

        It is repeated where the file is damaged, or of an earlier version without the precision. Raises `ModelError`
        where the loss on the held-out rows is not finite.
        """

        def measure() -> dict[str, Any]:
            result = self.evaluate(model)
            if result.evaluation is not None and not math.isfinite(result.evaluation.loss):
                raise ModelError(f"its loss on the held-out rows is {result.evaluation.loss} before training")
            return asdict(result)

        result = load_or_create(file, measure, _parse_result)
        self.bf16 = result.bf16
        return result

    @property
    def _batch_size(self) -> int:
        """Rows of a batch: those that training computes at once, or a few where that is still to be measured."""
        rows = self.settings.micro_batch_size
        return min(self.settings.batch_size, ROWS_UNTIL_MEASURED) if rows == "auto" else self.settings.rows_at_once

    def loss(self, model: PreTrainedModel) -> float | None:
        """Return the held-out loss without generating; None where no rows are held out."""
        if not self.rows:
            return None
        with bf16_autocast(model.device, enabled=self.bf16):
            return compute_mean_loss(model, self.tokenizer, self.tokens, batch_size=self._batch_size)


def _parse_result(stored: Any) -> EvaluationResult:
    """Parse a stored result. Raises KeyError or TypeError where it is invalid."""
    evaluation = None if stored["evaluation"] is None else Evaluation(**stored["evaluation"])
    return EvaluationResult(evaluation, stored["sample"], bool(stored["bf16"]))


def resolve_sample_format(
    rows: Sequence[Row], prompt_format: PromptFormat, tokenizer: PreTrainedTokenizerBase
) -> PromptFormat:
    """Return the format of the sample prompt, by the most frequent form of the rows.

    That is `prompt_format` for prompts, a user's turn for conversations, and plain for text. Raises `ModelError` where
    the chat template does not accept a user's turn.
    """
    [(kind, _)] = Counter(map(type, rows)).most_common(1)
    if kind is MessagesRow:
        return resolve_prompt_format("chat", tokenizer, prompt_format.clock)
    return PLAIN if kind is TextRow else prompt_format
