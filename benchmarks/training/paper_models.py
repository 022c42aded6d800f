"""Builds the paper's models at full size, and two Llamas, from configs on the meta device, without memory."""

from collections.abc import Callable, Mapping

import torch
from transformers import BloomConfig, LlamaConfig, OPTConfig, PreTrainedConfig, PreTrainedModel, T5Config

from benchmarks.training.families import build_model
from greencore.backprop import Profile, profile

BATCH, TOKENS = 4, 512
TARGET = 64  # target tokens of FLAN-T5: the paper's generation length on SciTLDR


def _opt(layers: int, width: int, heads: int, *, embedded: int | None = None) -> PreTrainedModel:
    return _on_meta(
        OPTConfig(
            vocab_size=50272,
            hidden_size=width,
            ffn_dim=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            word_embed_proj_dim=embedded or width,
            do_layer_norm_before=embedded is None,  # OPT-350M alone embeds narrowly and normalises afterwards
            max_position_embeddings=2048,
        ),
    )


def _bloomz_3b() -> PreTrainedModel:
    return _on_meta(BloomConfig(vocab_size=250880, hidden_size=2560, n_layer=30, n_head=32))


def _flan_t5_xl() -> PreTrainedModel:
    config = T5Config(
        vocab_size=32128,
        d_model=2048,
        d_kv=64,
        d_ff=5120,
        num_layers=24,
        num_heads=32,
        feed_forward_proj="gated-gelu",
    )
    config.decoder_start_token_id = config.pad_token_id = 0
    config.tie_word_embeddings = False  # the constructor ignores this argument
    model = _on_meta(config)
    model.set_input_embeddings(model.get_input_embeddings())  # encoder and decoder still share theirs
    return model


def _llama(layers: int, *, vocabulary: int, width: int, inner: int, heads: int, tied: bool) -> PreTrainedModel:
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 3,
        tie_word_embeddings=tied,
    )
    return _on_meta(config)


def _on_meta(config: PreTrainedConfig) -> PreTrainedModel:
    with torch.device("meta"):
        return build_model(config)


MODELS: Mapping[str, Callable[[], PreTrainedModel]] = {
    "OPT-350M": lambda: _opt(24, 1024, 16, embedded=512),
    "OPT-1.3B": lambda: _opt(24, 2048, 32),
    "OPT-2.7B": lambda: _opt(32, 2560, 32),
    "OPT-6.7B": lambda: _opt(32, 4096, 32),
    "BLOOMZ-3B": _bloomz_3b,
    "FLAN-T5-XL": _flan_t5_xl,
    "SmolLM2-135M": lambda: _llama(30, vocabulary=49152, width=576, inner=1536, heads=9, tied=True),
    "a Llama of 166 layers": lambda: _llama(166, vocabulary=32000, width=2304, inner=6144, heads=18, tied=False),
}


def profile_model(name: str, *, target: int = TARGET) -> Profile:
    """Profile a training step of a model; `target` is the length of an encoder-decoder's labels."""
    model = MODELS[name]()
    ids = torch.zeros(BATCH, TOKENS, dtype=torch.long, device="meta")
    labels = torch.zeros(BATCH, target, dtype=torch.long, device="meta") if model.config.is_encoder_decoder else ids
    return profile(model, {"input_ids": ids, "labels": labels})
