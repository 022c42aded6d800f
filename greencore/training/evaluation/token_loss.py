"""Token loss from a model's logits, the same for every model class; used by training and evaluation."""

import torch
from torch.nn import functional

from greencore.training.data.tokenisation import IGNORED_LABEL


@torch.no_grad()
def sum_token_loss(logits: torch.Tensor, labels: torch.Tensor, *, encoder: bool) -> tuple[torch.Tensor, int]:
    """Return the summed cross-entropy (nats) of the learned tokens of a batch, and their number.

    `logits` are [rows, length, vocabulary], `labels` [rows, length] with -100 for tokens that are not learned. A
    decoder-only model predicts each token from those before it, so the first has no prediction; with `encoder`
    position i of the logits predicts label i. A model's own loss may have other terms, a router's balance for
    example, and its mean may count other tokens. Computed row by row to bound memory.
    """
    if not encoder:
        logits, labels = logits[:, :-1], labels[:, 1:]
    total = torch.zeros((), dtype=torch.float64, device=logits.device)
    for scores, expected in zip(logits, labels.to(logits.device), strict=True):
        learned = expected != IGNORED_LABEL
        total += functional.cross_entropy(scores[learned].float(), expected[learned], reduction="sum")
    return total, int((labels != IGNORED_LABEL).sum())


@torch.no_grad()
def count_correct_tokens(logits: torch.Tensor, labels: torch.Tensor, *, encoder: bool) -> int:
    """Return the number of learned tokens of a batch that have the highest logit; arguments as `sum_token_loss`'s."""
    if not encoder:
        logits, labels = logits[:, :-1], labels[:, 1:]
    correct = 0
    for scores, expected in zip(logits, labels.to(logits.device), strict=True):
        learned = expected != IGNORED_LABEL
        correct += int((scores[learned].argmax(-1) == expected[learned]).sum())
    return correct
