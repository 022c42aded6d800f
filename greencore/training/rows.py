"""From rows to tokens: the completion bears the loss, the end of text is trained, the prompt gives way."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from greencore.dataset import MessagesRow, PromptRow, Row

IGNORED = -100
PAD_TO_MULTIPLE = 8


@dataclass(frozen=True)
class Example:
    """One tokenised row: `input_ids` with `labels` of the same length, where the prompt's are -100."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]

    def __getitem__(self, key: str) -> tuple[int, ...]:
        return {"input_ids": self.input_ids, "labels": self.labels}[key]


@dataclass(frozen=True)
class Tokenised:
    """The examples, and how many rows had to be shortened to the window."""

    examples: tuple[Example, ...]
    shortened_prompts: int
    shortened_completions: int

    @property
    def lengths(self) -> tuple[int, ...]:
        """Each example's length in tokens, as it takes part in a batch: padded."""
        return tuple(padded(len(example.input_ids)) for example in self.examples)


def padded(length: int) -> int:
    """The length rounded up to a multiple of eight, which matrix units are made for."""
    return -(-length // PAD_TO_MULTIPLE) * PAD_TO_MULTIPLE


def prompt_and_completion(row: Row, tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
    """The text that is given and the text that is learned; plain text has nothing that is given."""
    if isinstance(row, PromptRow):
        return row.prompt, row.completion
    if isinstance(row, MessagesRow):
        *before, (_, answer) = row.messages
        turns = [{"role": role, "content": content} for role, content in before]
        given = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return str(given), answer
    return "", row.text


def tokenise(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, *, max_length: int) -> Tokenised:
    """Tokenise rows to at most `max_length` tokens, the end of text included.

    A row that is too long loses the start of its prompt, and only when that is used up the end of its completion;
    both are counted.
    """
    examples, prompts, completions = [], 0, 0
    for row in rows:
        given, learned = prompt_and_completion(row, tokenizer)
        prompt = tokenizer(given, add_special_tokens=False)["input_ids"] if given else []
        completion = [*tokenizer(learned, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        if len(completion) > max_length:
            completions += 1
            completion = completion[:max_length]
        room = max_length - len(completion)
        if len(prompt) > room:
            prompts += 1
            prompt = prompt[len(prompt) - room :]
        examples.append(Example((*prompt, *completion), (*[IGNORED] * len(prompt), *completion)))
    return Tokenised(tuple(examples), prompts, completions)


class Collator:
    """Pads a batch on the right to its own longest row (see `padded`)."""

    def __init__(self, pad_token_id: int) -> None:
        self._pad_token_id = pad_token_id

    def __call__(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """`input_ids`, `attention_mask` and `labels`, each [batch, length]."""
        length = padded(max(len(example.input_ids) for example in examples))
        ids = torch.full((len(examples), length), self._pad_token_id)
        mask = torch.zeros_like(ids)
        labels = torch.full_like(ids, IGNORED)
        for row, example in enumerate(examples):
            size = len(example.input_ids)
            ids[row, :size] = torch.tensor(example.input_ids)
            labels[row, :size] = torch.tensor(example.labels)
            mask[row, :size] = 1
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def split(rows: Sequence[Row], *, eval_share: float, seed: int) -> tuple[list[Row], list[Row]]:
    """Rows to train on and rows held out, by a shuffle of `seed`; at least one row is always trained on."""
    held_out = min(round(len(rows) * eval_share), len(rows) - 1)
    if eval_share > 0 and held_out == 0 and len(rows) > 1:
        held_out = 1
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    chosen = set(order[:held_out])
    return (
        [row for index, row in enumerate(rows) if index not in chosen],
        [row for index, row in enumerate(rows) if index in chosen],
    )


def to_device(batch: Mapping[str, Any], device: torch.device) -> dict[str, torch.Tensor]:
    """The tensors of a batch, on a device."""
    return {key: value.to(device) for key, value in batch.items() if isinstance(value, torch.Tensor)}
