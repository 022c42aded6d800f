"""Tiny models of several families, saved as folders under the names that transformers publishes."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from tests.greencore.training.conftest import WORDS, words

SPECIAL: dict[str, Any] = {"vocab_size": len(WORDS), "bos_token_id": None, "eos_token_id": 0, "pad_token_id": 0}
DENSE: dict[str, Any] = {
    **SPECIAL,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
ROUTED: dict[str, Any] = {**DENSE, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", **DENSE, "tie_word_embeddings": False},
    "gpt2": {"model_type": "gpt2", **SPECIAL, "n_embd": 32, "n_layer": 1, "n_head": 4, "n_positions": 512},
    "t5": {
        "model_type": "t5",
        **SPECIAL,
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 48,
        "num_layers": 1,
        "num_heads": 4,
        "decoder_start_token_id": 0,
    },
    "mixtral": {"model_type": "mixtral", **DENSE, "num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2-moe": {"model_type": "qwen2_moe", **ROUTED, "shared_expert_intermediate_size": 24},
    "qwen3-moe": {"model_type": "qwen3_moe", **ROUTED, "head_dim": 8},
    "olmoe": {"model_type": "olmoe", **DENSE, "num_experts": 4, "num_experts_per_tok": 2},
    "phi-moe": {"model_type": "phimoe", **DENSE, "num_local_experts": 4, "num_experts_per_tok": 2},
    "gemma3": {
        "model_type": "gemma3",
        "text_config": {**DENSE, "head_dim": 8, "sliding_window": 6},
        "vision_config": VISION,
        "mm_tokens_per_image": 4,
        "image_token_index": 61,
        "boi_token_index": 60,
        "eoi_token_index": 59,
        "eos_token_id": 0,
        "pad_token_id": 0,
    },
}


def family_folder(name: str, folder: Path, **settings: Any) -> Path:
    """Write a folder with a model of a family, with random weights and the small model's words."""
    torch.manual_seed(0)
    settings = {**FAMILIES[name], **settings}
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    kind: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    kind.from_config(config).save_pretrained(folder)
    words().save_pretrained(folder)
    return folder
