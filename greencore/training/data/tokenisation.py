"""Tokenisation of rows: labels on what is learned of each, and prompts shortened to the maximum length."""

from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from greencore.dataset import InvalidRow, Message, MessagesRow, PromptRow, Row, TextRow
from greencore.settings.value_types import TrainOn
from greencore.training.batches.positions import UNBOUNDED, PositionLimits
from greencore.training.data.chat_template import ConversationRefused
from greencore.training.data.continuations import (
    NO_TOKENS,
    append_end_token,
    cut_completion,
    find_opening_tokens,
    get_opening_tokens,
    tokenise_continuation,
)
from greencore.training.data.conversation_tokens import (
    tokenise_conversation,
    tokenise_conversation_for_encoder,
    tokenise_turn_prompt,
)
from greencore.training.data.learned_turns import Conversation, find_turn_end, list_learned_turns, render_turn
from greencore.training.data.prompt_formats import PLAIN, PromptFormat
from greencore.training.data.special_text import encode_marked, mark_special_tokens
from greencore.training.models.loading import ModelError

IGNORED_LABEL = -100
PAD_TO_MULTIPLE = 8
MAX_LEARNED_TURNS = 1000  # a conversation is rendered for each of them, so the time grows with their square
MAX_NAMED_LINES = 20  # of dropped rows, in results


class UnusableRow(InvalidRow, ModelError):
    """A row that the model's tokenizer or chat template cannot use; the error names its line."""


@dataclass(frozen=True)
class Example:
    """One tokenised row: `input_ids`, and the `labels` that are learned.

    For a decoder-only model both have the row's length, and the prompt's labels are -100. For an encoder-decoder model
    `input_ids` are the encoder's input and `labels` the decoder's output.
    """

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]

    def __getitem__(self, key: str) -> tuple[int, ...]:
        return {"input_ids": self.input_ids, "labels": self.labels}[key]


@dataclass(frozen=True)
class TokenisedRows:
    """Examples of rows, and the numbers of rows whose prompt or learned part was shortened to the maximum length.

    A conversation may have several examples. `rows` are those that have one; `dropped_lines` are the line numbers of
    the others, which have nothing to learn.
    """

    examples: tuple[Example, ...]
    shortened_prompts: int
    shortened_completions: int
    rows: tuple[Row, ...] = field(default=(), compare=False)
    dropped_lines: tuple[int, ...] = ()

    def refuse_empty(self) -> None:
        """Raise `UnusableRow` where there are rows, and nothing of any is learned."""
        refuse_nothing_learned(len(self.rows), self.dropped_lines)


def refuse_nothing_learned(kept: int, dropped_lines: Sequence[int]) -> None:
    """Raise `UnusableRow`, which names the first row, where every row was dropped."""
    if not kept and dropped_lines:
        reason = "nothing of it is learned, as of every other row: no turn of the assistant that counts has weight 1"
        raise UnusableRow(dropped_lines[0], "messages", reason)


def round_up_length(length: int, positions: int = UNBOUNDED) -> int:
    """Round a length up to a multiple of 8, which is fast on matrix units; at most the model's positions."""
    return max(length, min(-(-length // PAD_TO_MULTIPLE) * PAD_TO_MULTIPLE, positions))


def get_reference_text(
    row: Row, tokenizer: PreTrainedTokenizerBase, prompt_format: PromptFormat = PLAIN, *, ends: Collection[int] = ()
) -> str:
    """Return the reference text of a row: its learned text, decoded as generated text is.

    Of a conversation it is that of the last learned turn, which evaluation generates. Without special tokens, up to the
    first of `ends`, the tokens that generation stops at.
    """
    conversation = to_conversation(row, tokenizer, prompt_format)
    if conversation is None:
        return row.completion if isinstance(row, PromptRow) else row.text if isinstance(row, TextRow) else ""
    with _name_row(row):
        [*_, place] = list_learned_turns(conversation.messages)
        learned = render_turn(conversation, place, tokenizer, clock=prompt_format.clock).completion
    tokens = list(takewhile(lambda token: token not in ends, encode_marked(learned, tokenizer)))
    return str(tokenizer.decode(tokens, skip_special_tokens=True)).strip()


def find_turn_end_token_of_rows(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, prompt_format: PromptFormat = PLAIN
) -> int | None:
    """Return the token that ends a turn in the chat template; None where no row uses it, or it has none.

    Of each conversation some turn is learned, as of `TokenisedRows.rows`.
    """
    conversations = (to_conversation(row, tokenizer, prompt_format) for row in rows)
    conversation = next(filter(None, conversations), None)
    if conversation is None:
        return None
    [*_, place] = list_learned_turns(conversation.messages)
    end = find_turn_end(conversation, place, tokenizer, clock=prompt_format.clock)
    return (
        None
        if end is None
        else next(key for key, each in tokenizer.added_tokens_decoder.items() if each.content == end)
    )


def tokenise_rows(
    rows: Sequence[Row],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    prompt_format: PromptFormat = PLAIN,
    encoder: bool = False,
    train_on: TrainOn = "assistant",
) -> TokenisedRows:
    """Tokenise rows to examples of at most `max_length` tokens, including the end of text.

    The prompt is tokenised by itself, as for generation; the completion's tokens follow (see
    `tokenise_continuation`), then the end of text, unless a chat template ends the turn with a token. Of a conversation
    the turns of `train_on` are learned, in as few examples as its template allows (see `tokenise_turns`), with an
    encoder in one each. A row that is too long is shortened in its prompt (see `tokenise_prompt`), then at the end of
    its completion; both are counted. A row without a learned token is dropped and counted.

    With `encoder` the encoder reads a prompt of up to `max_length` tokens, and the completion has up to as many. Raises
    `ModelError` for a tokenizer without an end of text or a usable chat template, and for plain text with an encoder,
    which has no prompt to read; `UnusableRow` for a conversation that the template rejects, and for a text without
    tokens.
    """
    if tokenizer.eos_token_id is None:
        raise ModelError("the tokenizer has no end-of-text token, so a completion would never end")
    found: list[Example] = []
    kept: list[Row] = []
    dropped: list[Row] = []
    prompts, completions = 0, 0
    for row in rows:
        if encoder and isinstance(row, TextRow):
            raise ModelError(
                'an encoder-decoder model reads a prompt and writes a completion: {"text"} gives it no prompt'
            )
        examples = _tokenise_row(
            row, tokenizer, max_length=max_length, prompt_format=prompt_format, encoder=encoder, train_on=train_on
        )
        learnable = [each for each in examples if _has_learned_token(each[0], encoder=encoder)]
        found += [example for example, _, _ in learnable]
        prompts += any(shortened for _, shortened, _ in learnable)
        completions += any(cut for _, _, cut in learnable)
        (kept if learnable else dropped).append(row)
    return TokenisedRows(tuple(found), prompts, completions, tuple(kept), tuple(row.line for row in dropped))


def tokenise_prompt(
    row: Row,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    prompt_format: PromptFormat = PLAIN,
    encoder: bool = False,
) -> tuple[list[int], bool]:
    """Return the prompt's tokens for a row, at most `max_length`, and whether the prompt was shortened.

    Of a conversation it is the prompt of its last learned turn; it is shortened by whole messages first (see
    `shorten_prompt`). A prompt in a format is shortened at the end of its source, as in the paper (§4), and so is an
    encoder's input; the text around it stays. A plain prompt is shortened at the start, so that the completion still
    follows its end. The opening token of a text, which the tokenizer or a chat template adds, always stays.
    """
    conversation = to_conversation(row, tokenizer, prompt_format)
    if conversation is not None:
        with _name_row(row):
            [*_, place] = list_learned_turns(conversation.messages)
            return tokenise_turn_prompt(
                conversation, place, tokenizer, max_length=max_length, clock=prompt_format.clock, encoder=encoder
            )
    source = mark_special_tokens(row.prompt, tokenizer) if isinstance(row, PromptRow) else ""
    opening = [] if encoder else get_opening_tokens(tokenizer)

    def encode_prompt(length: int) -> list[int]:
        """Encode the prompt with the first `length` characters of its source."""
        part = source if length >= len(source) else source[:length].rstrip()
        text = prompt_format.wrap(part) if isinstance(row, PromptRow) else ""
        if encoder:
            tokens = encode_marked(text, tokenizer, add_special_tokens=True)
            return tokens if tokenizer.eos_token_id in tokens else append_end_token(tokens, tokenizer)
        return [*opening, *encode_marked(text, tokenizer)]

    tokens = encode_prompt(len(source))
    if len(tokens) <= max_length or isinstance(row, TextRow):
        return tokens[:max_length], False
    if encoder or prompt_format.prefix or prompt_format.suffix:
        fitting = bisect_right(range(len(source)), max_length, key=lambda length: len(encode_prompt(length))) - 1
        tokens = encode_prompt(max(fitting, 0))
    opening = [] if encoder else find_opening_tokens(tokens, tokenizer)[:max_length]
    return [*opening, *tokens[max(len(opening), len(tokens) - max_length + len(opening)) :]], True


class Collator:
    """Collator that pads a batch on the right to its longest row (see `round_up_length`), within `positions`."""

    def __init__(self, pad_token_id: int, positions: PositionLimits | None = None) -> None:
        self._pad_token_id, self._positions = pad_token_id, positions or PositionLimits()

    def __call__(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Return `input_ids` and `attention_mask`, [batch, length], and `labels`, of another length with an encoder."""
        read, written = self._positions.input_tokens, self._positions.output_tokens
        ids = _pad_and_stack([example.input_ids for example in examples], self._pad_token_id, read)
        mask = _pad_and_stack([[1] * len(example.input_ids) for example in examples], 0, read)
        labels = _pad_and_stack([example.labels for example in examples], IGNORED_LABEL, written)
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def to_device(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Return the batch with its tensors moved to a device."""
    return {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in batch.items()}


def to_conversation(row: Row, tokenizer: PreTrainedTokenizerBase, prompt_format: PromptFormat) -> Conversation | None:
    """Return a row's conversation, in a chat template also a prompt row's; None for other rows.

    Special tokens that are spelled out in its texts are marked.
    """
    if isinstance(row, MessagesRow):
        messages, tools = row.messages, row.tools
    elif isinstance(row, PromptRow) and prompt_format.templated:
        messages, tools = (Message("user", row.prompt), Message("assistant", row.completion)), None
    else:
        return None

    def mark(text: str | None) -> str | None:
        return None if text is None else mark_special_tokens(text, tokenizer)

    def mark_message(message: Message) -> Message:
        return replace(
            message,
            content=mark(message.content) or "",
            tool_calls=mark(message.tool_calls),
            name=mark(message.name),
            tool_call_id=mark(message.tool_call_id),
        )

    return Conversation(tuple(map(mark_message, messages)), mark(tools))


def _tokenise_row(
    row: Row,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    prompt_format: PromptFormat,
    encoder: bool,
    train_on: TrainOn,
) -> list[tuple[Example, bool, bool]]:
    """Return a row's examples, each with whether its prompt and its learned part were shortened."""
    conversation = to_conversation(row, tokenizer, prompt_format)
    if conversation is None:
        whole = _tokenise_completion(row, tokenizer, prompt_format, encoder=encoder)
        completion = cut_completion(whole, tokenizer, max_length=max_length, encoder=encoder)
        room = max_length if encoder else max_length - len(completion)
        prompt, shortened = tokenise_prompt(
            row, tokenizer, max_length=room, prompt_format=prompt_format, encoder=encoder
        )
        cut = len(completion) < len(whole)
        if encoder:
            return [(Example(tuple(prompt), tuple(completion)), shortened, cut)]
        labels = (*[IGNORED_LABEL] * len(prompt), *completion)
        return [(Example((*prompt, *completion), labels), shortened, cut)]
    with _name_row(row):
        turns = list_learned_turns(conversation.messages, train_on)
        if not turns:
            return []
        if len(turns) > MAX_LEARNED_TURNS:
            given = f"given {len(turns)} turns to be learned, and at most {MAX_LEARNED_TURNS} of a row may be"
            raise ConversationRefused(f"{given}: divide it into several")
        if encoder:
            pairs = tokenise_conversation_for_encoder(
                conversation, turns, tokenizer, max_length=max_length, clock=prompt_format.clock
            )
            return [(Example(tuple(read), tuple(written)), short, cut) for read, written, short, cut in pairs]
        found = tokenise_conversation(conversation, turns, tokenizer, max_length=max_length, clock=prompt_format.clock)
        return [
            (
                Example(
                    tuple(each.tokens),
                    tuple(
                        token if learned else IGNORED_LABEL
                        for token, learned in zip(each.tokens, each.learned, strict=True)
                    ),
                ),
                each.shortened_prompt,
                each.shortened_completion,
            )
            for each in found
        ]


def _tokenise_completion(
    row: Row, tokenizer: PreTrainedTokenizerBase, prompt_format: PromptFormat, *, encoder: bool
) -> list[int]:
    """Return the learned tokens of a prompt row or a text row, without a limit on their number."""
    given = prompt_format.wrap(mark_special_tokens(row.prompt, tokenizer)) if isinstance(row, PromptRow) else ""
    text = row.completion if isinstance(row, PromptRow) else row.text if isinstance(row, TextRow) else ""
    completion = mark_special_tokens(text, tokenizer)
    if encoder:
        learned = encode_marked(completion, tokenizer, add_special_tokens=True, decoder=True)
        empty = not encode_marked(completion, tokenizer, decoder=True)
        if tokenizer.eos_token_id in learned and not empty:
            return learned  # a language code may follow the end of text
    else:
        learned = tokenise_continuation(given, completion, tokenizer)
        empty = not learned
    if empty:
        raise UnusableRow(row.line, _field(row), NO_TOKENS)
    return append_end_token(learned, tokenizer)


def _has_learned_token(example: Example, *, encoder: bool) -> bool:
    """Return whether the loss has a term: a decoder-only model does not predict the first token."""
    return any(label != IGNORED_LABEL for label in (example.labels if encoder else example.labels[1:]))


@contextmanager
def _name_row(row: Row) -> Iterator[None]:
    """Raise a `ConversationRefused` of the block as the `UnusableRow` that names this row."""
    try:
        yield
    except ConversationRefused as error:
        raise UnusableRow(row.line, _field(row), str(error)) from error


def _field(row: Row) -> str:
    """Return the name of the row's learned field."""
    return "messages" if isinstance(row, MessagesRow) else "completion" if isinstance(row, PromptRow) else "text"


def _pad_and_stack(rows: Sequence[Sequence[int]], filler: int, positions: int) -> torch.Tensor:
    length = round_up_length(max(len(row) for row in rows), positions)
    return torch.tensor([[*row, *[filler] * (length - len(row))] for row in rows])
