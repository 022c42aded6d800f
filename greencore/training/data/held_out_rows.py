"""Split of rows into those trained on and those held out for evaluation, without equal rows in both."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch

from greencore.dataset import Row


def split_rows(rows: Sequence[Row], *, eval_share: float, seed: int) -> tuple[list[Row], list[Row]]:
    """Split rows into those trained on, at least one, and those held out, by a shuffle with `seed`.

    Equal rows stay together, so that no held-out row is trained on: a row is held out with all of its copies where
    these fit in the share, and otherwise not.
    """
    wanted = _count_held_out_rows(len(rows), eval_share)
    copies = _group_copies(rows)
    chosen: set[int] = set()
    for index in _shuffle_indices(len(rows), seed):
        if index not in chosen and len(chosen) + len(copies[rows[index]]) <= wanted:
            chosen.update(copies[rows[index]])
    return (
        [row for index, row in enumerate(rows) if index not in chosen],
        [row for index, row in enumerate(rows) if index in chosen],
    )


def count_held_out_duplicates(rows: Sequence[Row], *, eval_share: float, seed: int) -> int:
    """Return how many rows of the shuffle's share have an equal row that is trained on, which `split_rows` avoids."""
    drawn = set(_shuffle_indices(len(rows), seed)[: _count_held_out_rows(len(rows), eval_share)])
    copies = _group_copies(rows)
    return sum(not drawn.issuperset(copies[rows[index]]) for index in drawn)


def _count_held_out_rows(rows: int, eval_share: float) -> int:
    held_out = min(round(rows * eval_share), rows - 1)
    return 1 if eval_share > 0 and held_out == 0 and rows > 1 else held_out


def _shuffle_indices(rows: int, seed: int) -> list[int]:
    return list(torch.randperm(rows, generator=torch.Generator().manual_seed(seed)).tolist())


def _group_copies(rows: Sequence[Row]) -> Mapping[Row, Sequence[int]]:
    """Return the indices of the copies of each distinct row."""
    places = defaultdict[Row, list[int]](list)
    for index, row in enumerate(rows):
        places[row].append(index)
    return places
