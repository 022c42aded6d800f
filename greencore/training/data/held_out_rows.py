"""Split of rows into those trained on and those held out for evaluation, without equal rows in both."""

from collections import defaultdict
from collections.abc import Sequence

import torch

from greencore.dataset import Row


def split_rows(rows: Sequence[Row], *, eval_share: float, seed: int) -> tuple[list[Row], list[Row], int]:
    """Split rows into those trained on, at least one, and those held out, by a shuffle with `seed`.

    Equal rows stay together, so that no held-out row is trained on: a row is held out with all of its copies where
    these fit in the share, and otherwise not. The last value is how many rows the shuffle alone would have held out
    beside an equal row that is trained on.
    """
    wanted = min(round(len(rows) * eval_share), len(rows) - 1)
    if eval_share > 0 and wanted == 0 and len(rows) > 1:
        wanted = 1
    copies = defaultdict[Row, list[int]](list)
    for index, row in enumerate(rows):
        copies[row].append(index)
    shuffled = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    chosen: set[int] = set()
    for index in shuffled:
        if index not in chosen and len(chosen) + len(copies[rows[index]]) <= wanted:
            chosen.update(copies[rows[index]])
    drawn = set(shuffled[:wanted])
    return (
        [row for index, row in enumerate(rows) if index not in chosen],
        [row for index, row in enumerate(rows) if index in chosen],
        sum(not drawn.issuperset(copies[rows[index]]) for index in drawn),
    )
