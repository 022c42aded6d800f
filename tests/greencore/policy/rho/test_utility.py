import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from greencore.arrays import Floats
from greencore.concave_curve import count_worthwhile_segments
from greencore.policy import DEFAULT_UTILITY, UtilityCurve
from tests.greencore.policy.curves import curves

CURVE = UtilityCurve(np.array([0.4, 0.6, 1.0]), np.array([1.0, 3.0, 5.0]))  # slopes 10 and 5


def optimal_rho(curve: UtilityCurve, price: ArrayLike) -> Floats:
    """The smallest ρ of the most value less price; the last point where the price is 0."""
    return np.asarray(curve.rho[count_worthwhile_segments(curve.slopes, price)])


@pytest.mark.parametrize(("price", "rho"), [(0, 1.0), (4.9, 1.0), (5, 0.6), (7, 0.6), (9.9, 0.6), (10, 0.4), (11, 0.4)])
def test_optimal_rho_falls_with_the_price_and_is_the_smaller_of_a_tie(price: float, rho: float) -> None:
    # The slopes are differences, so that a tie is one to the last digit only at the slope itself.
    slopes = dict(zip((10, 5), CURVE.slopes, strict=True))
    assert optimal_rho(CURVE, slopes.get(int(price), price) if price == int(price) else price) == rho


def test_optimal_rho_at_price_0_is_the_last_point() -> None:
    flat = UtilityCurve(np.array([0.4, 0.6, 1.0]), np.array([1.0, 3.0, 3.0]))
    assert optimal_rho(flat, 0) == 1.0
    assert optimal_rho(flat, 1e-300) == 0.6


@given(curve=curves(), prices=st.lists(st.floats(1e-3, 30), min_size=1, max_size=10))
def test_optimal_rho_has_the_most_value_less_price(curve: UtilityCurve, prices: list[float]) -> None:
    rho = optimal_rho(curve, np.array(prices))
    assert rho.shape == (len(prices),)
    for price, share in zip(prices, rho.tolist(), strict=True):
        net = curve.value - price * curve.rho
        assert curve.at(share) - price * share == pytest.approx(net.max())
        assert share == optimal_rho(curve, price)


@given(curve=curves(), bounds=st.lists(st.integers(5, 100), min_size=2, max_size=2, unique=True).map(sorted))
def test_a_clipped_curve_is_unchanged_within_its_bounds(curve: UtilityCurve, bounds: list[int]) -> None:
    low, high = bounds[0] / 100, bounds[1] / 100
    clipped = curve.clip(low, high)
    assert (clipped.rho[0], clipped.rho[-1]) == (low, high)
    within = np.linspace(low, high, 50)
    np.testing.assert_allclose(clipped.at(within), curve.at(within), atol=1e-9)


def test_a_curve_is_extrapolated_linearly_below_and_flat_above() -> None:
    half = UtilityCurve(np.array([0.4, 0.6]), np.array([1.0, 3.0]))
    np.testing.assert_allclose(half.at([0.3, 0.4, 0.5, 0.6, 0.9]), [0.0, 1.0, 2.0, 3.0, 3.0], atol=1e-9)


def test_to_json_and_from_json_are_inverse() -> None:
    back = UtilityCurve.from_json(json.loads(json.dumps(DEFAULT_UTILITY.to_json())))
    assert back.rho.tolist() == DEFAULT_UTILITY.rho.tolist()
    assert back.value.tolist() == DEFAULT_UTILITY.value.tolist()


def test_a_curve_of_many_points_is_stored_with_few_and_loses_little() -> None:
    rho = np.linspace(0.34, 1.0, 5000)
    curve = UtilityCurve(rho, np.sqrt(rho - 0.33))
    stored = UtilityCurve.from_json(curve.to_json())
    assert len(stored.rho) <= 64
    assert (stored.rho[0], stored.rho[-1]) == (rho[0], rho[-1])
    lost = curve.value - stored.at(rho)
    assert (lost > -1e-12).all()
    assert lost.max() < 1e-3 * (curve.value[-1] - curve.value[0])


@given(points=st.lists(st.tuples(st.integers(10, 100), st.integers(0, 50)), min_size=2, max_size=30, unique_by=min))
def test_a_curve_through_points_is_their_concave_hull(points: list[tuple[int, int]]) -> None:
    by_rho = dict(points)
    rho = np.array(sorted(by_rho)) / 100
    if len(rho) < 2:
        return
    value = np.maximum.accumulate([float(by_rho[share]) for share in sorted(by_rho)])
    hull = UtilityCurve.from_points(rho, value)
    assert (hull.at(rho) >= value - 1e-9).all()
    assert set(zip(hull.rho.tolist(), hull.value.tolist(), strict=True)) <= set(
        zip(rho.tolist(), value.tolist(), strict=True)
    )


@pytest.mark.parametrize(
    ("rho", "value", "message"),
    [
        ([0.5], [1.0], "at least 2 points"),
        ([0.5, 1.0], [1.0], "two lists of equal length"),
        ([0.5, 0.5], [1.0, 2.0], r"ascend within \(0, 1\]"),
        ([0.0, 0.5], [1.0, 2.0], r"ascend within \(0, 1\]"),
        ([0.5, 1.1], [1.0, 2.0], r"ascend within \(0, 1\]"),
        ([0.5, 1.0], [1.0, float("nan")], "finite"),
        ([0.5, 1.0], [2.0, 1.0], "never to fall"),
        ([0.4, 0.6, 1.0], [0.0, 1.0, 4.0], "concave"),
    ],
)
def test_an_invalid_curve_is_refused(rho: list[float], value: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UtilityCurve.from_json({"rho": rho, "value": value})


@pytest.mark.parametrize("body", [{}, {"rho": [0.5, 1.0]}, {"rho": 3, "value": "x"}, {"rho": [None, 1], "value": []}])
def test_json_without_a_curve_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"rho"):
        UtilityCurve.from_json(body)


def test_a_curve_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        CURVE.value[0] = 2.0


def test_normalise_scales_to_1_at_rho_1_and_keeps_zeros() -> None:
    assert CURVE.normalise().at(1.0) == 1.0
    assert UtilityCurve(CURVE.rho, 3 * CURVE.value).normalise().at(0.5) == pytest.approx(0.4)
    assert UtilityCurve(np.array([0.5, 1.0]), np.array([0.0, 0.0])).normalise().at(1.0) == 0.0


def test_the_default_curve_is_0_at_a_third_and_1_at_1() -> None:
    assert DEFAULT_UTILITY.at([1 / 3, 0.5, 1.0]) == pytest.approx([0, 0.5, 1], abs=1e-3)
    assert (np.diff(DEFAULT_UTILITY.slopes) < 0).all()
