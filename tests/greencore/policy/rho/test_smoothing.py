import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greencore.policy import PreviousRho, Smoothing
from greencore.policy.rho.smoothing import smooth_rho, smooth_rhos

ANYWHERE = (0.01, 1.0)


def after(rho: float, previous: float, *, epochs: int = 9, **rules: float) -> tuple[float, str | None]:
    return smooth_rho(rho, PreviousRho(previous, epochs), Smoothing.model_validate(rules), ANYWHERE)


def test_nothing_is_smoothed_at_the_first_epoch() -> None:
    calm = Smoothing(deadband=0.5, min_epochs=9, max_change=0.01)
    assert smooth_rho(0.4, None, calm, ANYWHERE) == (0.4, None)


@pytest.mark.parametrize(("rho", "kept"), [(0.64, True), (0.56, True), (0.65, False), (0.55, False), (0.7, False)])
def test_a_change_of_less_than_the_deadband_is_left_out(rho: float, kept: bool) -> None:
    result, why = after(rho, 0.6, deadband=0.05)
    assert result == (0.6 if kept else rho)
    assert why == ("the change is less than the deadband of 0.05" if kept else None)


def test_a_deadband_of_0_keeps_every_change() -> None:
    assert after(0.6000001, 0.6, deadband=0) == (0.6000001, None)


@pytest.mark.parametrize(("epochs", "rho"), [(1, 0.6), (2, 0.6), (3, 1.0), (4, 1.0)])
def test_a_rho_is_kept_for_its_number_of_epochs(epochs: int, rho: float) -> None:
    result, why = after(1.0, 0.6, epochs=epochs, min_epochs=3, max_change=1.0)
    assert result == rho
    assert why == (None if rho == 1.0 else f"a ρ is kept for 3 epochs, this one has been for {epochs}")


@pytest.mark.parametrize(("rho", "result"), [(1.0, 0.7), (0.1, 0.3), (0.7, 0.7), (0.65, 0.65)])
def test_a_large_change_is_split_over_epochs(rho: float, result: float) -> None:
    found, why = after(rho, 0.5, max_change=0.2)
    assert found == pytest.approx(result)
    assert why == (None if found == rho else "ρ changes by 0.2 an epoch at most")


def test_an_unchanged_rho_has_no_reason() -> None:
    assert after(0.6, 0.6, epochs=1, min_epochs=5) == (0.6, None)


def test_the_range_overrides_every_other_rule() -> None:
    kept = Smoothing(min_epochs=5)
    assert smooth_rho(0.5, PreviousRho(0.9, 1), kept, (0.4, 0.7)) == (0.7, "ρ stays within 0.4 to 0.7")
    assert smooth_rho(0.5, PreviousRho(0.2, 1), kept, (0.4, 0.7)) == (0.4, "ρ stays within 0.4 to 0.7")


rhos = st.integers(1, 100).map(lambda hundredths: hundredths / 100) | st.floats(0.01, 1)
rules = st.builds(
    Smoothing,
    deadband=st.sampled_from([0.0, 0.05, 0.1]),
    min_epochs=st.integers(1, 4),
    max_change=st.sampled_from([0.05, 0.3, 1.0]),
)


@given(
    runs=st.lists(st.tuples(rhos, rhos | st.none(), st.integers(1, 5)), min_size=1, max_size=20),
    smoothing=rules,
    bounds=st.lists(rhos, min_size=2, max_size=2).map(sorted),
)
def test_smooth_rhos_equals_smooth_rho_of_each(
    runs: list[tuple[float, float | None, int]], smoothing: Smoothing, bounds: list[float]
) -> None:
    rho_range = (bounds[0], bounds[1])
    together, _ = smooth_rhos(
        np.array([rho for rho, _, _ in runs]),
        np.array([np.nan if previous is None else previous for _, previous, _ in runs]),
        np.array([epochs for _, _, epochs in runs]),
        smoothing,
        rho_range,
    )
    for found, (rho, previous, epochs) in zip(together.tolist(), runs, strict=True):
        before = None if previous is None else PreviousRho(previous, epochs)
        assert found == smooth_rho(rho, before, smoothing, rho_range)[0]


@given(rho=rhos, previous=rhos, epochs=st.integers(1, 5), smoothing=rules)
def test_a_smoothed_rho_is_between_the_previous_and_the_unsmoothed_one(
    rho: float, previous: float, epochs: int, smoothing: Smoothing
) -> None:
    found, why = smooth_rho(rho, PreviousRho(previous, epochs), smoothing, ANYWHERE)
    assert min(rho, previous) - 1e-12 <= found <= max(rho, previous) + 1e-12
    assert abs(found - previous) <= smoothing.max_change + 2e-9
    assert (why is None) == (found == rho)


def test_nan_stays_nan_after_smoothing() -> None:
    found, _ = smooth_rhos(np.array([np.nan]), np.array([0.5]), np.array([3]), Smoothing(), ANYWHERE)
    assert np.isnan(found).all()
