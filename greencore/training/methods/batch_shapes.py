"""Shapes of training batches, or of the micro-batches that make one: rows, and their length with padding."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from greencore.backprop.cost.by_length import Lengths
from greencore.training.data.micro_batches import collate_in_parts, get_rows_computed_at_once


@dataclass(frozen=True)
class StepShape:
    """Rows of a batch, and the tokens of each row: (input,) or, with an encoder, (source, target)."""

    rows: int
    lengths: Lengths


@dataclass(frozen=True)
class BatchShapes:
    """Shapes of the batches that a run computes at once: `rows` of a full one, and the shortest and longest lengths.

    `row_counts` is the number of the dataset's rows by unpadded length; None for a stream.
    """

    rows: int
    shortest: Lengths
    longest: Lengths
    row_counts: Mapping[Lengths, int] | None = None


def is_encoder_decoder(model: Any) -> bool:
    """Return whether the model has an encoder in addition to its decoder."""
    return bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))


def is_stream(dataset: Any) -> bool:
    """Return whether the dataset can only be iterated: it has no length, or no rows by index."""
    return not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__"))


def get_step_shape(batch: Mapping[str, Any], *, encoder: bool) -> StepShape:
    """Return the shape of a batch; with an encoder its labels are the target."""
    rows, length = batch["input_ids"].shape[:2]
    return StepShape(int(rows), (int(length), int(batch["labels"].shape[1])) if encoder else (int(length),))


def measure_batch_shapes(dataloader: Any, *, batch_size: int, encoder: bool, longest_of_stream: int) -> BatchShapes:
    """Measure the extremes of a dataloader's batches, including the padding or packing of its collator.

    Where a batch of `batch_size` rows is computed in micro-batches, the extremes are those of micro-batches.
    A dataset without a length is a stream: its rows may have one to `longest_of_stream` tokens. Raises `ValueError` for
    a dataset whose rows have no `input_ids`.
    """
    dataset = dataloader.dataset
    if is_stream(dataset):
        rows = get_step_shape(next(iter(dataloader)), encoder=encoder).rows
        kinds = 2 if encoder else 1
        return BatchShapes(rows, (1,) * kinds, (longest_of_stream,) * kinds)
    rows_at_once = get_rows_computed_at_once(dataloader, batch_size)
    rows_lengths = row_lengths(dataset, encoder=encoder)
    parts = [[lengths[part] for lengths in rows_lengths] for part in range(2 if encoder else 1)]
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
    )


def row_lengths(dataset: Sequence[Mapping[str, Any]] | Any, *, encoder: bool) -> list[Lengths]:
    """Return the tokens of every row, without padding."""
    columns = ("input_ids", "labels") if encoder else ("input_ids",)
    try:
        return [tuple(len(row[column]) for column in columns) for row in map(dataset.__getitem__, range(len(dataset)))]
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(
            f"the training rows have no {' and '.join(columns)}: tokenise them before training, since their lengths"
            " determine the FLOPs of a step"
        ) from error
