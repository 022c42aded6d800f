"""Builds tiny random models of every tested model family, from configs."""

from typing import Any

from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedConfig, PreTrainedModel

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


FAMILIES: dict[str, dict[str, Any]] = {
    "opt": {"model_type": "opt", **DENSE, "word_embed_proj_dim": 32, "ffn_dim": 64},
    "bloom": {"model_type": "bloom", **SPECIAL, "hidden_size": 32, "n_layer": 3, "n_head": 4},
    "t5": {"model_type": "t5", **T5, "feed_forward_proj": "relu"},
    "flan-t5": {
        "model_type": "t5",
        **T5,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
        "dropout_rate": 0.0,
    },
    "bart": {"model_type": "bart", **BART},
    "llama": {"model_type": "llama", **GATED, "tie_word_embeddings": False},
    "llama-tied": {"model_type": "llama", **GATED, "tie_word_embeddings": True},
    "qwen2": {"model_type": "qwen2", **GATED, "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", **GATED, "head_dim": 8},
    "mistral": {"model_type": "mistral", **SLIDING},
    "gemma2": {"model_type": "gemma2", **SLIDING},
    "gemma3": {"model_type": "gemma3_text", **SLIDING, "layer_types": MIXED_LAYERS},
    "phi": {"model_type": "phi", **DENSE, "intermediate_size": 64},
    "phi3": {"model_type": "phi3", **GATED},
    "falcon": {"model_type": "falcon", **DENSE, "bias": True},
    "gpt2": {"model_type": "gpt2", **GPT2, "loss_type": "ForCausalLM"},
    "gpt-neox": {"model_type": "gpt_neox", **DENSE, "intermediate_size": 64, "use_parallel_residual": True},
    "mixtral": {"model_type": "mixtral", **GATED, "num_local_experts": 4, "num_experts_per_tok": 2},
}

EAGER_ONLY = ("bloom", "gemma2")
"""Families for which transformers has no fused attention."""


def build_family_model(name: str, attention: str) -> PreTrainedModel:
    """Build a tiny model of the family with random weights; `attention` is "eager" or "sdpa".

    Raises `KeyError` for an unknown family and `ValueError` for "sdpa" where the family is in `EAGER_ONLY`.
    """
    return build_model(AutoConfig.for_model(**FAMILIES[name]), attention)


def build_model(config: PreTrainedConfig, attention: str | None = None) -> PreTrainedModel:
    """Build a model of a configuration with random weights."""
    kind: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model = kind.from_config(config, attn_implementation=attention)
    assert isinstance(model, PreTrainedModel)
    return model
