"""From rows to tokens: the completion bears the loss, the end of text is trained, the prompt gives way."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from greencore.dataset import InvalidRow, MessagesRow, PromptRow, Row, TextRow
from greencore.training.data.chat_template import (
    ConversationRefused,
    Messages,
    RenderedTurn,
    find_turn_end_token,
    render_last_turn,
)
from greencore.training.data.positions import UNBOUNDED, PositionLimits
from greencore.training.data.prompt_formats import PLAIN, PromptFormat, render_chat_prompt
from greencore.training.data.seams import tokenise_continuation
from greencore.training.data.special_text import encode_marked, mark_special_tokens, remove_marks
from greencore.training.models.loading import ModelError

IGNORED_LABEL = -100
PAD_TO_MULTIPLE = 8


class UnusableRow(InvalidRow, ModelError):
    """A row that this model's tokenizer or chat template can make nothing of; the error names its line."""


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
class TokenisedRows:
    """The examples, and how many rows had to be shortened to the window."""

    examples: tuple[Example, ...]
    shortened_prompts: int
    shortened_completions: int


def round_up_length(length: int, positions: int = UNBOUNDED) -> int:
    """The length rounded up to a multiple of eight, which matrix units are made for; at most the model's positions."""
    return max(length, min(-(-length // PAD_TO_MULTIPLE) * PAD_TO_MULTIPLE, positions))


def render_prompt_and_completion(
    row: Row, tokenizer: PreTrainedTokenizerBase, prompt_format: PromptFormat = PLAIN
) -> tuple[str, str]:
    """The text that is given and the text that is learned; plain text has nothing that is given.

    `prompt_format` is for prompt rows; a conversation is always put in the tokenizer's chat template. What is learned
    of it is what the template renders of its last turn (see `chat_template.render_last_turn`). Raises `UnusableRow`
    for a
    conversation of which nothing can be learned.
    """
    turn = _render_turn(row, tokenizer, prompt_format)
    return remove_marks(turn.prompt), remove_marks(turn.target)


def get_reference_text(
    row: Row, tokenizer: PreTrainedTokenizerBase, prompt_format: PromptFormat = PLAIN, *, ends: Collection[int] = ()
) -> str:
    """The text that generation is compared with: what is learned, as generation is decoded.

    That is without special tokens, and up to the first of the tokens that generation stops at, `ends`.
    """
    learned = _render_turn(row, tokenizer, prompt_format).target
    if _to_messages(row, tokenizer, prompt_format) is None:
        return remove_marks(learned)
    tokens = list(takewhile(lambda token: token not in ends, encode_marked(learned, tokenizer)))
    return str(tokenizer.decode(tokens, skip_special_tokens=True)).strip()


def find_turn_end_token_of_rows(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, prompt_format: PromptFormat = PLAIN
) -> int | None:
    """Return the token that ends a turn in the chat template; None where no row is put in it, or it has none."""
    conversations = (_to_messages(row, tokenizer, prompt_format) for row in rows)
    conversation = next(filter(None, conversations), None)
    return None if conversation is None else find_turn_end_token(conversation, tokenizer, clock=prompt_format.clock)


def tokenise_rows(
    rows: Sequence[Row],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    prompt_format: PromptFormat = PLAIN,
    encoder: bool = False,
    max_target_length: int | None = None,
) -> TokenisedRows:
    """Tokenise rows to at most `max_length` tokens, the end of text included.

    The prompt's tokens are those of the prompt by itself, as they are for generation; those of the completion follow
    on them (see `seams.tokenise_continuation`), and the end of text on these, unless a chat template ends the turn
    with a token
    of its own. A row that is too long is shortened in its prompt (see `tokenise_prompt`), and only when that is used up
    at the end of its completion; both are counted. With `encoder` the prompt goes to the encoder and has `max_length`
    to itself, and the completion has `max_target_length` (default: as many). Raises `ModelError` for a tokenizer
    without an end of text or a usable chat template, and for plain text with an encoder, which has nothing to read;
    `UnusableRow` for a conversation that the template refuses, and for a text of no tokens.
    """
    if tokenizer.eos_token_id is None:
        raise ModelError("the tokenizer has no end-of-text token, so a completion would never end")
    examples, prompts, completions = [], 0, 0
    for row in rows:
        if encoder and isinstance(row, TextRow):
            raise ModelError(
                'an encoder-decoder model reads a prompt and writes a completion: {"text"} gives it no prompt'
            )
        completion = _tokenise_target(row, tokenizer, prompt_format, encoder=encoder)
        window = (max_target_length or max_length) if encoder else max_length
        if len(completion) > window:
            completions += 1
            code = completion[-1:] if encoder and completion[-1] != tokenizer.eos_token_id else []  # of a language
            completion = [*completion[: window - len(code)], *code]
        room = max_length if encoder else max_length - len(completion)
        prompt, shortened = tokenise_prompt(
            row, tokenizer, max_length=room, prompt_format=prompt_format, encoder=encoder
        )
        prompts += shortened
        if encoder:
            examples.append(Example(tuple(prompt), tuple(completion)))
        else:
            examples.append(Example((*prompt, *completion), (*[IGNORED_LABEL] * len(prompt), *completion)))
    return TokenisedRows(tuple(examples), prompts, completions)


def tokenise_prompt(
    row: Row,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    prompt_format: PromptFormat = PLAIN,
    encoder: bool = False,
) -> tuple[list[int], bool]:
    """The tokens that a model is given for a row, at most `max_length`, and whether that shortened the prompt.

    A prompt in a format loses the end of its source, as the paper's does (§4), and so does a conversation of one
    user's turn, and whatever an encoder reads; the words around it stay. A prompt as it stands and a longer
    conversation lose their start, so that the completion still follows on their end. The opening token of a text,
    which the tokenizer or a chat template puts there, stays in any case.
    """
    messages = _to_messages(row, tokenizer, prompt_format)
    source = (
        messages[-2][1]
        if messages
        else mark_special_tokens(row.prompt, tokenizer)
        if isinstance(row, PromptRow)
        else ""
    )

    def given(length: int) -> str:
        """The prompt with so many characters of its source."""
        part = source if length >= len(source) else source[:length].rstrip()
        if messages:
            earlier, role = messages[:-2], messages[-2][0]
            return _render_chat_prompt(row, (*earlier, (role, part)), tokenizer, prompt_format)
        return prompt_format.wrap(part) if isinstance(row, PromptRow) else ""

    opening = [] if messages or encoder else _get_opening_tokens(tokenizer)

    def encode_prompt(length: int) -> list[int]:
        text = given(length)
        if encoder:
            tokens = encode_marked(text, tokenizer, add_special_tokens=not messages)
            return tokens if not messages and tokenizer.eos_token_id in tokens else _append_end_token(tokens, tokenizer)
        return [*opening, *encode_marked(text, tokenizer)]

    tokens = encode_prompt(len(source))
    if len(tokens) <= max_length or isinstance(row, TextRow):
        return tokens[:max_length], False
    if messages:
        one_turn = all(role == "system" for role, _ in messages[:-2])
    else:
        one_turn = encoder or bool(prompt_format.prefix or prompt_format.suffix)
    if one_turn:
        fitting = bisect_right(range(len(source)), max_length, key=lambda length: len(encode_prompt(length))) - 1
        tokens = encode_prompt(max(fitting, 0))
    opening = [] if encoder else _find_opening_tokens(tokens, tokenizer)[:max_length]
    return [*opening, *tokens[max(len(opening), len(tokens) - max_length + len(opening)) :]], True


class Collator:
    """Pads a batch on the right to its own longest row (see `padded`), within the model's `positions`."""

    def __init__(self, pad_token_id: int, positions: PositionLimits | None = None) -> None:
        self._pad_token_id, self._positions = pad_token_id, positions or PositionLimits()

    def __call__(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """`input_ids` and `attention_mask`, each [batch, length], and `labels`; an encoder's have their own length."""
        read, written = self._positions.input_tokens, self._positions.output_tokens
        ids = _pad_and_stack([example.input_ids for example in examples], self._pad_token_id, read)
        mask = _pad_and_stack([[1] * len(example.input_ids) for example in examples], 0, read)
        labels = _pad_and_stack([example.labels for example in examples], IGNORED_LABEL, written)
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def split_rows(rows: Sequence[Row], *, eval_share: float, seed: int) -> tuple[list[Row], list[Row]]:
    """Rows to train on and rows held out, by a shuffle of `seed`; at least one row is always trained on.

    Equal rows stay together, so that no held-out row is trained on: rows are held out with all of their copies where
    these fit in the share, and otherwise not at all.
    """
    wanted = _count_held_out_rows(len(rows), eval_share)
    copies = _group_copies(rows)
    chosen: set[int] = set()
    for index in _shuffle_indices(len(rows), seed):
        if index not in chosen and len(chosen) + len(copies[rows[index]]) <= wanted:
            chosen.update(copies[rows[index]])
    return (
        [row for index, row in enumerate(rows) if index not in chosen],
        [row for index, row in enumerate(rows) if index in chosen],
    )


def count_held_out_duplicates(rows: Sequence[Row], *, eval_share: float, seed: int) -> int:
    """How many rows the shuffle alone would have held out although an equal row is trained on; `split_rows` does
    not.
    """
    drawn = set(_shuffle_indices(len(rows), seed)[: _count_held_out_rows(len(rows), eval_share)])
    copies = _group_copies(rows)
    return sum(not drawn.issuperset(copies[rows[index]]) for index in drawn)


def to_device(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """The batch with its tensors on a device."""
    return {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in batch.items()}


def _to_messages(row: Row, tokenizer: PreTrainedTokenizerBase, prompt_format: PromptFormat) -> Messages | None:
    """The conversation that a row is: in a chat template a prompt is a user's turn. None for other rows."""
    messages: Messages
    if isinstance(row, MessagesRow):
        messages = row.messages
    elif isinstance(row, PromptRow) and prompt_format.templated:
        messages = (("user", row.prompt), ("assistant", row.completion))
    else:
        return None
    return tuple((role, mark_special_tokens(content, tokenizer)) for role, content in messages)


def _render_turn(row: Row, tokenizer: PreTrainedTokenizerBase, prompt_format: PromptFormat) -> RenderedTurn:
    messages = _to_messages(row, tokenizer, prompt_format)
    if messages:
        try:
            return render_last_turn(messages, tokenizer, clock=prompt_format.clock)
        except ConversationRefused as error:
            raise UnusableRow(row.line, _field(row), str(error)) from error
    if isinstance(row, PromptRow):
        given = prompt_format.wrap(mark_special_tokens(row.prompt, tokenizer))
        return RenderedTurn(given, mark_special_tokens(row.completion, tokenizer), has_end_token=False)
    assert isinstance(row, TextRow)
    return RenderedTurn("", mark_special_tokens(row.text, tokenizer), has_end_token=False)


def _render_chat_prompt(
    row: Row, messages: Messages, tokenizer: PreTrainedTokenizerBase, prompt_format: PromptFormat
) -> str:
    try:
        return render_chat_prompt(messages, tokenizer, prompt_format.clock)
    except ConversationRefused as error:
        raise UnusableRow(row.line, _field(row), str(error)) from error


def _tokenise_target(
    row: Row, tokenizer: PreTrainedTokenizerBase, prompt_format: PromptFormat, *, encoder: bool
) -> list[int]:
    turn = _render_turn(row, tokenizer, prompt_format)
    if encoder:
        learned = encode_marked(turn.target, tokenizer, add_special_tokens=True, target=True)
        empty = not encode_marked(turn.target, tokenizer, target=True)
        if tokenizer.eos_token_id in learned and not _to_messages(row, tokenizer, prompt_format) and not empty:
            return learned  # a language's code may follow on the end
    else:
        learned = tokenise_continuation(turn.prompt, turn.target, tokenizer)
        empty = not learned
    if empty:
        reason = "gives no tokens with this model's tokenizer, so there is nothing to learn from it"
        raise UnusableRow(row.line, _field(row), reason)
    return learned if turn.has_end_token and not encoder else _append_end_token(learned, tokenizer)


def _field(row: Row) -> str:
    """The name of the part of a row that is learned."""
    return "messages" if isinstance(row, MessagesRow) else "completion" if isinstance(row, PromptRow) else "text"


def _count_held_out_rows(rows: int, eval_share: float) -> int:
    held_out = min(round(rows * eval_share), rows - 1)
    return 1 if eval_share > 0 and held_out == 0 and rows > 1 else held_out


def _shuffle_indices(rows: int, seed: int) -> list[int]:
    return list(torch.randperm(rows, generator=torch.Generator().manual_seed(seed)).tolist())


def _group_copies(rows: Sequence[Row]) -> Mapping[Row, Sequence[int]]:
    """Where each different row is."""
    places = defaultdict[Row, list[int]](list)
    for index, row in enumerate(rows):
        places[row].append(index)
    return places


def _pad_and_stack(rows: Sequence[Sequence[int]], filler: int, positions: int) -> torch.Tensor:
    length = round_up_length(max(len(row) for row in rows), positions)
    return torch.tensor([[*row, *[filler] * (length - len(row))] for row in rows])


def _append_end_token(tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens with the end of text, which the tokenizer may have put there already."""
    end = tokenizer.eos_token_id
    return [*tokens] if tokens and tokens[-1] == end else [*tokens, end]


def _get_opening_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that the tokenizer puts before every text, if any: Llama's and Gemma's `<s>`, OPT's `</s>`."""
    text, plain = (list(tokenizer("a", add_special_tokens=special)["input_ids"]) for special in (True, False))
    front = next((place for place in range(len(text)) if text[place : place + len(plain)] == plain), 0)
    return text[:front] if set(text[:front]) <= set(tokenizer.all_special_ids) else []


def _find_opening_tokens(tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The opening tokens of a tokenised prompt, which the tokenizer or the chat template has put there."""
    opening = _get_opening_tokens(tokenizer) or [tokenizer.bos_token_id]
    return opening if list(tokens[: len(opening)]) == opening else []
