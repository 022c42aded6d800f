"""Fixtures: a small model with a word tokenizer, saved as a folder."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from greencore.dataset import PromptRow, Row

WORDS = ["<end>", "<unknown>", *(f"w{number}" for number in range(62))]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("model"))


def small_model(folder: Path, *, layers: int = 3) -> Path:
    """Decoder over 64 words, with random weights; with fewer layers, a selection may leave much of a budget unused."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    words().save_pretrained(folder)
    return folder


def words() -> PreTrainedTokenizerFast:
    """Tokenizer with a token for each of the 64 words."""
    made = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unknown>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>", unk_token="<unknown>")


@pytest.fixture(scope="module", autouse=True)
def _remembered_traces(remembered_traces: None) -> None:
    """See `tests.traces`."""


@pytest.fixture(scope="session")
def rows() -> list[Row]:
    """Rows of 10 to 44 words with the same completion, so that it is learned quickly."""
    draw = torch.Generator().manual_seed(2)
    made: list[Row] = []
    for index in range(18):
        words = [f"w{int(n)}" for n in torch.randint(62, (5 + 2 * index,), generator=draw)]
        made.append(PromptRow(" ".join(words), " w7 w8 w9 w10"))
    return made
