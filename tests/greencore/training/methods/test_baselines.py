"""Tensors that each baseline trains; training, generation and merging with adapters."""

from collections.abc import Callable
from typing import Literal

import pytest
import torch
from peft import LoraConfig, PrefixTuningConfig
from torch import nn
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from greencore.settings.method_settings import LoraSettings
from greencore.training.methods.adapters import merge_adapter, with_adapter
from greencore.training.methods.baselines import Baseline, list_trained_tensors

BLOCKS = 3


def llama(*, tied: bool = True) -> PreTrainedModel:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=BLOCKS,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=tied,
            pad_token_id=0,
            bos_token_id=0,
            eos_token_id=0,
        )
    )


def opt(*, norm_first: bool = True) -> PreTrainedModel:
    return OPTForCausalLM(
        OPTConfig(
            vocab_size=64,
            hidden_size=32,
            word_embed_proj_dim=32,
            ffn_dim=48,
            num_hidden_layers=BLOCKS,
            num_attention_heads=4,
            max_position_embeddings=64,
            do_layer_norm_before=norm_first,
            pad_token_id=1,
            bos_token_id=0,
            eos_token_id=0,
        )
    )


def gpt2() -> PreTrainedModel:
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=64, n_embd=32, n_layer=BLOCKS, n_head=4, n_positions=64, bos_token_id=0, eos_token_id=0)
    )


def bloom() -> PreTrainedModel:
    return BloomForCausalLM(BloomConfig(vocab_size=64, hidden_size=32, n_layer=BLOCKS, n_head=4))


def t5() -> PreTrainedModel:
    """With heads that together are narrower than the model, and a decoder of another depth than the encoder."""
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=64,
            d_model=32,
            d_kv=6,
            d_ff=48,
            num_layers=BLOCKS,
            num_decoder_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            pad_token_id=0,
            eos_token_id=1,
            decoder_start_token_id=0,  # type: ignore[call-arg]
        )
    )


def both(norm: str) -> tuple[str, str]:
    return f"{norm}.weight", f"{norm}.bias"


def names(method: Baseline, model: PreTrainedModel, epoch: int = 0, epochs: int = 1) -> set[str]:
    return set(list_trained_tensors(method, model, epoch=epoch, epochs=epochs))


def test_full_trains_everything_in_the_models_order() -> None:
    model = opt()
    assert list_trained_tensors("full", model, epoch=1, epochs=2) == tuple(name for name, _ in model.named_parameters())


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (llama(), {"model.embed_tokens.weight", "model.norm.weight"}),
        (llama(tied=False), {"lm_head.weight", "model.norm.weight"}),
        (opt(), {f"model.decoder.{name}" for name in ("embed_tokens.weight", *both("final_layer_norm"))}),
        (
            opt(norm_first=False),  # without a last norm of its own, so that the last block's is the last to run
            {
                f"model.decoder.{name}"
                for name in ("embed_tokens.weight", *both(f"layers.{BLOCKS - 1}.final_layer_norm"))
            },
        ),
        (gpt2(), {f"transformer.{name}" for name in ("wte.weight", *both("ln_f"))}),
        (bloom(), {f"transformer.{name}" for name in ("word_embeddings.weight", *both("ln_f"))}),
        (t5(), {"shared.weight", "decoder.final_layer_norm.weight"}),
    ],
)
def test_top2_trains_the_output_embedding_and_the_last_norm(model: PreTrainedModel, expected: set[str]) -> None:
    assert names("top2", model) == expected


def test_bitfit_trains_every_bias_and_nothing_else() -> None:
    model = opt()
    trained = names("bitfit", model)
    assert trained == {name for name, _ in model.named_parameters() if name.endswith(".bias")}
    assert len(trained) == 1 + BLOCKS * 8  # the last norm; q, k, v, out, fc1, fc2 and two norms in each block


@pytest.mark.parametrize("build", [llama, t5])
def test_bitfit_refuses_a_model_without_biases(build: Callable[[], PreTrainedModel]) -> None:
    with pytest.raises(ValueError, match="has no tensor that 'bitfit' trains"):
        names("bitfit", build())


@pytest.mark.parametrize("build", [llama, opt, gpt2, bloom, t5])
def test_layernorm_trains_the_norms_of_every_family(build: Callable[[], PreTrainedModel]) -> None:
    model = build()
    trained = names("layernorm", model)
    words = ("norm", "ln_")
    assert trained == {name for name, _ in model.named_parameters() if any(word in name for word in words)}


@pytest.mark.parametrize(
    ("build", "projections", "number"),
    [
        (llama, ("q_proj", "v_proj"), 2 * BLOCKS),
        (opt, ("q_proj", "v_proj"), 2 * BLOCKS),
        (gpt2, ("c_attn",), BLOCKS),
        (bloom, ("query_key_value",), BLOCKS),
        (t5, ("q", "v"), 2 * (BLOCKS + 2 * 2)),  # the decoder's two blocks attend to themselves and to the encoder
    ],
)
def test_qv_trains_the_query_and_value_weights(
    build: Callable[[], PreTrainedModel], projections: tuple[str, ...], number: int
) -> None:
    trained = names("qv", build())
    assert {name.split(".")[-2] for name in trained} == set(projections)
    assert {name.split(".")[-1] for name in trained} == {"weight"}
    assert len(trained) == number


def test_qv_and_lora_refuse_projections_of_unknown_names() -> None:
    model = llama()
    for layer in model.model.layers:
        layer.self_attn.q, layer.self_attn.q_proj = nn.Identity(), nn.Identity()
        layer.self_attn.v_proj = nn.Identity()
    for attempt in (lambda: names("qv", model), lambda: with_adapter("lora", model)):
        with pytest.raises(ValueError, match="no module named like a query or value projection"):
            attempt()


def test_progressive_expands_from_the_last_block_to_everything() -> None:
    model = opt()
    head = {"model.decoder.embed_tokens.weight", *(f"model.decoder.{name}" for name in both("final_layer_norm"))}
    inside = {
        block: {name for name, _ in model.named_parameters() if f".layers.{block}." in name} for block in range(BLOCKS)
    }
    assert names("progressive", model, 0, 4) == head | inside[2]  # ⌈1/4 · 3⌉ = 1 block
    assert names("progressive", model, 1, 4) == head | inside[2] | inside[1]
    assert names("progressive", model, 2, 4) == head | inside[2] | inside[1] | inside[0]
    assert names("progressive", model, 3, 4) == {name for name, _ in model.named_parameters()}


def test_progressive_goes_through_the_decoder_before_the_encoder() -> None:
    model = t5()  # three blocks, then the decoder's two
    every = {name for name, _ in model.named_parameters()}
    last = {"shared.weight", "decoder.final_layer_norm.weight"}
    decoder = [{name for name in every if name.startswith(f"decoder.block.{block}.")} for block in range(2)]
    encoder = [{name for name in every if name.startswith(f"encoder.block.{block}.")} for block in range(3)]
    between = {"encoder.final_layer_norm.weight"}
    steps = [names("progressive", model, epoch, 5) for epoch in range(5)]
    assert steps[0] == last | decoder[1]
    assert steps[1] == last | decoder[1] | decoder[0]
    assert steps[2] == steps[1] | between | encoder[2]
    assert steps[3] == steps[2] | encoder[1]
    assert steps[4] == every


def test_trained_tensors_can_be_listed_on_the_meta_device() -> None:
    for build in (llama, gpt2, t5):
        with torch.device("meta"):
            skeleton = build()
        for method in ("top2", "qv", "progressive"):
            assert names(method, skeleton, 0, 3) == names(method, build(), 0, 3)


def test_listing_trained_tensors_leaves_the_mode_unchanged() -> None:
    model = opt().train()
    model.model.decoder.layers[1].eval()
    before = torch.get_rng_state()
    names("top2", model)
    assert [module.training for module in (model, *model.model.decoder.layers)] == [True, True, False, True]
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_adapters_unknown_methods_and_epochs_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="with_adapter"):
        names("lora", llama())
    with pytest.raises(ValueError, match="expected one of full, top2"):
        names("top3", llama())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="epoch 2 is outside a run of 2 epochs"):
        names("full", llama(), 2, 2)


@pytest.mark.parametrize("method", ["lora", "prefix"])
@pytest.mark.parametrize("build", [llama, opt, gpt2, t5])
def test_only_the_adapter_learns_and_beam_search_generates(
    method: Literal["lora", "prefix"], build: Callable[[], PreTrainedModel]
) -> None:
    torch.manual_seed(0)
    base = build()
    before = {id(parameter): parameter.clone() for parameter in base.parameters()}
    model = with_adapter(method, base, lora=LoraSettings(dropout=0.0))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert trained
    assert not {id(parameter) for parameter in trained} & set(before)
    ids = torch.randint(2, 64, (2, 9))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    optimizer = torch.optim.AdamW(trained, lr=0.1)
    losses = []
    for _ in range(8):
        loss = model(**batch).loss
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0] - 0.1
    assert all(
        torch.equal(parameter, before[id(parameter)]) for parameter in base.parameters() if id(parameter) in before
    )
    model.eval()
    written = model.generate(  # type: ignore[no-untyped-call]
        input_ids=ids, attention_mask=batch["attention_mask"], num_beams=4, max_new_tokens=5, do_sample=False
    )
    assert written.shape[0] == 2


@pytest.mark.parametrize("build", [llama, opt, gpt2])
def test_a_prefix_gives_the_same_tokens_in_generation_as_in_training(build: Callable[[], PreTrainedModel]) -> None:
    torch.manual_seed(0)
    model = with_adapter("prefix", build(), prefix_tokens=3).eval()
    ids = torch.randint(2, 64, (1, 6))
    padded = torch.cat([torch.ones(1, 2, dtype=torch.long), ids], 1)
    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 1, 1]])
    settings = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
    written = [
        model.generate(input_ids=row, attention_mask=seen, **settings)[0, -4:]  # type: ignore[no-untyped-call]
        for row, seen in ((ids, torch.ones_like(ids)), (padded, mask))
    ]
    assert written[0].tolist() == written[1].tolist()
    for index in range(4):  # token by token without a cache of earlier ones
        context = torch.cat([ids, written[0][None, :index]], 1)
        logits = model(input_ids=context, attention_mask=torch.ones_like(context)).logits[0, -1]
        assert int(logits.argmax()) == int(written[0][index])


def test_a_prefix_is_in_the_decoder_only_with_a_key_and_value_for_each_block() -> None:
    model = with_adapter("prefix", t5(), prefix_tokens=7)
    [prefix] = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert prefix.shape == (7, 2 * 2 * 4 * 6)  # tokens; decoder's blocks, key and value, heads, width
    ids = torch.randint(2, 64, (1, 5))
    model.eval()
    loss = model(input_ids=ids, labels=ids)
    loss.loss.backward()
    assert prefix.grad is not None
    assert bool((prefix.grad.view(7, 4, 24).abs().amax((0, 2)) > 0).all())
    plain = model.get_base_model()(input_ids=ids, labels=ids)
    torch.testing.assert_close(loss.encoder_last_hidden_state, plain.encoder_last_hidden_state)
    assert not torch.allclose(loss.logits, plain.logits)


def test_a_prefix_needs_keys_of_one_shape() -> None:
    model = llama()
    model.model.layers[1].self_attn.k_proj = nn.Linear(32, 32)
    model.model.layers[1].self_attn.v_proj = nn.Linear(32, 32)
    model.model.layers[1].self_attn.num_key_value_groups = 1
    with pytest.raises(ValueError, match=r"different shapes, \[\(2, 8\), \(4, 8\)\]"):
        with_adapter("prefix", model)


@pytest.mark.parametrize("build", [llama, gpt2, t5])
def test_a_merged_adapter_is_the_plain_model_with_the_same_answers(build: Callable[[], PreTrainedModel]) -> None:
    torch.manual_seed(0)
    base = build()
    kinds = {name: type(module) for name, module in base.named_modules()}
    model = with_adapter("lora", base)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    model.eval()
    ids = torch.randint(2, 64, (2, 6))
    expected = model(input_ids=ids, labels=ids).logits
    plain = merge_adapter(model)
    torch.testing.assert_close(plain.eval()(input_ids=ids, labels=ids).logits, expected, rtol=1e-4, atol=1e-5)
    assert {name: type(module) for name, module in plain.named_modules()} == kinds


def test_a_prefix_cannot_be_merged() -> None:
    with pytest.raises(ValueError, match="not part of any weight"):
        merge_adapter(with_adapter("prefix", llama()))


def test_the_defaults_are_those_of_the_papers_implementation() -> None:
    lora = with_adapter("lora", opt()).peft_config["default"]
    assert isinstance(lora, LoraConfig)
    assert (lora.r, lora.lora_alpha, lora.lora_dropout) == (8, 32, 0.1)
    assert set(lora.target_modules or ()) == {"q_proj", "v_proj"}
    prefix = with_adapter("prefix", opt()).peft_config["default"]
    assert isinstance(prefix, PrefixTuningConfig)
    assert prefix.num_virtual_tokens == 20
