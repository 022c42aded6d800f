"""Layout of rows in batches: padded or packed, shuffled or grouped by length, and what `auto` chooses."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from greencore.backprop.cost.by_length import Lengths
from greencore.settings.checks import check_method
from greencore.settings.hyperparameters import Hyperparameters, SettingUnsupported
from greencore.settings.layout_choice import LayoutName, resolve_layout
from greencore.training.batches.batch_shapes import BatchShapes, StepShape, is_encoder_decoder
from greencore.training.batches.positions import UNBOUNDED, PositionLimits
from greencore.training.data.tokenisation import round_up_length

GROUPED_STEPS = 50  # optimiser steps whose rows are sorted together: fewer leave more padding, more are less random
MIN_SHUFFLED_ROWS = 20_000  # fewest rows that are put into batches: a small dataset is shuffled several times


@dataclass(frozen=True)
class BatchLayout:
    """How rows become batches: `step_rows` rows an optimiser step, `rows` of them in each forward pass.

    With `learned_only` a row's second length is the positions whose logits are computed.
    """

    rows: int
    step_rows: int
    packing: bool = False
    group_by_length: bool = False
    seed: int = 0
    learned_only: bool = False

    @property
    def name(self) -> LayoutName:
        """The layout in a word."""
        return "packed" if self.packing else "grouped" if self.group_by_length else "padded"

    def get_token_lengths(self, lengths: Lengths) -> Lengths:
        """Return the tokens of a row or batch of these lengths, (L,) or (S, T), without the positions of logits."""
        return lengths[:1] if self.learned_only else lengths

    def order_rows(self, lengths: Sequence[Lengths], epoch: int) -> NDArray[np.int64]:
        """Return the row numbers of an epoch in the order of training, as a function of seed and epoch alone.

        Grouped by length: the rows of `GROUPED_STEPS` random steps are sorted, cut into steps, and these are shuffled.
        """
        generator = np.random.default_rng((self.seed, epoch))
        order = generator.permutation(len(lengths))
        if not self.group_by_length:
            return order
        total = np.asarray([sum(self.get_token_lengths(row)) for row in lengths])
        steps: list[NDArray[np.int64]] = []
        for start in range(0, len(order), GROUPED_STEPS * self.step_rows):
            together = order[start : start + GROUPED_STEPS * self.step_rows]
            together = together[np.argsort(-total[together], kind="stable")]
            steps += [together[first : first + self.step_rows] for first in range(0, len(together), self.step_rows)]
        last = [steps.pop()] if len(steps[-1]) < self.step_rows else []  # only the last step may be smaller
        return np.concatenate([*(steps[index] for index in generator.permutation(len(steps))), *last])

    def measure_extremes(self, lengths: Sequence[Lengths], limits: PositionLimits) -> BatchShapes:
        """Return the shortest and longest batch that rows of these lengths, without padding, can make."""
        sizes = np.sort(np.asarray(lengths), axis=0)
        shortest, longest = sizes[0].tolist(), sizes[-1].tolist()
        if self.packing:
            longest = sizes[-self.rows :].sum(axis=0).tolist()
        ends = (self._round(shortest, limits), self._round(longest, limits))
        return BatchShapes(1 if self.packing else self.rows, *ends, learned_only=self.learned_only)

    def count_shapes(self, lengths: Sequence[Lengths], limits: PositionLimits) -> tuple[Mapping[StepShape, int], int]:
        """Count the batch shapes of rows of these lengths, without padding, and the epochs that were put in order."""
        rows, counted = np.asarray(lengths), Counter[StepShape]()
        epochs = -(-MIN_SHUFFLED_ROWS // len(lengths))
        within_steps = np.arange(len(rows)) % self.step_rows
        starts = np.flatnonzero(within_steps % self.rows == 0)  # no batch reaches over the end of a step
        amounts = np.diff(starts, append=len(rows))
        for epoch in range(epochs):
            ordered = rows[self.order_rows(lengths, epoch)]
            batches = (np.add if self.packing else np.maximum).reduceat(ordered, starts, axis=0)
            shapes, counts = np.unique(np.column_stack([amounts, batches]), axis=0, return_counts=True)
            for (amount, *batch), count in zip(shapes.tolist(), counts.tolist(), strict=True):
                counted[StepShape(1 if self.packing else amount, self._round(batch, limits))] += count
        return counted, epochs

    def _round(self, lengths: Sequence[int], limits: PositionLimits) -> Lengths:
        if self.packing:
            return tuple(map(round_up_length, lengths))
        ends = (limits.input_tokens, UNBOUNDED if self.learned_only else limits.output_tokens)
        return tuple(round_up_length(length, end) for length, end in zip(lengths, ends, strict=False))


def choose_layout(
    model: Any,
    lengths: Sequence[Lengths],
    settings: Hyperparameters,
    *,
    method: str,
    learned_only: bool = False,
    test_packing: Callable[[], object],
) -> BatchLayout:
    """Return the layout of a run: as the settings say, for `auto` where it saves FLOPs.

    `lengths` are those of the training rows, without padding; with `learned_only` each has its learned positions too.
    The choice depends on the model's size, the rows and the settings alone. `test_packing` raises `SettingUnsupported`
    where the model does not keep packed rows apart; so does this function where `packing` is true.
    """
    check_method(settings, method)
    rows = min(settings.rows_at_once, len(lengths))
    padded = BatchLayout(rows, settings.batch_size, seed=settings.seed, learned_only=learned_only)
    layouts: dict[LayoutName, BatchLayout] = {
        "padded": padded,
        "packed": replace(padded, packing=True),
        "grouped": replace(padded, group_by_length=True),
    }
    encoder = is_encoder_decoder(model)
    if settings.packing is True:
        if encoder:
            raise SettingUnsupported("packing", f"{type(model).__name__} has an encoder, which reads each row apart")
        test_packing()

    def keeps_rows_apart() -> bool:
        if method == "prefix" or encoder:
            return False
        try:
            test_packing()
        except SettingUnsupported:
            return False
        return True

    def predict_cost(name: LayoutName) -> float:
        return math.inf if encoder and name == "packed" else predict_relative_cost(model, lengths, layouts[name])

    return layouts[resolve_layout(settings, predict_cost, packs=keeps_rows_apart)]


def predict_relative_cost(model: Any, lengths: Sequence[Lengths], layout: BatchLayout) -> float:
    """Predict the FLOPs of the layout's steps, up to a factor: matrix products of the weights, and attention.

    A token passes through every weight of the blocks, and where its logits are computed through the output embedding
    (2 FLOPs each), and attends to its whole row (4 FLOPs for each token, unit of width and layer): sdpa and eager
    attention compute what the mask hides.
    """
    config = model.config.get_text_config(decoder=True)
    output = model.get_output_embeddings()
    tables = {id(module.weight) for module in (model.get_input_embeddings(), output) if module is not None}
    blocks = sum(parameter.numel() for parameter in model.parameters() if id(parameter) not in tables)
    head = 0 if output is None else output.weight.numel()
    attention = 4 * getattr(config, "hidden_size", 0) * getattr(config, "num_hidden_layers", 0)
    counted, epochs = layout.count_shapes(lengths, PositionLimits())

    total = 0.0
    for shape, count in counted.items():
        tokens = layout.get_token_lengths(shape.lengths)
        logits = shape.lengths[1] if layout.learned_only else sum(tokens)
        row = 2 * (blocks * sum(tokens) + head * logits) + attention * sum(length**2 for length in tokens)
        total += count * shape.rows * row
    return total / epochs


class OrderedSampler(Sampler[int]):
    """Sampler of a layout's order, the same for an epoch whenever it is asked for, so that a run can resume."""

    def __init__(self, layout: BatchLayout, lengths: Sequence[Lengths]) -> None:
        self._layout, self._lengths, self._epoch = layout, lengths, 0

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        return iter(self._layout.order_rows(self._lengths, self._epoch).tolist())

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, from 0, whose order follows."""
        self._epoch = epoch
