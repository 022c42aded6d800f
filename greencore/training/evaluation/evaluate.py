"""Evaluation of a model on rows: mean token loss, and ROUGE of generated completions."""

import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from greencore.dataset import PromptRow, Row, TextRow
from greencore.training.batches.batch_shapes import is_encoder_decoder
from greencore.training.batches.learned_positions import LearnedPositionsCollator, get_targets
from greencore.training.batches.micro_batches import Collate
from greencore.training.batches.positions import UNBOUNDED, get_position_limits
from greencore.training.data.end_of_text import choose_padding_token_id, end_token_ids
from greencore.training.data.prompt_formats import PLAIN, PromptFormat
from greencore.training.data.target_language import get_target_language_settings
from greencore.training.data.tokenisation import Collator, TokenisedRows, get_reference_text, to_device, tokenise_prompt
from greencore.training.evaluation.rouge import compute_rouge
from greencore.training.evaluation.token_loss import count_correct_tokens, sum_token_loss
from greencore.training.methods.modes import in_mode

BEAMS, DEFAULT_NEW_TOKENS = 4, 64  # paper §4, for SciTLDR; DialogSum's summaries have up to 128 tokens


@dataclass(frozen=True)
class Evaluation:
    """Mean loss per learned token (nats), mean ROUGE F1 in per cent (None where no row has a prompt), and row count.

    `accuracy` is the share of learned tokens that the model ranks first, given those before; None in results of earlier
    versions.
    """

    loss: float
    rouge: dict[str, float] | None
    rows: int
    accuracy: float | None = None

    @property
    def perplexity(self) -> float:
        """Perplexity exp(loss) per learned token; infinity where it overflows."""
        try:
            return math.exp(self.loss)
        except OverflowError:
            return math.inf


@dataclass(frozen=True)
class TokenScores:
    """Mean loss per learned token in nats, and the share of learned tokens that the model ranks first."""

    loss: float
    accuracy: float


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    tokenised: TokenisedRows,
    *,
    batch_size: int,
    max_new_tokens: int = DEFAULT_NEW_TOKENS,
    beams: int = 1,
    prompt_format: PromptFormat = PLAIN,
    max_prompt_length: int | None = None,
    references: Sequence[Sequence[str]] | None = None,
) -> Evaluation:
    """Evaluate held-out rows and their tokenised form, with greedy decoding or beam search (deterministic).

    Prompts are put in `prompt_format` and shortened as in training, to `max_prompt_length` tokens (by default the
    length that the model was trained at), and to the model's positions less `max_new_tokens`. `references` are the
    reference texts of each of `rows`, by default its completion (see `greencore.training.evaluation.rouge`).
    """
    scores = score_tokens(model, tokenizer, tokenised, batch_size=batch_size)
    rouge = evaluate_completions(
        model,
        tokenizer,
        rows,
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        beams=beams,
        prompt_format=prompt_format,
        max_prompt_length=max_prompt_length,
        references=references,
    )
    return Evaluation(scores.loss, rouge, len(rows), scores.accuracy)


def has_prompt(row: Row) -> bool:
    """Return whether a completion can be generated for a row."""
    return not isinstance(row, TextRow)


def evaluate_completions(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    *,
    batch_size: int,
    max_new_tokens: int = DEFAULT_NEW_TOKENS,
    beams: int = 1,
    prompt_format: PromptFormat = PLAIN,
    max_prompt_length: int | None = None,
    references: Sequence[Sequence[str]] | None = None,
    max_seconds: float | None = None,
) -> dict[str, float] | None:
    """Return the mean ROUGE F1 in per cent of completions generated as in `evaluate`; None where no row has a prompt.

    After `max_seconds` the completions are scored as far as they are generated.
    """
    asked = [index for index, row in enumerate(rows) if has_prompt(row)]
    if not asked:
        return None
    written = generate_completions(
        model,
        tokenizer,
        [rows[index] for index in asked],
        max_new_tokens=max_new_tokens,
        beams=beams,
        prompt_format=prompt_format,
        max_prompt_length=max_prompt_length,
        batch_size=batch_size,
        max_seconds=max_seconds,
    )
    ends = end_token_ids(model, tokenizer)
    expected: list[str | Sequence[str]] = [
        get_reference_text(rows[index], tokenizer, prompt_format, ends=ends)
        if references is None
        else references[index]
        for index in asked
    ]
    return compute_rouge(expected, written)


@torch.inference_mode()
def generate_completions(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str | Row],
    *,
    max_new_tokens: int = DEFAULT_NEW_TOKENS,
    beams: int = 1,
    prompt_format: PromptFormat = PLAIN,
    max_prompt_length: int | None = None,
    batch_size: int | None = None,
    max_seconds: float | None = None,
) -> list[str]:
    """Generate a completion for each prompt, or row's prompt, in `prompt_format`, up to the end of text.

    Decoding is greedy, or by beam search with `beams` beams, of at most `max_new_tokens` tokens; prompts are shortened
    to `max_prompt_length` tokens and the model's remaining positions. Prompts are batched by length, which pads least:
    `batch_size` at a time, by default all. After `max_seconds` each completion ends with its next token.
    """
    deadline = math.inf if max_seconds is None else time.monotonic() + max_seconds
    longest, max_new_tokens = _compute_token_limits(model, max_new_tokens, max_prompt_length)
    tokens = []
    for prompt in prompts:
        row = PromptRow(prompt, "") if isinstance(prompt, str) else prompt
        prompt_tokens, _ = tokenise_prompt(
            row, tokenizer, max_length=longest, prompt_format=prompt_format, encoder=is_encoder_decoder(model)
        )
        tokens.append(prompt_tokens or [tokenizer.eos_token_id])  # the end of text also precedes a text's start
    written = [""] * len(tokens)
    order = sorted(range(len(tokens)), key=lambda index: len(tokens[index]))
    batch_size = batch_size or max(1, len(order))
    with in_mode(model, training=False):
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            texts = _generate_batch(
                model, tokenizer, [tokens[index] for index in batch], max_new_tokens, beams, deadline=deadline
            )
            for index, text in zip(batch, texts, strict=True):
                written[index] = text
    return written


@torch.inference_mode()
def score_tokens(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tokenised: TokenisedRows,
    *,
    batch_size: int,
    learned_only: bool = False,
) -> TokenScores:
    """Return the scores of all learned tokens, without other terms of the model's loss.

    With `learned_only` the model computes the logits of learned positions alone.
    """
    collate: Collate = Collator(choose_padding_token_id(model, tokenizer), get_position_limits(model))
    if learned_only:
        collate = LearnedPositionsCollator(collate)
    encoder = is_encoder_decoder(model)
    total, correct, tokens = 0.0, 0, 0
    with in_mode(model, training=False):
        for start in range(0, len(tokenised.examples), batch_size):
            batch = to_device(collate(tokenised.examples[start : start + batch_size]), model.device)
            logits, targets = model(**batch).logits, get_targets(batch, encoder=encoder)
            loss, learned = sum_token_loss(logits, targets)
            total += float(loss)
            correct += count_correct_tokens(logits, targets)
            tokens += learned
    return TokenScores(total / tokens, correct / tokens)


def _generate_batch(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    beams: int,
    *,
    deadline: float,
) -> list[str]:
    encoder, pad = model.config.is_encoder_decoder, choose_padding_token_id(model, tokenizer)
    ends = end_token_ids(model, tokenizer)
    length = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), length), pad)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        # a decoder continues at the prompt's end, so it is padded on the left
        place = slice(0, len(prompt)) if encoder else slice(length - len(prompt), length)
        ids[row, place] = torch.tensor(prompt, dtype=torch.long)
        mask[row, place] = 1
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*do_sample.*")  # the model's sampling defaults are unused
        tokens = model.generate(  # type: ignore[operator]
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            max_new_tokens=max_new_tokens,
            num_beams=beams,
            do_sample=False,
            pad_token_id=pad,
            eos_token_id=ends,
            max_time=None if deadline == math.inf else max(0.0, deadline - time.monotonic()),
            **get_target_language_settings(model, tokenizer),
        )
    start = 1 if encoder else length  # an encoder-decoder's output begins with the decoder's start token
    written = [list(takewhile(lambda token: token not in ends, row)) for row in tokens[:, start:].tolist()]
    return [str(text) for text in tokenizer.batch_decode(written, skip_special_tokens=True)]


def _compute_token_limits(
    model: PreTrainedModel, max_new_tokens: int, max_prompt_length: int | None = None
) -> tuple[int, int]:
    """Return the maximum numbers of prompt tokens and of generated tokens.

    A decoder's positions are shared by both; generated tokens have at most half. Rotary and relative positions are
    unbounded; there a prompt without `max_prompt_length` is limited to the length that the model was trained at.
    """
    positions, encoder = get_position_limits(model), bool(model.config.is_encoder_decoder)
    written = min(max_new_tokens, max(1, positions.output_tokens if encoder else positions.output_tokens // 2))
    prompt = (
        positions.input_tokens if encoder or positions.input_tokens == UNBOUNDED else positions.input_tokens - written
    )
    if max_prompt_length is None:
        trained = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        if isinstance(trained, int):
            max_prompt_length = trained if encoder else max(1, trained - written)
    return min(prompt, max_prompt_length or UNBOUNDED), written
