"""Shapes of training batches, or of the micro-batches that make one: rows, and their length with padding."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from greencore.backprop.cost.by_length import Lengths
from greencore.cost_polynomial import SOURCE_AND_TARGET, TOKENS, TOKENS_AND_LOGITS, Terms
from greencore.training.batches.learned_positions import has_learned_positions
from greencore.training.batches.micro_batches import collate_in_parts, get_rows_computed_at_once
from greencore.training.data.tokenisation import IGNORED_LABEL


@dataclass(frozen=True)
class StepShape:
    """Rows of a batch, and the tokens of each row: (input,), with an encoder (source, target).

    (input, learned) where the batch has its logits computed at learned positions alone.
    """

    rows: int
    lengths: Lengths


@dataclass(frozen=True)
class BatchShapes:
    """Shapes of the batches that a run computes at once: `rows` of a full one, and the shortest and longest lengths.

    `row_counts` is the number of the dataset's rows by unpadded length; None for a stream. With `learned_only` the
    second length is the positions whose logits are computed.
    """

    rows: int
    shortest: Lengths
    longest: Lengths
    row_counts: Mapping[Lengths, int] | None = None
    learned_only: bool = False

    @property
    def terms(self) -> Terms:
        """Terms of the cost of a step of these lengths."""
        if len(self.longest) == 1:
            return TOKENS
        return TOKENS_AND_LOGITS if self.learned_only else SOURCE_AND_TARGET


def is_encoder_decoder(model: Any) -> bool:
    """Return whether the model has an encoder in addition to its decoder."""
    return bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))


def is_stream(dataset: Any) -> bool:
    """Return whether the dataset can only be iterated: it has no length, or no rows by index."""
    return not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__"))


def get_step_shape(batch: Mapping[str, Any], *, encoder: bool) -> StepShape:
    """Return the shape of a batch; with an encoder its labels are the target."""
    rows, length = batch["input_ids"].shape[:2]
    if encoder:
        return StepShape(int(rows), (int(length), int(batch["labels"].shape[1])))
    if has_learned_positions(batch):
        return StepShape(int(rows), (int(length), int(batch["logits_to_keep"].shape[1])))
    return StepShape(int(rows), (int(length),))


def measure_batch_shapes(dataloader: Any, *, batch_size: int, encoder: bool, longest_of_stream: int) -> BatchShapes:
    """Measure the extremes of a dataloader's batches, including the padding or packing of its collator.

    Where a batch of `batch_size` rows is computed in micro-batches, the extremes are those of micro-batches.
    A dataset without a length is a stream: its rows may have one to `longest_of_stream` tokens. Raises `ValueError` for
    a dataset whose rows have no `input_ids`.
    """
    dataset = dataloader.dataset
    if is_stream(dataset):
        first = next(iter(dataloader))
        rows, learned_only = get_step_shape(first, encoder=encoder).rows, has_learned_positions(first)
        kinds = 2 if encoder or learned_only else 1
        return BatchShapes(rows, (1,) * kinds, (longest_of_stream,) * kinds, learned_only=learned_only)
    rows_at_once = get_rows_computed_at_once(dataloader, batch_size)
    learned_only = has_learned_positions(collate_in_parts(dataloader, [dataset[0]])[0])
    rows_lengths = row_lengths(dataset, encoder=encoder, learned_only=learned_only)
    parts = [[lengths[part] for lengths in rows_lengths] for part in range(len(rows_lengths[0]))]
    ordered = [sorted(range(len(part)), key=part.__getitem__) for part in parts]
    ends = [
        get_step_shape(collate_in_parts(dataloader, [dataset[row] for row in rows_of_end])[0], encoder=encoder)
        for order in ordered
        for rows_of_end in (order[:1], order[-rows_at_once:])
    ]
    lengths_of_ends = list(zip(*(end.lengths for end in ends), strict=True))
    return BatchShapes(
        rows=ends[1].rows,
        shortest=tuple(min(lengths) for lengths in lengths_of_ends),
        longest=tuple(max(lengths) for lengths in lengths_of_ends),
        row_counts=Counter(rows_lengths),
        learned_only=learned_only,
    )


def row_lengths(
    dataset: Sequence[Mapping[str, Any]] | Any, *, encoder: bool, learned_only: bool = False
) -> list[Lengths]:
    """Return the tokens of every row, without padding: with `learned_only` also those of them that are learned."""
    columns = ("input_ids", "labels") if encoder or learned_only else ("input_ids",)

    def measure(row: Mapping[str, Any]) -> Lengths:
        if learned_only:
            learned = sum(label != IGNORED_LABEL for label in row["labels"][1:])
            return len(row["input_ids"]), max(learned, 1)
        return tuple(len(row[column]) for column in columns)

    try:
        return [measure(row) for row in map(dataset.__getitem__, range(len(dataset)))]
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(
            f"the training rows have no {' and '.join(columns)}: tokenise them before training, since their lengths"
            " determine the FLOPs of a step"
        ) from error
