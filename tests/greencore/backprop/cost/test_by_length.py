"""Costs at every length, interpolated from a few traced lengths."""

from collections.abc import Collection, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel

from benchmarks.training.families import build_family_model as tiny
from greencore.backprop import Profile, profile
from greencore.backprop.cost.by_length import Lengths, choose_trace_lengths, compute_interpolation_weights

LENGTH = st.integers(1, 600)


def at(model: PreTrainedModel, lengths: Lengths) -> Profile:
    ids = torch.zeros(2, lengths[0], dtype=torch.long)
    labels = torch.zeros(2, lengths[-1], dtype=torch.long)
    return profile(model, {"input_ids": ids, "labels": labels})


def selections(costs: Profile) -> list[list[str]]:
    names = [tensor.name for tensor in costs.tensors]
    return [[], names, names[:7]]


def fitted(profiles: Sequence[Profile], of: Collection[float], names: Collection[str]) -> tuple[float, float]:
    steps = np.array([[p.step_flops(names), p.matmul_step_flops(names)] for p in profiles], dtype=np.float64)
    total, matmul = np.asarray(of) @ steps
    return float(total), float(matmul)


def test_two_traced_lengths_give_the_cost_at_any_length(model: PreTrainedModel) -> None:
    traced = choose_trace_lengths((8,), (40,))
    assert traced == ((40,), (8,))
    profiles = [at(model, lengths) for lengths in traced]
    for length in (8, 24, 40):
        exact = at(model, (length,))
        for names in selections(exact):
            total, matmul = fitted(profiles, compute_interpolation_weights(traced, [(length,)])[0], names)
            assert total == pytest.approx(exact.step_flops(names), rel=1e-4)
            assert matmul == pytest.approx(exact.matmul_step_flops(names), rel=1e-9)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ["t5", "bart"])
def test_five_traced_pairs_give_the_cost_at_any_pair(name: str, attention: str) -> None:
    model = tiny(name, attention).eval()
    traced = choose_trace_lengths((6, 3), (30, 16))
    profiles = [at(model, lengths) for lengths in traced]
    for lengths in [(6, 3), (30, 3), (17, 11), (30, 16)]:
        exact = at(model, lengths)
        for names in selections(exact):
            total, matmul = fitted(profiles, compute_interpolation_weights(traced, [lengths])[0], names)
            assert total == pytest.approx(exact.step_flops(names), rel=1e-4)
            assert matmul == pytest.approx(exact.matmul_step_flops(names), rel=1e-9)


@given(short=LENGTH, long=LENGTH, wanted=LENGTH, linear=st.integers(0, 10**9), square=st.integers(0, 10**6))
def test_any_decoder_polynomial_is_recovered(short: int, long: int, wanted: int, linear: int, square: int) -> None:
    traced = choose_trace_lengths((short,), (long,))
    costs = [linear * length + square * length**2 for (length,) in traced]
    found = float(compute_interpolation_weights(traced, [(wanted,)])[0] @ np.array(costs, dtype=np.float64))
    scale = max(*costs, linear * wanted + square * wanted**2, 1)
    assert found == pytest.approx(linear * wanted + square * wanted**2, abs=1e-6 * scale * max(1, wanted / short) ** 2)


@given(
    shortest=st.tuples(LENGTH, LENGTH),
    span=st.tuples(LENGTH, LENGTH),
    part=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    terms=st.lists(st.integers(0, 10**6), min_size=5, max_size=5),
)
def test_any_encoder_decoder_polynomial_is_recovered_between_its_ends(
    shortest: tuple[int, int], span: tuple[int, int], part: tuple[float, float], terms: list[int]
) -> None:
    def cost(source: int, target: int) -> int:
        values = (source, target, source**2, target**2, source * target)
        return sum(term * value for term, value in zip(terms, values, strict=True))

    longest = (shortest[0] + span[0], shortest[1] + span[1])
    traced = choose_trace_lengths(shortest, longest)
    source, target = (round(low + share * width) for low, share, width in zip(shortest, part, span, strict=True))
    found = float(
        compute_interpolation_weights(traced, [(source, target)])[0]
        @ np.array([cost(s, t) for s, t in traced], dtype=np.float64)
    )
    assert found == pytest.approx(cost(source, target), abs=1e-6 * max(cost(*traced[0]), 1))


@pytest.mark.parametrize("extremes", [((8,), (4, 4)), ((8, 8, 8), (9, 9, 9)), ((0,), (4,)), ((4, 0), (4, 4))])
def test_invalid_lengths_are_refused(extremes: tuple[Lengths, Lengths]) -> None:
    with pytest.raises(ValueError, match="lengths are"):
        choose_trace_lengths(*extremes)


def test_equal_extremes_are_widened() -> None:
    assert choose_trace_lengths((8,), (8,)) == ((10,), (8,))
    assert len(set(choose_trace_lengths((8, 8), (8, 8)))) == 5
