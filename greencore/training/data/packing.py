"""Sequence packing: several examples in one row of a batch, without padding between them and blind to each other."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from transformers import DataCollatorWithFlattening, PreTrainedModel

from greencore.training.data.tokenisation import IGNORED_LABEL, Example, round_up_length
from greencore.training.methods.modes import in_evaluation_mode

_MAX_LEAK = 1e-3  # of what a token does to its own example; rounding alone is far less


class PackedCollator:
    """Joins a batch's examples into one row, in which positions start anew with each of them.

    transformers reads the ends of the examples from the positions and lets no token attend across them, with eager,
    sdpa and flash attention; a model that needs telling is given the mask as well. The loss is that of the separate
    rows, weighted by their learned tokens. Eager and sdpa attention still compute the whole row's square, so packing
    pays where examples are short and differ in length.

    Raises ValueError for a model that does not keep packed examples apart, such as one with an encoder or with ALiBi:
    this is tried on the model itself, which must therefore hold weights.
    """

    def __init__(self, model: PreTrainedModel, pad_token_id: int) -> None:
        self._pad_token_id = pad_token_id
        self._flatten = DataCollatorWithFlattening()
        self._mask_dtype = _find_mask_dtype(model)

    def __call__(self, examples: Sequence[Example]) -> dict[str, Any]:
        """`input_ids`, `position_ids` and `labels`, each [1, length], padded at the end with an example of its own.

        `use_cache` is off, since a model that keeps keys for later takes the row for one sequence.
        """
        features = [{key: list(example[key]) for key in ("input_ids", "labels")} for example in examples]
        length = sum(len(feature["input_ids"]) for feature in features)
        if filler := round_up_length(length) - length:
            features.append({"input_ids": [self._pad_token_id] * filler, "labels": [IGNORED_LABEL] * filler})
        batch: dict[str, Any] = {**self._flatten(features), "use_cache": False}
        if self._mask_dtype is not None:
            batch["attention_mask"] = _block_mask(batch["position_ids"], self._mask_dtype)
        return batch


def _find_mask_dtype(model: PreTrainedModel) -> torch.dtype | None:
    """None where positions are enough to keep examples apart, else the type of the mask that is needed as well."""
    name, instead = type(model).__name__, "pad them with Collator instead"
    if model.device.type == "meta":
        raise ValueError(f"this {name} holds no weights, so it cannot be tried whether it keeps packed rows apart")
    if model.config.is_encoder_decoder or "position_ids" not in inspect.signature(model.forward).parameters:
        raise ValueError(f"{name} cannot train on packed rows, since it takes no positions: {instead}")
    for dtype in (None, model.dtype):
        if _measure_leak(model, dtype) <= _MAX_LEAK:
            return dtype
    raise ValueError(f"{name} cannot train on packed rows, since its tokens attend across them: {instead}")


@torch.no_grad()
def _measure_leak(model: PreTrainedModel, mask_dtype: torch.dtype | None) -> float:
    """What the first token of one packed example does to the next one, as a share of what it does to its own."""
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3]], device=model.device)
    mask = None if mask_dtype is None else _block_mask(positions, mask_dtype)
    ids = torch.arange(1, 9, device=model.device)[None]
    other = ids.clone()
    other[0, 0] = 9
    with in_evaluation_mode(model):
        one, two = (
            model(input_ids=row, position_ids=positions, attention_mask=mask, use_cache=False).logits
            for row in (ids, other)
        )
    change = (one - two).abs()[0]
    return float(change[4:].max() / change[1:4].max())


def _block_mask(positions: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """[1, 1, length, length], added to the attention scores: 0 from a token to its example's earlier ones."""
    example = (positions == 0).cumsum(-1)
    seen = torch.tril(example[:, None, :, None] == example[:, None, None, :])
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)
