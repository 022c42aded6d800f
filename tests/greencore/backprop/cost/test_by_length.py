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
from greencore.cost_polynomial import SOURCE_AND_TARGET, TOKENS, TOKENS_AND_LOGITS, Terms
from greencore.training.methods.step_costs import make_batch

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
    traced = choose_trace_lengths((8,), (40,), TOKENS)
    assert traced == ((40,), (8,))
    profiles = [at(model, lengths) for lengths in traced]
    for length in (8, 24, 40):
        exact = at(model, (length,))
        for names in selections(exact):
            total, matmul = fitted(profiles, compute_interpolation_weights(traced, [(length,)], TOKENS)[0], names)
            assert total == pytest.approx(exact.step_flops(names), rel=1e-4)
            assert matmul == pytest.approx(exact.matmul_step_flops(names), rel=1e-9)


def test_three_traced_pairs_give_the_cost_with_any_number_of_logits(model: PreTrainedModel) -> None:
    def trace(lengths: Lengths) -> Profile:
        return profile(model, make_batch(2, lengths, torch.device("cpu"), terms=TOKENS_AND_LOGITS))

    traced = choose_trace_lengths((8, 3), (40, 24), TOKENS_AND_LOGITS)
    profiles = [trace(lengths) for lengths in traced]
    for lengths in [(8, 8), (24, 3), (40, 17)]:
        exact = trace(lengths)
        for names in selections(exact):
            total, matmul = fitted(
                profiles, compute_interpolation_weights(traced, [lengths], TOKENS_AND_LOGITS)[0], names
            )
            assert total == pytest.approx(exact.step_flops(names), rel=1e-4)
            assert matmul == pytest.approx(exact.matmul_step_flops(names), rel=1e-9)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ["t5", "bart"])
def test_five_traced_pairs_give_the_cost_at_any_pair(name: str, attention: str) -> None:
    model = tiny(name, attention).eval()
    traced = choose_trace_lengths((6, 3), (30, 16), SOURCE_AND_TARGET)
    profiles = [at(model, lengths) for lengths in traced]
    for lengths in [(6, 3), (30, 3), (17, 11), (30, 16)]:
        exact = at(model, lengths)
        for names in selections(exact):
            total, matmul = fitted(
                profiles, compute_interpolation_weights(traced, [lengths], SOURCE_AND_TARGET)[0], names
            )
            assert total == pytest.approx(exact.step_flops(names), rel=1e-4)
            assert matmul == pytest.approx(exact.matmul_step_flops(names), rel=1e-9)


@given(short=LENGTH, long=LENGTH, wanted=LENGTH, linear=st.integers(0, 10**9), square=st.integers(0, 10**6))
def test_any_decoder_polynomial_is_recovered(short: int, long: int, wanted: int, linear: int, square: int) -> None:
    traced = choose_trace_lengths((short,), (long,), TOKENS)
    costs = [linear * length + square * length**2 for (length,) in traced]
    found = float(compute_interpolation_weights(traced, [(wanted,)], TOKENS)[0] @ np.array(costs, dtype=np.float64))
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
    traced = choose_trace_lengths(shortest, longest, SOURCE_AND_TARGET)
    source, target = (round(low + share * width) for low, share, width in zip(shortest, part, span, strict=True))
    found = float(
        compute_interpolation_weights(traced, [(source, target)], SOURCE_AND_TARGET)[0]
        @ np.array([cost(s, t) for s, t in traced], dtype=np.float64)
    )
    assert found == pytest.approx(cost(source, target), abs=1e-6 * max(cost(*traced[0]), 1))


@pytest.mark.parametrize(
    ("extremes", "terms"),
    [
        (((8,), (4, 4)), TOKENS),
        (((8, 8, 8), (9, 9, 9)), SOURCE_AND_TARGET),
        (((0,), (4,)), TOKENS),
        (((4, 0), (4, 4)), SOURCE_AND_TARGET),
        (((4,), (4,)), TOKENS_AND_LOGITS),
    ],
)
def test_invalid_lengths_are_refused(extremes: tuple[Lengths, Lengths], terms: Terms) -> None:
    with pytest.raises(ValueError, match="of at least 1, got"):
        choose_trace_lengths(*extremes, terms)


def test_equal_extremes_are_widened() -> None:
    assert choose_trace_lengths((8,), (8,), TOKENS) == ((10,), (8,))
    assert choose_trace_lengths((8, 8), (8, 8), TOKENS_AND_LOGITS) == ((10, 10), (10, 8), (8, 8))
    assert len(set(choose_trace_lengths((8, 8), (8, 8), SOURCE_AND_TARGET))) == 5
