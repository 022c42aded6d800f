"""Tokenised rows: what bears the loss, what gives way, how batches are padded."""

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from greencore.dataset import PromptRow, TextRow
from greencore.training.models import load_tokenizer
from greencore.training.rows import IGNORED, Collator, split, tokenise


@pytest.fixture
def tokenizer(model_folder: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(model_folder)


def test_the_loss_is_on_the_completion_and_the_end_of_text(tokenizer: PreTrainedTokenizerBase) -> None:
    [example] = tokenise([PromptRow("w1 w2 w3", " w4 w5")], tokenizer, max_length=16).examples
    assert example.input_ids == (3, 4, 5, 6, 7, 0)
    assert example.labels == (IGNORED, IGNORED, IGNORED, 6, 7, 0)


def test_plain_text_is_learned_whole(tokenizer: PreTrainedTokenizerBase) -> None:
    [example] = tokenise([TextRow("w1 w2")], tokenizer, max_length=16).examples
    assert example.labels == example.input_ids == (3, 4, 0)


def test_a_long_row_loses_the_start_of_its_prompt_first(tokenizer: PreTrainedTokenizerBase) -> None:
    tokens = tokenise([PromptRow("w1 w2 w3 w4", " w5 w6")], tokenizer, max_length=5)
    assert tokens.examples[0].input_ids == (5, 6, 7, 8, 0)
    assert (tokens.shortened_prompts, tokens.shortened_completions) == (1, 0)


def test_a_completion_beyond_the_window_is_cut_and_counted(tokenizer: PreTrainedTokenizerBase) -> None:
    tokens = tokenise([PromptRow("w1", " w2 w3 w4 w5")], tokenizer, max_length=3)
    assert tokens.examples[0].input_ids == (4, 5, 6)
    assert (tokens.shortened_prompts, tokens.shortened_completions) == (1, 1)


def test_a_batch_is_padded_to_its_own_longest_row(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = [PromptRow("w1", " w2"), PromptRow("w1 " * 9, " w2")]
    batch = Collator(0)(tokenise(rows, tokenizer, max_length=64).examples)
    assert batch["input_ids"].shape == (2, 16)
    assert batch["attention_mask"].sum(1).tolist() == [3, 11]
    assert bool((batch["labels"][batch["attention_mask"] == 0] == IGNORED).all())


def test_the_split_is_the_same_every_time_and_loses_no_row() -> None:
    rows = [TextRow(str(number)) for number in range(40)]
    training, held_out = split(rows, eval_share=0.1, seed=1)
    assert (len(training), len(held_out)) == (36, 4)
    assert sorted([*training, *held_out], key=lambda row: int(row.text)) == rows  # type: ignore[union-attr]
    assert split(rows, eval_share=0.1, seed=1) == (training, held_out)
    assert split(rows[:1], eval_share=0.5, seed=1) == (rows[:1], [])
    assert split(rows, eval_share=0.0, seed=1) == (rows, [])


def test_batches_keep_their_rows(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = [PromptRow("w1", " w2"), PromptRow("w3", " w4")]
    examples = tokenise(rows, tokenizer, max_length=16).examples
    batch = Collator(0)(examples)
    for index, example in enumerate(examples):
        assert torch.equal(batch["input_ids"][index, : len(example.input_ids)], torch.tensor(example.input_ids))
