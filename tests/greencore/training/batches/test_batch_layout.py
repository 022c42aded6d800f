"""Batches padded, packed and grouped by length: shapes as the Trainer's, order, and the choice of `auto`."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from greencore.backprop.cost.by_length import Lengths
from greencore.settings.hyperparameters import Hyperparameters, SettingUnsupported
from greencore.training.batches.batch_layout import BatchLayout, OrderedSampler, choose_layout
from greencore.training.batches.batch_shapes import StepShape, get_step_shape, measure_batch_shapes
from greencore.training.batches.packing import PackedCollator
from greencore.training.batches.positions import PositionLimits
from greencore.training.data.tokenisation import Collator, Example
from greencore.training.models.loading import load_model

LIMITS = PositionLimits()
LENGTHS: list[Lengths] = [(int(n),) for n in np.random.default_rng(3).integers(2, 60, 101)]


def test_shuffled_batches_are_as_long_as_their_longest_row() -> None:
    shapes, epochs = BatchLayout(2, 2).count_shapes([(8,), (16,), (24,)], LIMITS)

    assert sum(shape.rows * count for shape, count in shapes.items()) == 3 * epochs
    # Of three rows two meet: the longer is 16 in one case of three, and 24 in the others.
    mean = sum(shape.lengths[0] * count for shape, count in shapes.items() if shape.rows == 2) / epochs
    assert mean == pytest.approx(16 / 3 + 24 * 2 / 3, rel=0.01)
    assert shapes[StepShape(1, (24,))] == pytest.approx(epochs / 3, rel=0.05)


def test_micro_batches_do_not_reach_over_the_end_of_a_step() -> None:
    shapes, epochs = BatchLayout(3, 4).count_shapes([(8,)] * 10, LIMITS)

    # Steps of 4, 4 and 2 rows, in micro-batches of 3 + 1, 3 + 1 and 2.
    assert shapes == {StepShape(3, (8,)): 2 * epochs, StepShape(1, (8,)): 2 * epochs, StepShape(2, (8,)): epochs}


@pytest.mark.parametrize("packing", [False, True])
def test_shapes_are_those_of_the_collators_batches(model_folder: Path, packing: bool) -> None:
    layout = BatchLayout(4, 8, packing=packing, group_by_length=not packing)
    data = [Example((1,) * length, (1,) * length) for (length,) in LENGTHS]
    collate: Any = PackedCollator(load_model(model_folder), 0) if packing else Collator(0)
    counted, epochs = layout.count_shapes(LENGTHS, LIMITS)
    real = Counter[StepShape]()
    for epoch in range(epochs):
        order = layout.order_rows(LENGTHS, epoch)
        batches = [order[start : start + 4] for start in range(0, len(order), 4)]
        real.update(get_step_shape(collate([data[row] for row in batch]), encoder=False) for batch in batches)
        if epoch == 2:
            break
    assert set(real) <= set(counted)
    loader = SimpleNamespace(dataset=data, collate_fn=collate)
    measured = measure_batch_shapes(loader, batch_size=4, encoder=False, longest_of_stream=0)
    assert layout.measure_extremes(LENGTHS, LIMITS) == replace(measured, row_counts=None)


def test_a_grouped_epoch_has_every_row_once_and_little_padding() -> None:
    grouped, shuffled = BatchLayout(4, 8, group_by_length=True), BatchLayout(4, 8)
    orders = [grouped.order_rows(LENGTHS, epoch).tolist() for epoch in range(3)]
    assert all(sorted(order) == list(range(101)) for order in orders)
    assert orders[0] != orders[1]

    def padding(layout: BatchLayout) -> float:
        counted, epochs = layout.count_shapes(LENGTHS, LIMITS)
        total = sum(shape.rows * shape.lengths[0] * count for shape, count in counted.items())
        return 1 - epochs * sum(length for (length,) in LENGTHS) / total

    assert padding(grouped) < 0.15 < 0.3 < padding(shuffled)


def test_the_order_of_an_epoch_depends_on_seed_and_epoch_alone() -> None:
    layout = BatchLayout(4, 8, group_by_length=True, seed=5)
    sampler = OrderedSampler(layout, LENGTHS)
    torch.manual_seed(1)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    again = OrderedSampler(layout, LENGTHS)
    again.set_epoch(1)
    torch.manual_seed(2)
    assert list(again) == second != first
    assert list(OrderedSampler(replace(layout, seed=6), LENGTHS)) != first


@pytest.fixture(scope="module")
def model(model_folder: Path) -> PreTrainedModel:
    return load_model(model_folder)


def choose(model: PreTrainedModel, lengths: list[Lengths], method: str = "full", **settings: Any) -> BatchLayout:
    given = Hyperparameters(batch_size=8, **settings)
    return choose_layout(model, lengths, given, method=method, test_packing=lambda: PackedCollator(model, 0))


def test_auto_packs_short_rows_of_different_length_alone(model: PreTrainedModel) -> None:
    uneven: list[Lengths] = [(2 * (1 + n % 8),) for n in range(64)]
    assert choose(model, uneven, packing="auto").packing
    assert not choose(model, [(32,)] * 64, packing="auto").packing
    long: list[Lengths] = [(256 * length,) for (length,) in uneven]  # attention over the joined rows costs more
    assert not choose(model, long, packing="auto").packing
    assert not choose(model, uneven, "prefix", packing="auto").packing


def test_auto_does_not_pack_where_the_model_mixes_rows(model: PreTrainedModel) -> None:
    uneven: list[Lengths] = [(2 * (1 + n % 8),) for n in range(64)]
    hook = model.model.layers[0].register_forward_hook(lambda _, inputs, output: output + output.mean(1, keepdim=True))
    try:
        assert choose(model, uneven, packing="auto", group_by_length="auto") == BatchLayout(8, 8, group_by_length=True)
        with pytest.raises(SettingUnsupported, match="attend across them") as refused:
            choose(model, uneven, packing=True)
        assert refused.value.field == "packing"
    finally:
        hook.remove()


def test_auto_groups_rows_where_it_saves_padding_and_they_are_not_packed(model: PreTrainedModel) -> None:
    uneven: list[Lengths] = [(64 * (1 + n % 8),) for n in range(64)]
    assert choose(model, uneven, packing="auto", group_by_length="auto") == BatchLayout(8, 8, group_by_length=True)
    assert choose(model, [(32,)] * 64, group_by_length="auto") == BatchLayout(8, 8)


def test_prefix_tuning_refuses_what_hides_its_keys(model: PreTrainedModel) -> None:
    for field in ("packing", "gradient_checkpointing"):
        with pytest.raises(SettingUnsupported) as refused:
            choose(model, [(8,)] * 8, "prefix", **{field: True})
        assert refused.value.field == field
