"""Packed rows have the loss of separate rows; models that mix packed rows are refused."""

from collections.abc import Callable

import pytest
import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BloomConfig,
    BloomForCausalLM,
    FalconConfig,
    FalconForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
)

from greencore.training.batches.packing import PackedCollator
from greencore.training.data.tokenisation import IGNORED_LABEL, Collator, Example


def llama(attention: str) -> PreTrainedModel:
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4
    )
    config._attn_implementation = attention
    return LlamaForCausalLM(config)


def gemma() -> PreTrainedModel:
    """A model with sliding-window attention over eight tokens."""
    config = Gemma3TextConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        sliding_window=8,
    )
    return Gemma3ForCausalLM(config)


def opt(attention: str) -> PreTrainedModel:
    config = OPTConfig(
        vocab_size=64,
        hidden_size=32,
        word_embed_proj_dim=32,
        ffn_dim=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
    )
    config._attn_implementation = attention
    return OPTForCausalLM(config)


def falcon() -> PreTrainedModel:
    return FalconForCausalLM(FalconConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4))


def bloom() -> PreTrainedModel:
    return BloomForCausalLM(BloomConfig(vocab_size=64, hidden_size=32, n_layer=2, n_head=4))


def bart() -> PreTrainedModel:
    config = BartConfig(
        vocab_size=64,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_position_embeddings=64,
    )
    return BartForConditionalGeneration(config)


@pytest.fixture
def examples() -> list[Example]:
    draw = torch.Generator().manual_seed(0)
    made = []
    for length, prompt in [(5, 2), (17, 9), (9, 0), (2, 1), (12, 11)]:
        ids = tuple(torch.randint(2, 64, (length,), generator=draw).tolist())
        made.append(Example(ids, (*[IGNORED_LABEL] * prompt, *ids[prompt:])))
    return made


@pytest.mark.parametrize(
    "build",
    [lambda: llama("sdpa"), lambda: llama("eager"), gemma, lambda: opt("sdpa"), lambda: opt("eager"), falcon],
    ids=["llama-sdpa", "llama-eager", "gemma3", "opt-sdpa", "opt-eager", "falcon"],
)
def test_a_packed_batch_has_the_loss_and_gradients_of_its_rows(
    build: Callable[[], PreTrainedModel], examples: list[Example]
) -> None:
    torch.manual_seed(0)
    model = build().eval()
    total, tokens = torch.zeros(()), 0
    for example in examples:
        batch = Collator(0)([example])
        learned = int((batch["labels"][:, 1:] >= 0).sum())
        total = total + learned * model(**batch).loss
        tokens += learned
    (total / tokens).backward()
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    packed = model(**PackedCollator(model, 0)(examples)).loss
    packed.backward()
    assert packed.item() == pytest.approx((total / tokens).item(), rel=1e-6)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-6)


def test_a_packed_row_is_padded_by_an_extra_example(examples: list[Example]) -> None:
    batch = PackedCollator(llama("sdpa"), 1)(examples[:2])
    assert batch["input_ids"].shape == batch["labels"].shape == (1, 24)
    assert batch["position_ids"].tolist() == [[*range(5), *range(17), 0, 1]]
    assert batch["input_ids"][0, 22:].tolist() == [1, 1]
    assert batch["labels"][0, [0, 5, 22, 23]].tolist() == [IGNORED_LABEL] * 4


@pytest.mark.parametrize("build", [bloom, bart])
def test_a_model_without_position_ids_is_refused(build: Callable[[], PreTrainedModel]) -> None:
    with pytest.raises(ValueError, match="takes no positions: pad them with Collator"):
        PackedCollator(build(), 0)


def test_a_model_that_mixes_packed_rows_is_refused() -> None:
    model = llama("sdpa")
    model.model.layers[0].register_forward_hook(lambda _, inputs, output: output + output.mean(1, keepdim=True))
    with pytest.raises(ValueError, match="attend across them"):
        PackedCollator(model, 0)


def test_a_meta_model_cannot_be_tested() -> None:
    with torch.device("meta"), pytest.raises(ValueError, match="holds no weights"):
        PackedCollator(llama("sdpa"), 0)


def test_the_test_leaves_the_model_in_training_mode() -> None:
    model = llama("sdpa").train()
    model.model.layers[1].eval()
    PackedCollator(model, 0)
    assert [module.training for module in (model, *model.model.layers)] == [True, True, False]
