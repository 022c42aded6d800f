"""FLOPs of single operators: attention whose heads share keys and values, on every kernel."""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import flop_registry

from greencore.backprop.cost.operator_flops import COUNTED_ATTENTION, UNCOUNTED_MATMULS, count_operator_flops
from tests.greencore.backprop.executed import counts_shared_heads

aten = torch.ops.aten
ROWS, HEADS, SHARED, LENGTH, WIDTH = 2, 8, 2, 16, 4
SCORES = ROWS * HEADS * LENGTH * LENGTH
ATTENTION = [packet for packet in (*COUNTED_ATTENTION, *UNCOUNTED_MATMULS) if packet is not aten._grouped_mm]


@pytest.mark.parametrize("packet", ATTENTION, ids=str)
def test_attention_is_counted_by_the_heads_of_the_query(packet: Any) -> None:
    query = torch.empty(ROWS, HEADS, LENGTH, WIDTH, device="meta")
    shared = torch.empty(ROWS, SHARED, LENGTH, WIDTH, device="meta")
    backward = "backward" in str(packet)
    args = (query, query, shared, shared) if backward else (query, shared, shared)
    overload = getattr(packet, packet.overloads()[0])
    found = count_operator_flops(overload, args, {}, query)
    assert found.products == 2 * WIDTH * SCORES * (5 if backward else 2)
    assert found.counted == (found.products if packet in COUNTED_ATTENTION else 0)
    assert found.total - found.products == SCORES * (8 if backward else 6)
    if packet in COUNTED_ATTENTION and counts_shared_heads():
        assert found.counted == flop_registry[packet](*args, out_val=query)
