"""Evaluator of a run: the same held-out rows and sample prompt before, during and after training."""

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from greencore.backprop.shards import free_gathered
from greencore.dataset import MessagesRow, Row, TextRow
from greencore.settings.hyperparameters import Hyperparameters
from greencore.training.data.prompt_formats import PLAIN, PromptFormat, resolve_prompt_format
from greencore.training.data.tokenisation import TokenisedRows
from greencore.training.evaluation.evaluate import (
    Evaluation,
    TokenScores,
    evaluate_completions,
    generate_completions,
    has_prompt,
    score_tokens,
)
from greencore.training.models.loading import ModelError
from greencore.training.models.precision import bf16_autocast
from greencore.training.processes import agree, recall

MAX_BATCH_ROWS = 8  # that fit wherever a training step of a row or two does: no gradient keeps activations
# Bounds of the rows for which an evaluation during the run generates completions, for ROUGE.
MAX_SAMPLE_ROWS = 16
MAX_SAMPLE_SECONDS = 10.0  # by the pace of the evaluation before training
MAX_GENERATION_SECONDS = 30.0  # of one evaluation: the trained model may write longer completions


@dataclass(frozen=True)
class EvaluationResult:
    """Evaluation of the held-out rows, completion of the sample prompt, and the precision of both.

    `sample_rows` is how many rows an evaluation during the run generates completions for.
    """

    evaluation: Evaluation | None
    sample: str | None
    bf16: bool
    sample_rows: int = MAX_SAMPLE_ROWS


@dataclass(kw_only=True)
class Evaluator:
    """Evaluates a model on the held-out rows (tokenised as `tokens`) and completes the sample prompt.

    The rows' prompts are put in `prompt_format`, the sample prompt in `sample_prompt_format` (see
    `resolve_sample_format`). All evaluations run in one precision, bf16 autocast or fp32: `bf16` at first, that of the
    run's first start after `evaluate_once`, which also fixes `sample_rows`. With `learned_only` logits are computed at
    learned positions alone.
    """

    tokenizer: PreTrainedTokenizerBase
    rows: Sequence[Row]
    tokens: TokenisedRows
    settings: Hyperparameters
    prompt_format: PromptFormat
    sample_prompt_format: PromptFormat
    bf16: bool
    learned_only: bool = False
    sample_rows: int = MAX_SAMPLE_ROWS

    def evaluate(self, model: PreTrainedModel) -> EvaluationResult:
        """Evaluate the held-out rows and complete the sample prompt."""
        settings = self.settings
        evaluation, sample, seconds_per_row = None, None, 0.0
        with bf16_autocast(model.device, enabled=self.bf16):
            if self.rows:
                scores = self._score_tokens(model)
                start = time.monotonic()
                rouge = self._evaluate_completions(model, self.rows)
                seconds_per_row = (time.monotonic() - start) / len(self.rows)
                evaluation = Evaluation(scores.loss, rouge, len(self.rows), scores.accuracy)
            if settings.sample_prompt is not None:
                [sample] = generate_completions(
                    model,
                    self.tokenizer,
                    [settings.sample_prompt],
                    max_new_tokens=settings.max_new_tokens,
                    prompt_format=self.sample_prompt_format,
                )
        free_gathered(model)
        affordable = int(MAX_SAMPLE_SECONDS / seconds_per_row) if seconds_per_row else MAX_SAMPLE_ROWS
        return agree(EvaluationResult(evaluation, sample, self.bf16, min(MAX_SAMPLE_ROWS, max(1, affordable))))

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

        result = recall(file, measure, _parse_result)
        self.bf16, self.sample_rows = result.bf16, result.sample_rows
        return result

    @property
    def _batch_size(self) -> int:
        """Rows of a batch: those that training computes at once, but a few at most.

        Whether more fit is known only once a step has run: training may halve its micro-batches, evaluation does not.
        """
        return min(self.settings.rows_at_once, MAX_BATCH_ROWS)

    @property
    def rouge_rows(self) -> Sequence[Row]:
        """The rows for which an evaluation during the run generates completions, spread evenly over those held out."""
        asked = [row for row in self.rows if has_prompt(row)]
        count = min(self.sample_rows, len(asked))
        return [asked[index * len(asked) // count] for index in range(count)]

    def evaluate_in_run(self, model: PreTrainedModel) -> Evaluation:
        """Evaluate the held-out rows, with ROUGE of `rouge_rows` alone; some rows must be held out."""
        with bf16_autocast(model.device, enabled=self.bf16):
            scores = self._score_tokens(model)
            rouge = self._evaluate_completions(model, self.rouge_rows, max_seconds=MAX_GENERATION_SECONDS)
        free_gathered(model)
        return agree(Evaluation(scores.loss, rouge, len(self.rows), scores.accuracy))

    def _score_tokens(self, model: PreTrainedModel) -> TokenScores:
        return score_tokens(
            model, self.tokenizer, self.tokens, batch_size=self._batch_size, learned_only=self.learned_only
        )

    def _evaluate_completions(
        self, model: PreTrainedModel, rows: Sequence[Row], *, max_seconds: float | None = None
    ) -> dict[str, float] | None:
        return evaluate_completions(
            model,
            self.tokenizer,
            rows,
            batch_size=self._batch_size,
            max_new_tokens=self.settings.max_new_tokens,
            prompt_format=self.prompt_format,
            max_prompt_length=self.settings.max_length,
            max_seconds=max_seconds,
        )


def _parse_result(stored: Any) -> EvaluationResult:
    """Parse a stored result. Raises KeyError or TypeError where it is invalid."""
    evaluation = None if stored["evaluation"] is None else Evaluation(**stored["evaluation"])
    sample_rows = int(stored.get("sample_rows", MAX_SAMPLE_ROWS))
    return EvaluationResult(evaluation, stored["sample"], bool(stored["bf16"]), sample_rows)


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
