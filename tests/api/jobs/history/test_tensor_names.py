"""Tensor locations from names in real transformers and peft models."""

import pytest

from api.jobs.history.selection import locate_tensor


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.layers.3.mlp.down_proj.weight", (None, 3, "mlp.down_proj")),
        ("model.layers.11.input_layernorm.weight", (None, 11, "input_layernorm")),
        ("model.norm.weight", (None, None, "norm")),
        ("lm_head.weight", (None, None, "lm_head")),
        ("transformer.wte.weight", (None, None, "wte")),
        ("transformer.h.5.attn.c_attn.bias", (None, 5, "attn.c_attn.bias")),
        ("model.decoder.layers.0.self_attn.k_proj.bias", ("decoder", 0, "self_attn.k_proj.bias")),
        ("encoder.block.0.layer.0.SelfAttention.q.weight", ("encoder", 0, "SelfAttention.q")),
        ("decoder.block.2.layer.1.EncDecAttention.v.weight", ("decoder", 2, "EncDecAttention.v")),
        ("encoder.final_layer_norm.weight", ("encoder", None, "final_layer_norm")),
        (
            "base_model.model.model.layers.7.self_attn.q_proj.lora_A.default.weight",
            (None, 7, "self_attn.q_proj.lora_A"),
        ),
        ("prompt_encoder.default.embedding.weight", (None, None, "prompt_encoder.embedding")),
        ("weight", (None, None, "weight")),
    ],
)
def test_a_name_is_parsed_into_stack_block_and_kind(name: str, expected: tuple[str | None, int | None, str]) -> None:
    assert locate_tensor(name) == expected
