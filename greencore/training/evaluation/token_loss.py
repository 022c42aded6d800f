"""The loss per learned token, computed from a model's logits: the same quantity for every model class."""

import torch
from torch.nn import functional

from greencore.training.data.tokenisation import IGNORED_LABEL


@torch.no_grad()
def sum_token_loss(logits: torch.Tensor, labels: torch.Tensor, *, encoder: bool) -> tuple[torch.Tensor, int]:
    """Return the summed cross-entropy (nats) of the learned tokens of a batch, and their number.

    `logits` are [rows, length, vocabulary], `labels` [rows, length] with -100 where nothing is learned. A decoder
    alone predicts each token from those before it, so that nothing predicts the first; with `encoder` position i of
    the logits predicts label i. A model's own loss may hold more than this, a router's balance for example, and its
    mean may count other tokens. Computed row by row, which bounds the memory that it takes.
    """
    if not encoder:
        logits, labels = logits[:, :-1], labels[:, 1:]
    total = torch.zeros((), dtype=torch.float64, device=logits.device)
    for scores, targets in zip(logits, labels.to(logits.device), strict=True):
        learned = targets != IGNORED_LABEL
        total += functional.cross_entropy(scores[learned].float(), targets[learned], reduction="sum")
    return total, int((labels != IGNORED_LABEL).sum())
