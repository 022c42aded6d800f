"""The shapes of training steps: how many rows, and how long they are once they are padded."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from greencore.backprop.cost.by_length import Lengths


@dataclass(frozen=True)
class StepShape:
    """A batch's rows, and the tokens of each of them: (input,) or, with an encoder, (source, target)."""

    rows: int
    lengths: Lengths


@dataclass(frozen=True)
class BatchShapes:
    """What the batches of a run look like: `rows` of a full one, and the extremes of its lengths.

    `row_counts` tells how many rows of the data have which lengths, unpadded; None of a stream.
    """

    rows: int
    shortest: Lengths
    longest: Lengths
    row_counts: Mapping[Lengths, int] | None = None


def is_encoder_decoder(model: Any) -> bool:
    """Whether the model has an encoder beside its decoder."""
    return bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))


def get_step_shape(batch: Mapping[str, Any], *, encoder: bool) -> StepShape:
    """The shape of a batch; with an encoder its labels are what the decoder writes."""
    rows, length = batch["input_ids"].shape[:2]
    return StepShape(int(rows), (int(length), int(batch["labels"].shape[1])) if encoder else (int(length),))


def measure_batch_shapes(dataloader: Any, *, batch_size: int, encoder: bool, longest_of_stream: int) -> BatchShapes:
    """The extremes of the batches that a dataloader can make, padding or packing by its collator included.

    A dataset without a length is a stream: its rows may have anything from one token to `longest_of_stream`.
    Raises `ValueError` for a dataset whose rows carry no `input_ids`.
    """
    dataset = dataloader.dataset
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        rows = get_step_shape(next(iter(dataloader)), encoder=encoder).rows
        kinds = 2 if encoder else 1
        return BatchShapes(rows, (1,) * kinds, (longest_of_stream,) * kinds)
    rows_lengths = row_lengths(dataset, encoder=encoder)
    parts = [[lengths[part] for lengths in rows_lengths] for part in range(2 if encoder else 1)]
    ordered = [sorted(range(len(part)), key=part.__getitem__) for part in parts]
    ends = [
        get_step_shape(dataloader.collate_fn([dataset[row] for row in rows_of_end]), encoder=encoder)
        for order in ordered
        for rows_of_end in (order[:1], order[-batch_size:])
    ]
    lengths_of_ends = list(zip(*(end.lengths for end in ends), strict=True))
    return BatchShapes(
        rows=ends[1].rows,
        shortest=tuple(min(lengths) for lengths in lengths_of_ends),
        longest=tuple(max(lengths) for lengths in lengths_of_ends),
        row_counts=Counter(rows_lengths),
    )


def row_lengths(dataset: Sequence[Mapping[str, Any]] | Any, *, encoder: bool) -> list[Lengths]:
    """The tokens of every row, unpadded."""
    columns = ("input_ids", "labels") if encoder else ("input_ids",)
    try:
        return [tuple(len(row[column]) for column in columns) for row in _rows(dataset)]
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(
            f"the training rows carry no {' and '.join(columns)}: tokenise them before training, so that the FLOPs of"
            " a step can be known beforehand"
        ) from error


def _rows(dataset: Any) -> Iterable[Any]:
    return (dataset[index] for index in range(len(dataset)))
