"""The same questions before, between and after: what a run has changed."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from greencore.dataset import Row
from greencore.hyperparameters import Hyperparameters
from greencore.training.checkpoint_folder import flush
from greencore.training.evaluation import Evaluation, complete, evaluate, mean_loss
from greencore.training.formats import prompt_format
from greencore.training.rows import Tokenised


@dataclass(frozen=True)
class Marks:
    """What an examination found: the held-out rows' figures, and the sample prompt's completion."""

    evaluation: Evaluation | None
    sample: str | None


class Examination:
    """Asks a model about the held-out rows, which `tokens` are in the model's own, and for the sample's completion."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        rows: Sequence[Row],
        tokens: Tokenised,
        hyperparameters: Hyperparameters,
    ) -> None:
        self._tokenizer, self._rows, self._tokens, self._settings = tokenizer, rows, tokens, hyperparameters

    def take(self, model: PreTrainedModel) -> Marks:
        """Ask everything."""
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
        return Marks(evaluation, sample)

    def kept(self, model: PreTrainedModel, file: Path) -> Marks:
        """The marks before training; a run that goes on has them from its first start."""
        if file.is_file():
            kept = json.loads(file.read_text())
            return Marks(Evaluation(**kept["evaluation"]) if kept["evaluation"] else None, kept["sample"])
        marks = self.take(model)
        file.parent.mkdir(parents=True, exist_ok=True)
        working = file.with_name(f".{file.stem}-{os.getpid()}{file.suffix}")
        try:
            working.write_text(json.dumps(asdict(marks)))
            flush(working)
            working.rename(file)
        finally:
            working.unlink(missing_ok=True)
        return marks

    def loss(self, model: PreTrainedModel) -> float | None:
        """The held-out loss alone, which costs no generation."""
        if not self._rows:
            return None
        return mean_loss(model, self._tokenizer, self._tokens, batch_size=self._settings.batch_size)
