"""Small decoders of the two families that the suite trains for real."""

from collections.abc import Callable

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM, PreTrainedConfig, PreTrainedModel

from greencore.backprop import Profile, profile


def built(family: type[PreTrainedModel], config: PreTrainedConfig, attention: str) -> PreTrainedModel:
    model = family._from_config(config, attn_implementation=attention)
    assert isinstance(model, PreTrainedModel)
    return model


def llama(attention: str = "sdpa", *, tied: bool = False) -> PreTrainedModel:
    config = LlamaConfig(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=80,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
    )
    return built(LlamaForCausalLM, config, attention)


def opt(attention: str = "sdpa") -> PreTrainedModel:
    config = OPTConfig(
        vocab_size=96,
        hidden_size=32,
        word_embed_proj_dim=32,
        ffn_dim=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=64,
    )
    return built(OPTForCausalLM, config, attention)


MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": llama,
    "llama-tied": lambda: llama(tied=True),
    "llama-eager": lambda: llama("eager"),
    "opt": opt,
    "opt-eager": lambda: opt("eager"),
}


@pytest.fixture(params=MODELS, scope="module")
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return MODELS[family]()


def a_batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 96, (2, 12), generator=generator)
    return {"input_ids": ids, "labels": ids.clone()}


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    return a_batch()


@pytest.fixture(scope="module")
def costs(family: str) -> Profile:
    """The profile of `model` at `batch`."""
    return profile(MODELS[family](), a_batch())
