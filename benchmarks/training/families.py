"""Builds tiny random models of every tested model family, from configs."""

from collections.abc import Callable
from typing import Any

from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BloomConfig,
    BloomForCausalLM,
    FalconConfig,
    FalconForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

Builder = Callable[[str], PreTrainedModel]

SPECIAL: dict[str, Any] = {"vocab_size": 96, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
DENSE: dict[str, Any] = {
    **SPECIAL,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
GATED: dict[str, Any] = {**DENSE, "intermediate_size": 80, "num_key_value_heads": 2}
SLIDING: dict[str, Any] = {**GATED, "head_dim": 8, "sliding_window": 6}
MIXED_LAYERS = ["sliding_attention", "full_attention", "full_attention"]
T5: dict[str, Any] = {
    **SPECIAL,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
}
BART: dict[str, Any] = {
    **SPECIAL,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 128,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
}
GPT2: dict[str, Any] = {**SPECIAL, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128}


def _builder(model: type[PreTrainedModel], config: type[PreTrainedConfig], **settings: Any) -> Builder:
    def build(attention: str) -> PreTrainedModel:
        built = model._from_config(config(**settings), attn_implementation=attention)
        assert isinstance(built, PreTrainedModel)
        return built

    return build


FAMILIES: dict[str, Builder] = {
    "opt": _builder(OPTForCausalLM, OPTConfig, **DENSE, word_embed_proj_dim=32, ffn_dim=64),
    "bloom": _builder(BloomForCausalLM, BloomConfig, **SPECIAL, hidden_size=32, n_layer=3, n_head=4),
    "t5": _builder(T5ForConditionalGeneration, T5Config, **T5, feed_forward_proj="relu"),
    "flan-t5": _builder(
        T5ForConditionalGeneration,
        T5Config,
        **T5,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        dropout_rate=0.0,
    ),
    "bart": _builder(BartForConditionalGeneration, BartConfig, **BART),
    "llama": _builder(LlamaForCausalLM, LlamaConfig, **GATED, tie_word_embeddings=False),
    "llama-tied": _builder(LlamaForCausalLM, LlamaConfig, **GATED, tie_word_embeddings=True),
    "qwen2": _builder(Qwen2ForCausalLM, Qwen2Config, **GATED, tie_word_embeddings=True),
    "qwen3": _builder(Qwen3ForCausalLM, Qwen3Config, **GATED, head_dim=8),
    "mistral": _builder(MistralForCausalLM, MistralConfig, **SLIDING),
    "gemma2": _builder(Gemma2ForCausalLM, Gemma2Config, **SLIDING),
    "gemma3": _builder(Gemma3ForCausalLM, Gemma3TextConfig, **SLIDING, layer_types=MIXED_LAYERS),
    "phi": _builder(PhiForCausalLM, PhiConfig, **DENSE, intermediate_size=64),
    "phi3": _builder(Phi3ForCausalLM, Phi3Config, **GATED),
    "falcon": _builder(FalconForCausalLM, FalconConfig, **DENSE, bias=True),
    "gpt2": _builder(GPT2LMHeadModel, GPT2Config, **GPT2, loss_type="ForCausalLM"),
    "gpt-neox": _builder(GPTNeoXForCausalLM, GPTNeoXConfig, **DENSE, intermediate_size=64, use_parallel_residual=True),
    "mixtral": _builder(MixtralForCausalLM, MixtralConfig, **GATED, num_local_experts=4, num_experts_per_tok=2),
}

EAGER_ONLY = ("bloom", "gemma2")
"""Families for which transformers has no fused attention."""


def build_family_model(name: str, attention: str) -> PreTrainedModel:
    """Build a tiny model of the family with random weights; `attention` is "eager" or "sdpa".

    Raises `KeyError` for an unknown family and `ValueError` for "sdpa" where the family is in `EAGER_ONLY`.
    """
    return FAMILIES[name](attention)
