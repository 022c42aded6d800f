"""Target language of a multilingual encoder-decoder model (mBART, NLLB, M2M-100), whose code is part of a target."""

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from greencore.training.data.special_text import special_token_ids


def set_target_language(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Set the tokenizer's target language to that of the configurations in the model's folder.

    Only for a tokenizer with languages and no target language; where the configurations name none either, it uses the
    source language.
    """
    if getattr(tokenizer, "tgt_lang", "") is not None:
        return
    files = [folder / name for name in ("generation_config.json", "config.json")]
    configs: list[Any] = [json.loads(file.read_text()) for file in files if file.is_file()]
    for key in ("forced_bos_token_id", "decoder_start_token_id"):
        for config in configs:
            token = config.get(key)
            if isinstance(token, int) and token in _language_codes(tokenizer):
                code = tokenizer.convert_ids_to_tokens([token])[0]
                tokenizer.tgt_lang = code.removeprefix("__").removesuffix("__")
                return


def get_target_language_settings(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Return the generation setting for the tokenizer's target language; empty without languages.

    The language code follows the decoder's start token (NLLB, M2M-100, mBART-50) or replaces it (mBART, PLBART).
    """
    if not model.config.is_encoder_decoder or getattr(tokenizer, "tgt_lang", None) is None:
        return {}
    tokens, codes = tokenizer(text_target="")["input_ids"], _language_codes(tokenizer)
    if tokens and tokens[0] in codes:
        return {"forced_bos_token_id": int(tokens[0])}
    if tokens and tokens[-1] in codes and model.config.model_type in ("mbart", "plbart"):
        return {"decoder_start_token_id": int(tokens[-1])}
    return {}


def configure_target_language(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Set the target language in the model's generation configuration, which is saved with it."""
    for name, token in get_target_language_settings(model, tokenizer).items():
        setattr(model.generation_config, name, token)


def _language_codes(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Return the special tokens that have no other role."""
    roles = ("bos", "eos", "pad", "unk", "cls", "sep", "mask")
    return special_token_ids(tokenizer) - {getattr(tokenizer, f"{role}_token_id", None) for role in roles}
