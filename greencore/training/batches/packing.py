"""Sequence packing: several examples in one row, without padding or attention between them."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from transformers import DataCollatorWithFlattening, PreTrainedModel

from greencore.backprop.shards import free_gathered
from greencore.settings.hyperparameters import SettingUnsupported
from greencore.training.data.tokenisation import IGNORED_LABEL, Example, round_up_length
from greencore.training.methods.modes import in_mode

_MAX_LEAK = 1e-3  # relative to a token's effect on its own example; rounding is far below


class PackedCollator:
    """Collator that joins a batch's examples into one row, with positions that restart at each example.

    transformers derives the examples' bounds from the positions and lets no token attend across them, with eager, sdpa
    and flash attention; a model that needs a mask gets one. The loss is that of the separate rows, weighted by their
    learned tokens. Eager and sdpa attention still compute the whole row's square, so packing saves time where examples
    are short and differ in length.

    Raises `SettingUnsupported` for a model that does not keep packed examples apart, such as one with an encoder or
    with ALiBi. This is tested on the model, which must hold weights.
    """

    def __init__(self, model: PreTrainedModel, pad_token_id: int) -> None:
        self._pad_token_id = pad_token_id
        self._flatten = DataCollatorWithFlattening()
        self._mask_dtype = _find_mask_dtype(model)

    def __call__(self, examples: Sequence[Example]) -> dict[str, Any]:
        """Return `input_ids`, `position_ids` and `labels`, each [1, length], padded at the end with one more example.

        `use_cache` is off, since with a key cache the model treats the row as one sequence.
        """
        features = [{key: list(example[key]) for key in ("input_ids", "labels")} for example in examples]
        length = sum(len(feature["input_ids"]) for feature in features)
        if filler := round_up_length(length) - length:
            features.append({"input_ids": [self._pad_token_id] * filler, "labels": [IGNORED_LABEL] * filler})
        batch: dict[str, Any] = {**self._flatten(features), "use_cache": False}
        if self._mask_dtype is not None:
            batch["attention_mask"] = _block_mask(batch["position_ids"], self._mask_dtype)
        return batch


def check_takes_positions(model: PreTrainedModel) -> None:
    """Raise `SettingUnsupported` where a model takes no positions, without which packed rows are one text to it."""
    if model.config.is_encoder_decoder or "position_ids" not in inspect.signature(model.forward).parameters:
        raise _refuse(model, "it takes no positions")


def _refuse(model: PreTrainedModel, reason: str) -> SettingUnsupported:
    given = f"{type(model).__name__} cannot train on packed rows, since {reason}"
    return SettingUnsupported("packing", f"{given}: pad them with Collator instead")


def _find_mask_dtype(model: PreTrainedModel) -> torch.dtype | None:
    """Return the dtype of the mask that keeps examples apart; None where positions are enough."""
    if model.device.type == "meta":
        raise ValueError(f"this {type(model).__name__} holds no weights, so packing cannot be tested on it")
    check_takes_positions(model)
    for dtype in (None, model.dtype):
        if _measure_leak(model, dtype) <= _MAX_LEAK:
            return dtype
    raise _refuse(model, "its tokens attend across them")


@torch.no_grad()
def _measure_leak(model: PreTrainedModel, mask_dtype: torch.dtype | None) -> float:
    """Return the effect of a token on the next packed example, relative to the effect on its own."""
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3]], device=model.device)
    mask = None if mask_dtype is None else _block_mask(positions, mask_dtype)
    ids = torch.arange(1, 9, device=model.device)[None]
    other = ids.clone()
    other[0, 0] = 9
    with in_mode(model, training=False):
        one, two = (
            model(input_ids=row, position_ids=positions, attention_mask=mask, use_cache=False).logits
            for row in (ids, other)
        )
    free_gathered(model)
    change = (one - two).abs()[0]
    return float(change[4:].max() / change[1:4].max())


def _block_mask(positions: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return the additive attention mask [1, 1, length, length]: 0 from a token to earlier ones of its example."""
    example = (positions == 0).cumsum(-1)
    seen = torch.tril(example[:, None, :, None] == example[:, None, None, :])
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)
