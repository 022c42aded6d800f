"""Logits at learned positions alone: the others have no part in the loss, and a fifth of a small model's FLOPs."""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast, get_args

import torch
from torch.nn import functional
from transformers import PreTrainedModel

from greencore.backprop.shards import free_gathered
from greencore.settings.value_types import LogitPositions
from greencore.training.batches.micro_batches import Collate
from greencore.training.data.tokenisation import IGNORED_LABEL, round_up_length
from greencore.training.methods.modes import in_mode
from greencore.training.processes import recall

FILE_NAME = "logits.json"  # of the choice, in the run's folder
AGREEMENT = 1e-2  # relative, of logits and losses: those of other positions differ by their own size


class LearnedPositionsCollator:
    """Collator that adds to the batches of another where something is learned (`find_learned_positions`)."""

    def __init__(self, collate: Collate) -> None:
        self._collate = collate

    def __call__(self, examples: Sequence[Any]) -> dict[str, Any]:
        """Return the batch of a decoder-only model, whose `labels` have the length of its `input_ids`."""
        batch = self._collate(examples)
        return {**batch, **find_learned_positions(batch["labels"])}


def find_learned_positions(labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the arguments of a causal model's forward that have it compute the logits of learned positions alone.

    `labels` are [rows, length], with -100 for tokens that are not learned. Of K learned positions in the row that has
    most, rounded up to a multiple of 8, `logits_to_keep` [rows, K] are the positions whose next token is learned, in
    order, and `shift_labels` [rows, K] those tokens; rows with fewer have others as filler, with the label -100.
    """
    targets = functional.pad(labels[:, 1:], (0, 1), value=IGNORED_LABEL)
    learned = targets != IGNORED_LABEL
    most = max(int(learned.sum(1).max()), 1)
    kept = torch.argsort(~learned, dim=1, stable=True)[:, : round_up_length(most)]
    return {"logits_to_keep": kept, "shift_labels": targets.gather(1, kept)}


def has_learned_positions(batch: Mapping[str, Any]) -> bool:
    """Return whether a batch has the model compute logits at learned positions alone."""
    kept = batch.get("logits_to_keep")
    return "shift_labels" in batch and isinstance(kept, torch.Tensor) and kept.ndim == 2


def get_targets(batch: Mapping[str, Any], *, encoder: bool) -> torch.Tensor:
    """Return the tokens [rows, positions] that a batch's logits predict, -100 where nothing is learned.

    A decoder-only model predicts each token from those before it; with `encoder` position i predicts label i.
    """
    labels: torch.Tensor = batch["labels"]
    if has_learned_positions(batch):
        return cast(torch.Tensor, batch["shift_labels"])
    return labels if encoder else functional.pad(labels[:, 1:], (0, 1), value=IGNORED_LABEL)


def takes_learned_positions(model: Any) -> bool:
    """Return whether a model's class takes the positions of its logits, by its signature alone."""
    parameters = inspect.signature(model.forward).parameters
    takes_rest = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return "logits_to_keep" in parameters and takes_rest and not model.config.is_encoder_decoder


@torch.no_grad()
def computes_learned_positions(model: PreTrainedModel) -> bool:
    """Return whether a model, tried on a few tokens, has the same logits and loss at learned positions alone."""
    if not takes_learned_positions(model):
        return False
    ids = torch.arange(1, 17, device=model.device).view(2, 8)
    labels = ids.masked_fill(torch.arange(8, device=model.device) % 3 == 0, IGNORED_LABEL)
    labels[1, 4:] = IGNORED_LABEL
    kept = find_learned_positions(labels)
    with in_mode(model, training=False):
        whole = model(input_ids=ids, labels=labels, use_cache=False)
        part = model(input_ids=ids, labels=labels, use_cache=False, **kept)
    free_gathered(model)
    expected = whole.logits.gather(1, kept["logits_to_keep"][..., None].expand(-1, -1, whole.logits.shape[-1]))
    if part.logits.shape != expected.shape:
        return False
    return _agree(part.logits, expected) and _agree(part.loss, whole.loss)


def choose_logit_positions(
    wanted: LogitPositions, model: PreTrainedModel, folder: Path, *, resumes: bool
) -> LogitPositions:
    """Return where a run computes logits: as stored in its folder, and at its first start where the model can.

    A run that `resumes` without a stored choice began with all of them.
    """

    def choose() -> LogitPositions:
        return "learned" if wanted == "learned" and not resumes and computes_learned_positions(model) else "all"

    def parse(stored: object) -> LogitPositions:
        if stored not in get_args(LogitPositions):
            raise TypeError(f"{stored!r} is not learned or all")
        return cast(LogitPositions, stored)

    return recall(folder / FILE_NAME, choose, parse)


def _agree(one: torch.Tensor, other: torch.Tensor) -> bool:
    scale = other.abs().max()
    return bool((one - other).abs().max() <= AGREEMENT * scale)
