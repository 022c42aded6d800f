"""Preview of rows: the text of their examples, with the tokens that are learned marked, and the rows' errors."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from transformers import PreTrainedTokenizerBase

from greencore.dataset import Row
from greencore.settings.value_types import TrainOn
from greencore.training.data.prompt_formats import PLAIN, PromptFormat
from greencore.training.data.tokenisation import IGNORED_LABEL, Example, UnusableRow, tokenise_rows

MAX_EXAMPLES = 20  # of a row
MAX_TOKENS = 4000  # of a row's examples together


@dataclass(frozen=True)
class Segment:
    """Consecutive tokens of an example that are all learned, or all only read, decoded."""

    text: str
    tokens: int
    learned: bool


@dataclass(frozen=True)
class RowPreview:
    """Examples of a row as segments, and the number of its tokens in all and of those that are learned.

    `examples` are the first ones, cut at `MAX_TOKENS` tokens, where `is_cut`; empty for a row of which nothing is
    learned. `error` says why the model cannot use the row.
    """

    line: int
    examples: tuple[tuple[Segment, ...], ...] = ()
    tokens: int = 0
    learned_tokens: int = 0
    is_cut: bool = False
    error: str | None = None


def preview_rows(
    rows: Iterable[Row],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    prompt_format: PromptFormat = PLAIN,
    encoder: bool = False,
    train_on: TrainOn = "assistant",
) -> list[RowPreview]:
    """Return the previews of rows, tokenised as for training (see `tokenise_rows`).

    An encoder's example is what it reads, and then what its decoder learns to write. Raises `ModelError` for a
    tokenizer that can tokenise none of the rows; an error of one row is part of its preview.
    """
    found = []
    for row in rows:
        try:
            examples = tokenise_rows(
                [row],
                tokenizer,
                max_length=max_length,
                prompt_format=prompt_format,
                encoder=encoder,
                train_on=train_on,
            ).examples
        except UnusableRow as error:
            found.append(RowPreview(row.line, error=f"{error.field}: {error.message}"))
            continue
        found.append(_preview_examples(row.line, examples, tokenizer, encoder=encoder))
    return found


def _preview_examples(
    line: int, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, *, encoder: bool
) -> RowPreview:
    marked = [_mark_tokens(example, encoder=encoder) for example in examples]
    shown, room = [], MAX_TOKENS
    for tokens in marked[:MAX_EXAMPLES]:
        if room:
            shown.append(_join_segments(tokens[:room], tokenizer))
            room -= min(room, len(tokens))
    total = sum(map(len, marked))
    return RowPreview(
        line,
        tuple(shown),
        tokens=total,
        learned_tokens=sum(learned for tokens in marked for _, learned in tokens),
        is_cut=sum(segment.tokens for example in shown for segment in example) < total,
    )


def _mark_tokens(example: Example, *, encoder: bool) -> list[tuple[int, bool]]:
    """Return the example's tokens, each with whether it is learned."""
    if encoder:
        return [*((token, False) for token in example.input_ids), *((token, True) for token in example.labels)]
    pairs = zip(example.input_ids, example.labels, strict=True)
    return [(token, label != IGNORED_LABEL) for token, label in pairs]


def _join_segments(tokens: Sequence[tuple[int, bool]], tokenizer: PreTrainedTokenizerBase) -> tuple[Segment, ...]:
    """Return the segments of marked tokens; their texts together are the decoded tokens."""
    found, before, text = [], [], ""
    for learned, group in groupby(tokens, key=lambda token: token[1]):
        added = [token for token, _ in group]
        before += added
        whole = str(tokenizer.decode(before, skip_special_tokens=False, clean_up_tokenization_spaces=False))
        # a segment alone may lose the space that it begins with
        part = whole[len(text) :] if whole.startswith(text) else str(tokenizer.decode(added))
        found.append(Segment(part, len(added), learned))
        text = whole
    return tuple(found)
