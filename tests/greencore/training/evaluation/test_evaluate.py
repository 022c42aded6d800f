"""Evaluation: mean token loss, greedy and beam-search generation, and scores."""

import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase, T5Config, T5ForConditionalGeneration

from greencore.dataset import PromptRow, Row, TextRow
from greencore.training.data.prompt_formats import SUMMARIZE, TLDR
from greencore.training.data.tokenisation import tokenise_rows
from greencore.training.evaluation.evaluate import Evaluation, evaluate, generate_completions, score_tokens
from greencore.training.evaluation.rouge import compute_rouge
from greencore.training.models.loading import load_model, load_tokenizer


@pytest.fixture
def tokenizer(model_folder: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(model_folder)


@pytest.fixture
def model(model_folder: Path) -> PreTrainedModel:
    return load_model(model_folder)


@pytest.fixture
def encoder_decoder() -> PreTrainedModel:
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=64,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        pad_token_id=0,
        eos_token_id=0,
        decoder_start_token_id=0,  # type: ignore[call-arg]
    )
    return T5ForConditionalGeneration(config)


@pytest.fixture
def opinionated(model: PreTrainedModel) -> PreTrainedModel:
    """Model whose head prefers some words strongly, and never the end or an unknown word."""
    torch.manual_seed(1)
    model.lm_head.weight = torch.nn.Parameter(torch.randn(64, 64) / 4)
    model.generation_config.suppress_tokens = [0, 1]
    model.eval()
    return model


def log_probabilities(model: PreTrainedModel, prompts: list[list[int]]) -> torch.Tensor:
    """Return [prompt, word], the log-probability of each next word."""
    with torch.no_grad():
        scores = torch.as_tensor(model(input_ids=torch.tensor(prompts)).logits[:, -1]).log_softmax(-1)
    scores[:, :2] = -torch.inf
    return scores


def test_as_many_beams_as_words_find_the_most_likely_continuation(
    opinionated: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    greedily = 0
    for prompt in ([number, number + 1, 3] for number in range(4, 20)):
        first = log_probabilities(opinionated, [prompt])[0]
        second = log_probabilities(opinionated, [[*prompt, word] for word in range(64)])
        likeliest = int((first[:, None] + second).argmax())
        text = tokenizer.decode(prompt)
        [searched] = generate_completions(opinionated, tokenizer, [str(text)], max_new_tokens=2, beams=62)
        assert searched == tokenizer.decode([likeliest // 64, likeliest % 64])
        greedily += generate_completions(opinionated, tokenizer, [str(text)], max_new_tokens=2) == [searched]
    assert greedily < 16  # which misses some


def test_beam_search_is_deterministic(opinionated: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    opinionated.generation_config.do_sample = True
    opinionated.generation_config.temperature = 9.0
    for beams in (1, 4):
        once, again = (generate_completions(opinionated, tokenizer, ["w1 w2", "w3"], beams=beams) for _ in range(2))
        assert once == again


@pytest.mark.parametrize("beams", [1, 3])
def test_generation_does_not_depend_on_the_batch(
    model: PreTrainedModel,
    encoder_decoder: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    beams: int,
) -> None:
    prompts = ["w1", "w2 w3 w4 w5 w6 w7 w8", "w9 w10 w11", "w12 w13"]
    for one in (model, encoder_decoder):
        together = generate_completions(one, tokenizer, prompts, max_new_tokens=5, beams=beams)
        alone = [generate_completions(one, tokenizer, [prompt], max_new_tokens=5, beams=beams)[0] for prompt in prompts]
        assert together == alone


def test_an_empty_prompt_starts_from_the_end_of_text(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    written = generate_completions(model, tokenizer, ["", "w1"], max_new_tokens=3)[0]
    end = torch.tensor([[tokenizer.eos_token_id]])
    after = model.generate(end, attention_mask=torch.ones_like(end), max_new_tokens=3, do_sample=False)  # type: ignore
    assert written == tokenizer.decode(after[0, 1:], skip_special_tokens=True)


def test_a_prompt_is_shortened_to_leave_room_for_generation(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    model.config.max_position_embeddings = 12
    long = " ".join(f"w{number}" for number in range(40))
    [written], [short] = (
        generate_completions(model, tokenizer, [prompt], max_new_tokens=4)
        for prompt in (long, " ".join(long.split()[-8:]))
    )
    assert written == short


def test_the_loss_is_the_mean_over_learned_tokens(
    model: PreTrainedModel, encoder_decoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    rows = [PromptRow("w1 w2 w3", "w4 w5"), PromptRow("w6", "w7 w8 w9 w10 w11 w12"), PromptRow("w13 w14 " * 9, "w15")]
    for one in (model, encoder_decoder):
        encoder = one is encoder_decoder
        tokenised = tokenise_rows(rows, tokenizer, max_length=64, encoder=encoder)
        expected, tokens = 0.0, 0
        for example in tokenised.examples:
            ids, labels = torch.tensor([example.input_ids]), torch.tensor([example.labels])
            with torch.no_grad():
                logits = one.eval()(input_ids=ids, labels=labels).logits[0]
            logits, targets = (logits, labels[0]) if encoder else (logits[:-1], labels[0, 1:])
            expected += float(functional.cross_entropy(logits, targets, reduction="sum"))
            tokens += int((targets >= 0).sum())
        assert tokens == 3 + 7 + 2
        for batch_size in (1, 2, 3):
            loss = score_tokens(one, tokenizer, tokenised, batch_size=batch_size).loss
            assert loss == pytest.approx(expected / tokens, rel=1e-5)


def test_perplexity_is_of_the_mean_loss() -> None:
    assert Evaluation(math.log(7), None, 1).perplexity == pytest.approx(7)
    assert Evaluation(1e4, None, 1).perplexity == math.inf
    assert math.isnan(Evaluation(math.nan, None, 1).perplexity)


def test_an_evaluation_generates_in_the_rows_format(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    long = " ".join(f"w{number}" for number in range(9))
    rows: list[Row] = [TextRow("w1 w2 w3"), PromptRow("w1 w2", "w3"), PromptRow(long, "w4 w5")]
    tokenised = tokenise_rows(rows, tokenizer, max_length=32, prompt_format=TLDR)
    settings = {"batch_size": 2, "max_new_tokens": 3, "prompt_format": TLDR, "max_prompt_length": 6}
    prompts = ["w1 w2 TL;DR:", "w0 w1 w2 w3 w4 TL;DR:"]
    for beams in (1, 2):
        written = generate_completions(model, tokenizer, prompts, max_new_tokens=3, beams=beams)
        references = [["w60"], [written[0], "w61"], [f"w62 w63 {written[1]}"]]
        result = evaluate(model, tokenizer, rows, tokenised, **settings, beams=beams, references=references)  # type: ignore[arg-type]
        assert result.rouge == compute_rouge(references[1:], written)
        assert result.rows == 3
        assert result.loss == score_tokens(model, tokenizer, tokenised, batch_size=2).loss
        plain = evaluate(model, tokenizer, rows, tokenised, **settings, beams=beams)  # type: ignore[arg-type]
        assert plain.rouge == compute_rouge(["w3", "w4 w5"], written)


def test_an_encoder_decoder_model_is_evaluated(
    encoder_decoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    rows = [PromptRow("w1 w2 w3", "w4 w5"), PromptRow("w6", "w7")]
    tokenised = tokenise_rows(rows, tokenizer, max_length=16, prompt_format=SUMMARIZE, encoder=True)
    written = generate_completions(encoder_decoder, tokenizer, [SUMMARIZE.wrap(row.prompt) for row in rows], beams=4)
    result = evaluate(
        encoder_decoder,
        tokenizer,
        rows,
        tokenised,
        batch_size=2,
        beams=4,
        prompt_format=SUMMARIZE,
        references=[[text, "nothing"] for text in written],
    )
    assert all(written)
    assert result.rouge == compute_rouge(written, written)


def test_rows_without_a_prompt_have_a_loss_and_no_rouge(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    rows = [TextRow("w1 w2 w3"), TextRow("w4")]
    result = evaluate(model, tokenizer, rows, tokenise_rows(rows, tokenizer, max_length=16), batch_size=2)
    assert result.rouge is None
    assert result.loss > 0
