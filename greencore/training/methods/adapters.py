"""LoRA and prefix tuning, the paper's adapter baselines (§4); a module apart, since peft takes seconds to import."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from peft import (
    LoraConfig,
    PeftConfig,
    PeftModel,
    PeftModelForSeq2SeqLM,
    PrefixTuningConfig,
    TaskType,
    get_peft_model,
    set_peft_model_state_dict,
)
from safetensors.torch import load_file
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from greencore.settings.method_settings import LoraSettings
from greencore.training.batches.positions import PREFIX_TOKENS
from greencore.training.methods.baselines import BaselineError, forward_one_token
from greencore.training.methods.lora_targets import resolve_lora_targets
from greencore.training.models.weights import WeightsMismatch


def with_adapter(
    method: Literal["lora", "prefix"],
    model: PreTrainedModel,
    *,
    lora: LoraSettings | None = None,
    prefix_tokens: int = PREFIX_TOKENS,
) -> PeftModel:
    """Freeze the model and add a trainable adapter; the defaults are those of the paper's own implementation.

    lora (Hu et al., 2021): W + alpha / rank · BA on the query and value projections, or on the tensor that fuses
        them, with dropout before A; or as the settings `lora` say, with alpha / √rank where they are rank-stabilised.
    prefix (Li & Liang, 2021): `prefix_tokens` trained keys and values before those of each block; of an
        encoder-decoder model in the decoder's self-attention only (§4).

    The model is changed in place. Raises `BaselineError` for a model without such a projection, or whose blocks cache
    keys of different shapes, and `SettingUnsupported` for a target that the model does not have.
    """
    task = TaskType.SEQ_2_SEQ_LM if model.config.is_encoder_decoder else TaskType.CAUSAL_LM
    if method == "lora":
        chosen = lora or LoraSettings()
        settings: PeftConfig = LoraConfig(
            task_type=task,
            r=chosen.rank,
            lora_alpha=chosen.alpha,
            lora_dropout=chosen.dropout,
            use_rslora=chosen.rank_stabilised,
            target_modules=resolve_lora_targets(model, chosen.targets),
            fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        )
        adapted: Callable[..., PeftModel] = get_peft_model
    else:
        layers, heads, width = _get_key_cache_shape(model)
        settings = PrefixTuningConfig(
            task_type=task,
            num_virtual_tokens=prefix_tokens,
            num_transformer_submodules=1,
            num_layers=layers,
            num_attention_heads=heads,
            token_dim=heads * width,
        )
        adapted = _DecoderPrefix if model.config.is_encoder_decoder else get_peft_model
    with warnings.catch_warnings():
        # peft calls it by a name that transformers has deprecated
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        return adapted(model, settings)


def merge_adapter(model: PeftModel) -> PreTrainedModel:
    """Merge the LoRA adapter into the weights and return the plain model. Raises `BaselineError` for a prefix."""
    if model.active_peft_config.is_prompt_learning:
        raise BaselineError("a prefix is not part of any weight, so it cannot be merged: save it with save_pretrained")
    plain = model.merge_and_unload()
    assert isinstance(plain, PreTrainedModel)
    return plain


def load_adapter(model: PeftModel, folder: Path) -> None:
    """Load the adapter's weights from a folder of `save_pretrained`. Raises `WeightsMismatch`."""
    file = folder / "adapter_model.safetensors"
    if not file.is_file():
        raise WeightsMismatch("it holds no adapter")
    tensors = load_file(file)
    prefix = model.active_peft_config.is_prompt_learning  # peft lists it as missing even where it was loaded
    if prefix and "prompt_embeddings" not in tensors:
        raise WeightsMismatch("it holds no prefix")
    found: Any = set_peft_model_state_dict(model, tensors)
    if prefix:
        return
    own = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    if lacking := sorted(own & set(found.missing_keys)):
        raise WeightsMismatch(f"it lacks {len(lacking)} of the adapter's {len(own)} tensors, such as {lacking[0]}")


class _DecoderPrefix(PeftModelForSeq2SeqLM):
    """Prefix with separate keys and values for each block of a decoder that also attends to an encoder.

    peft gives such a model's blocks the first half of the prefix twice and leaves the second half untrained.
    """

    def get_prompt(self, *args: Any, **kwargs: Any) -> EncoderDecoderCache:  # type: ignore[override]  # peft's as well
        return EncoderDecoderCache(super().get_prompt(*args, **kwargs), DynamicCache())


def _get_key_cache_shape(model: PreTrainedModel) -> tuple[int, int, int]:
    """Return the blocks that cache keys, their heads and head width, as in the cache of one token."""
    cache = forward_one_token(model, use_cache=True).past_key_values
    layers: Sequence[Any] = getattr(cache, "self_attention_cache", cache).layers
    shapes = {(layer.keys.shape[1], layer.keys.shape[3]) for layer in layers}
    if len(shapes) != 1:
        raise BaselineError(f"the blocks of {type(model).__name__} cache keys of different shapes, {sorted(shapes)}")
    [(heads, width)] = shapes
    return len(layers), heads, width
