"""Split of rows into those trained on and those held out for evaluation, without equal rows in both."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from greencore.dataset import InvalidRow, Row, row_form


class ValidationRowsUnusable(ValueError):
    """Validation rows of another form than the training rows, all of them trained on, or one that is invalid."""


def divide_rows(
    rows: Sequence[Row], validation_rows: Sequence[Row] | None, *, eval_share: float, seed: int
) -> tuple[list[Row], list[Row], int]:
    """Divide rows into those trained on and those held out: a share of `rows`, or the validation rows where given.

    The last value counts the rows that are not held out since an equal row is trained on. Raises
    `ValidationRowsUnusable`.
    """
    if validation_rows is None:
        return split_rows(rows, eval_share=eval_share, seed=seed)
    known = {type(row) for row in rows}
    if (other := next((row for row in validation_rows if type(row) not in known), None)) is not None:
        raise ValidationRowsUnusable(f"line {other.line}: is a {row_form(other)} row, as no row of the dataset is")
    trained = set(rows)
    held_out = [row for row in validation_rows if row not in trained]
    if not held_out:
        raise ValidationRowsUnusable(f"each of its {len(validation_rows)} rows equals one that is trained on")
    return list(rows), held_out, len(validation_rows) - len(held_out)


@contextmanager
def report_validation_rows(validation_rows: Sequence[Row] | None) -> Iterator[None]:
    """Raise `ValidationRowsUnusable` for the block's `InvalidRow` where its held-out rows are validation rows."""
    try:
        yield
    except InvalidRow as error:
        if validation_rows is None:
            raise
        raise ValidationRowsUnusable(str(error)) from error


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
