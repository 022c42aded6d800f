"""Tokenisation of rows: labels on the completion and the end of text, prompts shortened to the maximum length."""

from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from greencore.dataset import InvalidRow, Message, MessagesRow, PromptRow, Row, TextRow
from greencore.training.data.chat_template import (
    ConversationRefused,
    Messages,
    RenderedTurn,
    find_turn_end_token,
    render_conversation,
    render_last_turn,
)
from greencore.training.data.positions import UNBOUNDED, PositionLimits
from greencore.training.data.prompt_formats import PLAIN, PromptFormat
from greencore.training.data.special_text import encode_marked, mark_special_tokens, remove_marks
from greencore.training.models.loading import ModelError

IGNORED_LABEL = -100
PAD_TO_MULTIPLE = 8
# Texts to encode a completion after where it merges with its prompt: it does not merge with one of them.
ANCHORS = ("\n", ".", "a", "0", ":", "é", "字")


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
    """Tokenised rows, and the numbers of prompts and completions shortened to the maximum length."""

    examples: tuple[Example, ...]
    shortened_prompts: int
    shortened_completions: int


def round_up_length(length: int, positions: int = UNBOUNDED) -> int:
    """Round a length up to a multiple of 8, which is fast on matrix units; at most the model's positions."""
    return max(length, min(-(-length // PAD_TO_MULTIPLE) * PAD_TO_MULTIPLE, positions))


def get_reference_text(
    row: Row, tokenizer: PreTrainedTokenizerBase, prompt_format: PromptFormat = PLAIN, *, ends: Collection[int] = ()
) -> str:
    """Return the reference text of a row: its learned text, decoded as generated text is.

    Without special tokens, up to the first of `ends`, the tokens that generation stops at.
    """
    learned = _render_turn(row, tokenizer, prompt_format).target
    if _to_messages(row, tokenizer, prompt_format) is None:
        return remove_marks(learned)
    tokens = list(takewhile(lambda token: token not in ends, encode_marked(learned, tokenizer)))
    return str(tokenizer.decode(tokens, skip_special_tokens=True)).strip()


def find_turn_end_token_of_rows(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, prompt_format: PromptFormat = PLAIN
) -> int | None:
    """Return the token that ends a turn in the chat template; None where no row uses it, or it has none."""
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
) -> TokenisedRows:
    """Tokenise rows to at most `max_length` tokens, including the end of text.

    The prompt is tokenised by itself, as for generation; the completion's tokens follow (see
    `tokenise_continuation`), then the end of text, unless a chat template ends the turn with a token. A row that
    is too long is shortened in its prompt (see `tokenise_prompt`), then at the end of its completion; both are counted.
    With `encoder` the encoder reads a prompt of up to `max_length` tokens, and the completion has up to as many. Raises
    `ModelError` for a tokenizer without an end of text or a usable chat template, and for plain text with an encoder,
    which has no prompt to read; `UnusableRow` for a conversation that the template rejects, and for a text without
    tokens.
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
        if len(completion) > max_length:
            completions += 1
            code = completion[-1:] if encoder and completion[-1] != tokenizer.eos_token_id else []  # the language code
            completion = [*completion[: max_length - len(code)], *code]
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
    """Return the prompt's tokens for a row, at most `max_length`, and whether the prompt was shortened.

    A prompt in a format is shortened at the end of its source, as in the paper (§4), and so are a conversation of one
    user's turn and an encoder's input; the text around it stays. A plain prompt and a longer conversation are shortened
    at the start, so that the completion still follows their end. The opening token of a text, which the tokenizer or a
    chat template adds, always stays.
    """
    messages = _to_messages(row, tokenizer, prompt_format)
    source = (
        messages[-2].content
        if messages
        else mark_special_tokens(row.prompt, tokenizer)
        if isinstance(row, PromptRow)
        else ""
    )

    def render_prompt(length: int) -> str:
        """Render the prompt with the first `length` characters of its source."""
        part = source if length >= len(source) else source[:length].rstrip()
        if messages:
            with _name_row(row):
                return render_conversation(
                    (*messages[:-2], replace(messages[-2], content=part)), tokenizer, prompt_format.clock
                )
        return prompt_format.wrap(part) if isinstance(row, PromptRow) else ""

    opening = [] if messages or encoder else _get_opening_tokens(tokenizer)

    def encode_prompt(length: int) -> list[int]:
        text = render_prompt(length)
        if encoder:
            tokens = encode_marked(text, tokenizer, add_special_tokens=not messages)
            return tokens if not messages and tokenizer.eos_token_id in tokens else _append_end_token(tokens, tokenizer)
        return [*opening, *encode_marked(text, tokenizer)]

    tokens = encode_prompt(len(source))
    if len(tokens) <= max_length or isinstance(row, TextRow):
        return tokens[:max_length], False
    if messages:
        one_turn = all(message.role == "system" for message in messages[:-2])
    else:
        one_turn = encoder or bool(prompt_format.prefix or prompt_format.suffix)
    if one_turn:
        fitting = bisect_right(range(len(source)), max_length, key=lambda length: len(encode_prompt(length))) - 1
        tokens = encode_prompt(max(fitting, 0))
    opening = [] if encoder else _find_opening_tokens(tokens, tokenizer)[:max_length]
    return [*opening, *tokens[max(len(opening), len(tokens) - max_length + len(opening)) :]], True


def tokenise_continuation(prompt: str, completion: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens of `completion` that follow the unchanged tokens of `prompt`.

    Both are encoded as one text, so that a SentencePiece tokenizer adds no space before the completion, and the tokens
    after the prompt's are returned. Where a token spans the boundary ("a " and "b" as "a", " b"), generation after the
    prompt could not produce it: then the completion is encoded after another text that it does not merge with. Decoded
    together, the prompt's tokens and these give prompt and completion; only where the tokenizer's decoding does not
    restore text, as with whole words, is the completion encoded by itself.
    """
    before, joint = encode_marked(prompt, tokenizer), encode_marked(prompt + completion, tokenizer)
    after = joint[len(before) :]
    # an unknown word absorbs adjacent text, so its end is not a boundary
    if joint[: len(before)] == before and after and (not before or before[-1] != tokenizer.unk_token_id):
        return after
    expected = {_decode(joint, tokenizer), _decode(before, tokenizer) + remove_marks(completion)}
    for anchor in ANCHORS:
        front, both = encode_marked(anchor, tokenizer), encode_marked(anchor + completion, tokenizer)
        after = both[len(front) :]
        if after and both[: len(front)] == front and _decode([*before, *after], tokenizer) in expected:
            return after
    return encode_marked(completion, tokenizer)


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


def _to_messages(row: Row, tokenizer: PreTrainedTokenizerBase, prompt_format: PromptFormat) -> Messages | None:
    """Return a row's conversation, in a chat template also a prompt row's; None for other rows."""
    messages: Messages
    if isinstance(row, MessagesRow):
        messages = row.messages
    elif isinstance(row, PromptRow) and prompt_format.templated:
        messages = (Message("user", row.prompt), Message("assistant", row.completion))
    else:
        return None
    return tuple(replace(message, content=mark_special_tokens(message.content, tokenizer)) for message in messages)


def _render_turn(row: Row, tokenizer: PreTrainedTokenizerBase, prompt_format: PromptFormat) -> RenderedTurn:
    messages = _to_messages(row, tokenizer, prompt_format)
    if messages:
        with _name_row(row):
            return render_last_turn(messages, tokenizer, clock=prompt_format.clock)
    if isinstance(row, PromptRow):
        given = prompt_format.wrap(mark_special_tokens(row.prompt, tokenizer))
        return RenderedTurn(given, mark_special_tokens(row.completion, tokenizer), has_end_token=False)
    assert isinstance(row, TextRow)
    return RenderedTurn("", mark_special_tokens(row.text, tokenizer), has_end_token=False)


def _tokenise_target(
    row: Row, tokenizer: PreTrainedTokenizerBase, prompt_format: PromptFormat, *, encoder: bool
) -> list[int]:
    turn = _render_turn(row, tokenizer, prompt_format)
    if encoder:
        learned = encode_marked(turn.target, tokenizer, add_special_tokens=True, target=True)
        empty = not encode_marked(turn.target, tokenizer, target=True)
        if tokenizer.eos_token_id in learned and not _to_messages(row, tokenizer, prompt_format) and not empty:
            return learned  # a language code may follow the end of text
    else:
        learned = tokenise_continuation(turn.prompt, turn.target, tokenizer)
        empty = not learned
    if empty:
        reason = "gives no tokens with this model's tokenizer, so there is nothing to learn from it"
        raise UnusableRow(row.line, _field(row), reason)
    return learned if turn.has_end_token and not encoder else _append_end_token(learned, tokenizer)


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


def _append_end_token(tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Append the end of text to the tokens, unless the tokenizer has already."""
    end = tokenizer.eos_token_id
    return [*tokens] if tokens and tokens[-1] == end else [*tokens, end]


def _get_opening_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens that the tokenizer puts before every text: Llama's and Gemma's `<s>`, OPT's `</s>`."""
    text, plain = (list(tokenizer("a", add_special_tokens=special)["input_ids"]) for special in (True, False))
    front = next((place for place in range(len(text)) if text[place : place + len(plain)] == plain), 0)
    return text[:front] if set(text[:front]) <= set(tokenizer.all_special_ids) else []


def _find_opening_tokens(tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the opening tokens of a tokenised prompt, added by the tokenizer or the chat template."""
    opening = _get_opening_tokens(tokenizer) or [tokenizer.bos_token_id]
    return opening if list(tokens[: len(opening)]) == opening else []


def _decode(tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    return str(tokenizer.decode(list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False))
