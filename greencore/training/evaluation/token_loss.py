"""Token loss from a model's logits, the same for every model class; used by training and evaluation."""

import torch
from torch.nn import functional

from greencore.training.data.tokenisation import IGNORED_LABEL


@torch.no_grad()
def sum_token_loss(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Return the summed cross-entropy (nats) of the learned tokens of a batch, and their number.

    `logits` are [rows, positions, vocabulary], `targets` [rows, positions] the tokens that they predict, with -100 for
    what is not learned (`greencore.training.batches.learned_positions.get_targets`). A model's own loss may have other
    terms, a router's balance for example, and its mean may count other tokens. Computed row by row to bound memory.
    """
    total = torch.zeros((), dtype=torch.float64, device=logits.device)
    for scores, expected in zip(logits, targets.to(logits.device), strict=True):
        learned = expected != IGNORED_LABEL
        total += functional.cross_entropy(scores[learned].float(), expected[learned], reduction="sum")
    return total, int((targets != IGNORED_LABEL).sum())


@torch.no_grad()
def count_correct_tokens(logits: torch.Tensor, targets: torch.Tensor) -> int:
    """Return the number of learned tokens of a batch that have the highest logit; arguments as `sum_token_loss`'s."""
    correct = 0
    for scores, expected in zip(logits, targets.to(logits.device), strict=True):
        learned = expected != IGNORED_LABEL
        correct += int((scores[learned].argmax(-1) == expected[learned]).sum())
    return correct
