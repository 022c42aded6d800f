"""From rows to tokens: the completion bears the loss, the end of text is trained, the prompt gives way."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from greencore.dataset import MessagesRow, PromptRow, Row, TextRow
from greencore.training.formats import PLAIN, PromptFormat, chat_prompt
from greencore.training.models import ModelError

IGNORED = -100
PAD_TO_MULTIPLE = 8


@dataclass(frozen=True)
class Example:
    """One tokenised row: `input_ids`, and the `labels` that are learned.

    Without an encoder both are as long as the row, and the prompt's labels are -100. With one, `input_ids` are what
    the encoder reads and `labels` what the decoder writes.
    """

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


def padded(length: int) -> int:
    """The length rounded up to a multiple of eight, which matrix units are made for."""
    return -(-length // PAD_TO_MULTIPLE) * PAD_TO_MULTIPLE


def prompt_and_completion(
    row: Row, tokenizer: PreTrainedTokenizerBase, prompt_format: PromptFormat = PLAIN
) -> tuple[str, str]:
    """The text that is given and the text that is learned; plain text has nothing that is given.

    `prompt_format` is for prompt rows; a conversation is always put in the tokenizer's chat template.
    """
    if isinstance(row, PromptRow):
        return prompt_format.around(row.prompt), _learned(row)
    if isinstance(row, MessagesRow):
        return chat_prompt(row.messages[:-1], tokenizer), _learned(row)
    return "", _learned(row)


def tokenise(
    rows: Sequence[Row],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    prompt_format: PromptFormat = PLAIN,
    encoder: bool = False,
    max_target_length: int | None = None,
) -> Tokenised:
    """Tokenise rows to at most `max_length` tokens, the end of text included.

    A row that is too long is shortened in its prompt (see `prompt_tokens`), and only when that is used up at the end
    of its completion; both are counted. With `encoder` the prompt goes to the encoder and has `max_length` to itself,
    and the completion has `max_target_length` (default: as many). Raises `ModelError` for a tokenizer without an end
    of text, for a conversation without a chat template, and for plain text with an encoder, which has nothing to read.
    """
    if tokenizer.eos_token_id is None:
        raise ModelError("the tokenizer has no end-of-text token, so a completion would never end")
    examples, prompts, completions = [], 0, 0
    for row in rows:
        if encoder and isinstance(row, TextRow):
            raise ModelError(
                'an encoder-decoder model reads a prompt and writes a completion: {"text"} gives it no prompt'
            )
        completion = _closed(tokenizer(_learned(row), add_special_tokens=encoder)["input_ids"], tokenizer)
        window = (max_target_length or max_length) if encoder else max_length
        if len(completion) > window:
            completions += 1
            completion = completion[:window]
        room = max_length if encoder else max_length - len(completion)
        prompt, shortened = prompt_tokens(row, tokenizer, max_length=room, prompt_format=prompt_format, encoder=encoder)
        prompts += shortened
        if encoder:
            examples.append(Example(tuple(prompt), tuple(completion)))
        else:
            examples.append(Example((*prompt, *completion), (*[IGNORED] * len(prompt), *completion)))
    return Tokenised(tuple(examples), prompts, completions)


def prompt_tokens(
    row: Row,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    prompt_format: PromptFormat = PLAIN,
    encoder: bool = False,
) -> tuple[list[int], bool]:
    """The tokens that a model is given for a row, at most `max_length`, and whether that shortened the prompt.

    A prompt in a format loses the end of its source, as the paper's does (§4), and so does whatever an encoder reads;
    the format's own words stay. A prompt as it stands and a conversation lose their start, so that the completion
    still follows on their end. The opening token that the tokenizer puts before a text stays in any case.
    """
    templated = isinstance(row, MessagesRow) or prompt_format.templated
    opening = [] if templated or encoder else _opening(tokenizer)

    def encode(text: str) -> list[int]:
        if encoder:
            return _closed(tokenizer(text, add_special_tokens=not templated)["input_ids"], tokenizer)
        return [*opening, *tokenizer(text, add_special_tokens=False)["input_ids"]] if text else [*opening]

    def encode_source(length: int) -> list[int]:
        assert isinstance(row, PromptRow)
        return encode(prompt_format.around(row.prompt[:length].rstrip()))

    tokens = encode(prompt_and_completion(row, tokenizer, prompt_format)[0])
    if len(tokens) <= max_length or isinstance(row, TextRow):
        return tokens[:max_length], False
    if isinstance(row, PromptRow) and (encoder or prompt_format.prefix or prompt_format.suffix):
        fitting = bisect_right(range(len(row.prompt)), max_length, key=lambda length: len(encode_source(length))) - 1
        tokens = encode_source(max(fitting, 0))
    opening = opening[:max_length]
    return [*opening, *tokens[max(len(opening), len(tokens) - max_length + len(opening)) :]], True


class Collator:
    """Pads a batch on the right to its own longest row (see `padded`)."""

    def __init__(self, pad_token_id: int) -> None:
        self._pad_token_id = pad_token_id

    def __call__(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """`input_ids` and `attention_mask`, each [batch, length], and `labels`; an encoder's have their own length."""
        ids = _stacked([example.input_ids for example in examples], self._pad_token_id)
        mask = _stacked([[1] * len(example.input_ids) for example in examples], 0)
        labels = _stacked([example.labels for example in examples], IGNORED)
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


def to_device(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """The batch with its tensors on a device."""
    return {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in batch.items()}


def _learned(row: Row) -> str:
    if isinstance(row, MessagesRow):
        return row.messages[-1][1]
    return row.completion if isinstance(row, PromptRow) else row.text


def _stacked(rows: Sequence[Sequence[int]], filler: int) -> torch.Tensor:
    length = padded(max(len(row) for row in rows))
    return torch.tensor([[*row, *[filler] * (length - len(row))] for row in rows])


def _closed(tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens with the end of text, which the tokenizer may have put there already."""
    end = tokenizer.eos_token_id
    return [*tokens] if tokens and tokens[-1] == end else [*tokens, end]


def _opening(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The token that the tokenizer puts before every text, if it does: Llama's and Gemma's `<s>`, OPT's `</s>`."""
    text, plain = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (True, False))
    front = text[:1]
    return list(front) if front == [tokenizer.bos_token_id] and text[1 : 1 + len(plain)] == plain else []
