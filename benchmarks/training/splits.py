"""The rows that benchmarks of quality train and score on: three splits of a dataset of summaries."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from greencore.dataset import PromptRow
from greencore.training.data.prompt_formats import TLDR
from greencore.training.data.tokenisation import TokenisedRows, tokenise_rows
from greencore.training.evaluation.evaluate import evaluate_completions, score_tokens


@dataclass(frozen=True)
class SplitSizes:
    """Rows of each split, from its first on (None: all), and the most tokens of a row."""

    train: int | None
    validation: int | None
    test: int | None
    max_length: int


class Splits:
    """The splits in a folder: `train.jsonl`, `validation.jsonl` and `test.jsonl`."""

    def __init__(self, folder: Path, tokenizer: PreTrainedTokenizerBase, sizes: SplitSizes) -> None:
        """Tokenise the first rows of each split. Raises ValueError naming the file and line that is invalid."""
        self._tokenizer, self._max_length = tokenizer, sizes.max_length
        self.train = self._tokenise(_read_records(folder / "train.jsonl", sizes.train))
        self.validation = self._tokenise(_read_records(folder / "validation.jsonl", sizes.validation))
        self._test = _read_records(folder / "test.jsonl", sizes.test)

    def score_test(self, model: PreTrainedModel, *, batch_size: int) -> float:
        """Return the mean loss in nats of the test split's learned tokens."""
        return score_tokens(model, self._tokenizer, self._tokenise(self._test), batch_size=batch_size).loss

    def score_validation(self, model: PreTrainedModel, *, batch_size: int) -> float:
        """Return the mean loss in nats of the validation split's learned tokens."""
        return score_tokens(model, self._tokenizer, self.validation, batch_size=batch_size, learned_only=True).loss

    def score_rouge(self, model: PreTrainedModel, *, max_new_tokens: int, beams: int) -> dict[str, float]:
        """Return the mean ROUGE F1 in per cent of the completions of the test split, against its best references."""
        scores = evaluate_completions(
            model,
            self._tokenizer,
            [_to_row(record) for record in self._test],
            batch_size=8,
            max_new_tokens=max_new_tokens,
            beams=beams,
            prompt_format=TLDR,
            max_prompt_length=self._max_length,
            references=[record["targets"] for record in self._test],
        )
        assert scores is not None
        return scores

    def _tokenise(self, records: Sequence[Mapping[str, Any]]) -> TokenisedRows:
        rows = [_to_row(record) for record in records]
        return tokenise_rows(rows, self._tokenizer, max_length=self._max_length, prompt_format=TLDR)


def _to_row(record: Mapping[str, Any]) -> PromptRow:
    return PromptRow(record["source"], record["targets"][0])


def _read_records(file: Path, amount: int | None) -> list[dict[str, Any]]:
    records = []
    for number, line in enumerate(file.read_text().splitlines()[:amount], start=1):
        record = json.loads(line)
        if not isinstance(record.get("source"), str) or not record.get("targets"):
            raise ValueError(f'{file}, line {number}: expected {{"source": text, "targets": [text, …]}}')
        records.append(record)
    return records
