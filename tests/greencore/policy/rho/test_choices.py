from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greencore.carbon import IntensitySeries, Reading
from greencore.policy import PolicyContext, PreviousRho, RhoDecision, UtilityCurve, decide_rho, parse_policy

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
BUDGET: dict[str, Any] = {"kind": "budget", "budget_gco2e": 500, "rho_max": 1.0, "rho_min": 0.4}
PRICE: dict[str, Any] = {"kind": "price", "gco2e_per_loss": 50, "rho_max": 1.0, "rho_min": 0.4}
CURVE = UtilityCurve(np.array([0.4, 0.6, 1.0]), np.array([1.0, 3.0, 5.0]))


def hourly(values: Sequence[float], *, start: datetime = NOW, **about: Any) -> IntensitySeries:
    return IntensitySeries(
        Reading(
            zone="ES",
            start=start + timedelta(hours=hour),
            end=start + timedelta(hours=hour + 1),
            gco2e_per_kwh=value,
            source="synthetic",
            fetched_at=NOW,
            **about,
        )
        for hour, value in enumerate(values)
    )


def reading(gco2e_per_kwh: float) -> Reading:
    return hourly([gco2e_per_kwh]).readings[0]


def decided(body: dict[str, Any], gco2e_per_kwh: float | None, **known: Any) -> RhoDecision:
    run: dict[str, Any] = {"epochs_left": 4, "epoch_hours": 1.0, "epoch_kwh": 1.0, "utility": CURVE}
    newest = None if gco2e_per_kwh is None else reading(gco2e_per_kwh)
    return decide_rho(parse_policy(body), PolicyContext(now=NOW, reading=newest, **(run | known)))


def test_a_budget_that_lasts_trains_everything() -> None:
    decision = decided(BUDGET, 100)
    assert (decision.rho, decision.price_gco2e, decision.ends_run) == (1.0, None, False)
    assert decision.reason == (
        "100 gCO2e/kWh (synthetic, 0 s old) now; 500 of 500 gCO2e remain for 4 epochs, 400 at ρ = 1, so ρ = 1"
    )


def test_a_budget_that_binds_is_shared_by_the_epochs_that_are_left() -> None:
    decision = decided(BUDGET, 200, spent_gco2e=20)
    assert decision.rho == pytest.approx(0.6)
    assert "480 of 500 gCO2e remain for 4 epochs, 800 at ρ = 1, so ρ = 0.6" in decision.reason


def test_a_budget_saves_for_cleaner_hours_ahead() -> None:
    assert decided(BUDGET, 300, forecast=hourly([300, 300, 100, 100])).rho == pytest.approx(0.4)
    assert decided(BUDGET, 100, forecast=hourly([100, 100, 300, 300])).rho == pytest.approx(1.0)


def test_beyond_the_forecast_its_last_value_goes_on() -> None:
    short = decided(BUDGET, 300, forecast=hourly([300, 200]))
    assert short.rho == decided(BUDGET, 300, forecast=hourly([300, 200, 200, 200])).rho


def test_the_reading_holds_until_a_forecast_begins() -> None:
    late = hourly([100, 100, 100], start=NOW + timedelta(hours=1))
    assert decided(BUDGET, 300, forecast=late).rho == decided(BUDGET, 300, forecast=hourly([300, 100, 100, 100])).rho


def test_a_forecast_of_another_signal_is_not_mixed_with_the_reading() -> None:
    late = hourly([500, 500], start=NOW + timedelta(hours=1), signal="marginal")
    assert decided(BUDGET, 0, forecast=late).rho < 1


def test_price_gco2e_is_the_marginal_price_of_an_epochs_learning() -> None:
    # The second segment brings 2 of 5 over 0.4 of ρ, which emits 80 gCO2e.
    decision = decided(BUDGET, 200)
    assert decision.price_gco2e == pytest.approx(200)


def test_the_default_curve_is_named_until_there_is_a_probe() -> None:
    assert "(default curve, no probe yet), so" in decided(BUDGET, 200, utility=None).reason
    assert "(default curve, no probe yet), so" in decided(PRICE, 200, utility=None).reason
    assert "default curve" not in decided(BUDGET, 200).reason


def test_epochs_have_rho_min_where_not_all_fit_into_the_budget() -> None:
    decision = decided(BUDGET, 1000)
    assert (decision.rho, decision.ends_run) == (0.4, False)
    assert "500 of 500 gCO2e remain, less than the 1600 that 4 epochs emit at rho_min, so ρ = 0.4" in decision.reason


def test_a_run_ends_before_an_epoch_that_does_not_fit() -> None:
    decision = decided(BUDGET, 1000, spent_gco2e=101)
    assert decision.ends_run
    assert decision.reason == (
        "1000 gCO2e/kWh (synthetic, 0 s old) now; this epoch would emit 400 gCO2e at the least, and 399 of 500 gCO2e "
        "remain: the run ends before it"
    )
    assert not decided(BUDGET, 1000, spent_gco2e=100).ends_run


def test_a_run_over_its_budget_continues_only_without_emissions() -> None:
    assert decided(BUDGET, 1, spent_gco2e=600).ends_run
    free = decided(BUDGET, 0, spent_gco2e=600)
    assert (free.rho, free.ends_run) == (1.0, False)


@pytest.mark.parametrize("body", [BUDGET, PRICE], ids=["budget", "price"])
@pytest.mark.parametrize("known", [{}, {"epoch_kwh": None}, {"epoch_hours": None}], ids=str)
def test_an_intensity_of_zero_trains_everything(body: dict[str, Any], known: dict[str, Any]) -> None:
    decision = decided(body, 0, **known)
    assert decision.rho == 1.0
    assert "now, at which this epoch emits nothing, so ρ = 1" in decision.reason


@pytest.mark.parametrize("body", [BUDGET, PRICE], ids=["budget", "price"])
def test_rho_is_rho_min_while_an_epochs_energy_is_unknown(body: dict[str, Any]) -> None:
    decision = decided(body, 200, epoch_kwh=None)
    assert (decision.rho, decision.ends_run) == (0.4, False)
    assert "what an epoch emits is not known yet" in decision.reason


def test_a_used_up_budget_ends_the_run_without_any_intensity() -> None:
    assert decided(BUDGET, 200, epoch_kwh=None, spent_gco2e=500).ends_run
    blind = decided(BUDGET, None, spent_gco2e=500)
    assert blind.ends_run
    assert blind.reason == (
        "no intensity reading and no forecast, and 0 of 500 gCO2e remain: the run ends before this epoch"
    )


def test_the_present_intensity_is_used_while_an_epochs_length_is_unknown() -> None:
    decision = decided(BUDGET, 200, epoch_hours=None, forecast=hourly([200, 900, 900, 900]))
    assert decision.rho == decided(BUDGET, 200).rho


@pytest.mark.parametrize("body", [BUDGET, PRICE], ids=["budget", "price"])
def test_a_forecast_alone_is_enough(body: dict[str, Any]) -> None:
    forecast = hourly([200] * 4)
    decision = decided(body, None, forecast=forecast)
    assert decision.rho == decided(body, 200, forecast=forecast).rho
    assert (decision.intensity_gco2e_per_kwh, decision.source, decision.step) == (200, "synthetic", "forecast")
    assert (decision.age_seconds, decision.estimated) == (0, True)
    assert decision.reason.startswith("no intensity reading, but a forecast of 200 gCO2e/kWh (synthetic, forecast, 0 s")


def test_a_forecast_that_begins_later_says_when() -> None:
    late = hourly([200] * 4, start=NOW + timedelta(hours=3))
    assert "a forecast of 200 gCO2e/kWh (synthetic, forecast, in 3 h)" in decided(PRICE, None, forecast=late).reason


@pytest.mark.parametrize(("previous", "rho"), [(1.0, 0.6), (0.5, 0.5), (0.3, 0.4)])
def test_smoothing_leaves_the_other_epochs_rho_min(previous: float, rho: float) -> None:
    # 4 epochs of 500 gCO2e: rho_min for three takes 600 of 900, which leaves 300 for this one. The plan asks for 0.45.
    calm = BUDGET | {"budget_gco2e": 900, "smoothing": {"min_epochs": 5}}
    decision = decided(calm, 500, previous=PreviousRho(previous, 1))
    assert decision.rho == pytest.approx(rho)
    assert "so ρ = 0.45, smoothed to" in decision.reason


@pytest.mark.parametrize(
    ("gco2e_per_kwh", "rho"),
    [(0.1, 1.0), (24.9, 1.0), (25.1, 0.6), (49.9, 0.6), (50.1, 0.4), (9999, 0.4)],
)
def test_price_sets_rho_where_marginal_worth_equals_emissions(gco2e_per_kwh: float, rho: float) -> None:
    # Half a unit of loss is worth 25 gCO2e; the curve's segments bring 2 and 1 of that per unit of ρ.
    assert decided(PRICE, gco2e_per_kwh, loss_per_epoch=0.5).rho == rho


def test_the_reason_of_price_gives_emissions_and_worth() -> None:
    decision = decided(PRICE, 30, loss_per_epoch=0.25)
    assert decision.price_gco2e == 12.5
    assert decision.reason == (
        "30 gCO2e/kWh (synthetic, 0 s old) now; at ρ = 1 this epoch would emit 30 gCO2e, and take 0.25 off the loss, "
        "worth 12.5, so ρ = 0.4"
    )
    assumed = decided(PRICE, 30)
    assert "take 0.5 off the loss (assumed, none measured yet), worth 25, so ρ = 0.6" in assumed.reason


def test_price_uses_the_mean_intensity_of_its_epoch() -> None:
    assert decided(PRICE, 10, forecast=hourly([10, 10, 90, 90]), epoch_hours=4.0).rho == 0.6


@pytest.mark.parametrize("loss", [0.0, -0.3])
def test_rho_is_rho_min_where_an_epoch_does_not_reduce_the_loss(loss: float) -> None:
    assert decided(PRICE, 30, loss_per_epoch=loss).rho == 0.4


def test_price_sets_rho_min_for_a_curve_of_zeros() -> None:
    worthless = UtilityCurve(np.array([0.4, 1.0]), np.array([0.0, 0.0]))
    assert decided(PRICE, 30, utility=worthless).rho == 0.4
    assert 0.4 <= decided(BUDGET, 200, utility=worthless).rho <= 1.0


@settings(deadline=None)
@given(
    forecast=st.lists(st.floats(0, 800), min_size=2, max_size=10),
    error=st.floats(0, 1),
    budget=st.floats(50, 5000),
    epochs=st.integers(1, 8),
    epoch_hours=st.floats(0.2, 3),
    min_epochs=st.integers(1, 4),
    data=st.data(),
)
def test_a_budget_is_exceeded_by_at_most_one_epochs_forecast_error(
    forecast: list[float],
    error: float,
    budget: float,
    epochs: int,
    epoch_hours: float,
    min_epochs: int,
    data: st.DataObject,
) -> None:
    smoothing = {"min_epochs": min_epochs, "max_change": 0.3}
    policy = parse_policy(BUDGET | {"budget_gco2e": budget, "smoothing": smoothing})
    expected = hourly(forecast)
    now, spent, previous, forecast_error = NOW, 0.0, None, 0.0
    for done in range(epochs):
        decision = decide_rho(
            policy,
            PolicyContext(
                now=now,
                reading=None,
                forecast=expected,
                previous=previous,
                epochs_left=epochs - done,
                epoch_hours=epoch_hours,
                epoch_kwh=2.0,
                spent_gco2e=spent,
                utility=CURVE,
            ),
        )
        if decision.ends_run:
            break
        end = now + timedelta(hours=epoch_hours * decision.rho)
        planned = expected.mean(now, end).gco2e_per_kwh * 2.0 * decision.rho
        emitted = planned * (1 + data.draw(st.floats(0, 1)) * error)
        spent += emitted
        forecast_error = max(forecast_error, emitted - planned)
        epochs_at_it = 1 if previous is None or previous.rho != decision.rho else previous.epochs + 1
        previous, now = PreviousRho(decision.rho, epochs_at_it), end
    assert spent <= budget * (1 + 1e-8) + forecast_error
