"""Tensor locations from names in real transformers and peft models."""

import pytest

from api.jobs.history.selection import TensorLocation, locate_tensor


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.layers.3.mlp.down_proj.weight", TensorLocation(None, 3, "mlp.down_proj")),
        ("model.layers.11.input_layernorm.weight", TensorLocation(None, 11, "input_layernorm")),
        ("model.norm.weight", TensorLocation(None, None, "norm")),
        ("lm_head.weight", TensorLocation(None, None, "lm_head")),
        ("transformer.wte.weight", TensorLocation(None, None, "wte")),
        ("transformer.h.5.attn.c_attn.bias", TensorLocation(None, 5, "attn.c_attn.bias")),
        ("model.decoder.layers.0.self_attn.k_proj.bias", TensorLocation("decoder", 0, "self_attn.k_proj.bias")),
        ("encoder.block.0.layer.0.SelfAttention.q.weight", TensorLocation("encoder", 0, "SelfAttention.q")),
        ("decoder.block.2.layer.1.EncDecAttention.v.weight", TensorLocation("decoder", 2, "EncDecAttention.v")),
        ("encoder.final_layer_norm.weight", TensorLocation("encoder", None, "final_layer_norm")),
        (
            "base_model.model.model.layers.7.self_attn.q_proj.lora_A.default.weight",
            TensorLocation(None, 7, "self_attn.q_proj.lora_A"),
        ),
        ("prompt_encoder.default.embedding.weight", TensorLocation(None, None, "prompt_encoder.embedding")),
        ("weight", TensorLocation(None, None, "weight")),
    ],
)
def test_a_name_is_parsed_into_stack_block_and_kind(name: str, expected: TensorLocation) -> None:
    assert locate_tensor(name) == expected
