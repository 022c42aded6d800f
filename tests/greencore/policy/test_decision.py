from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from greencore.carbon import IntensitySeries, Reading
from greencore.policy import IntensityMissing, PolicyContext, PreviousRho, RhoDecision, decide_rho, parse_policy

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
STEPS: dict[str, Any] = {
    "kind": "steps",
    "steps": [{"up_to": 150, "rho": 1.0}, {"up_to": 300, "rho": 0.7}, {"rho": 0.5}],
}
LINEAR: dict[str, Any] = {"kind": "linear", "clean": 100, "dirty": 400, "rho_max": 1.0, "rho_min": 0.4}
CONSTANT: dict[str, Any] = {"kind": "constant", "rho": 0.6}
PERCENTILE: dict[str, Any] = {"kind": "percentile", "window_hours": 4, "rho_max": 1.0, "rho_min": 0.4}
BUDGET: dict[str, Any] = {"kind": "budget", "budget_gco2e": 500, "rho_max": 1.0, "rho_min": 0.4}
PRICE: dict[str, Any] = {"kind": "price", "gco2e_per_loss": 50, "rho_max": 1.0, "rho_min": 0.4}
DIRTIEST = [(CONSTANT, 0.6), (STEPS, 0.5), (LINEAR, 0.4), (PERCENTILE, 0.4), (BUDGET, 0.4), (PRICE, 0.4)]
EVERY_KIND = pytest.mark.parametrize(("body", "dirtiest"), DIRTIEST, ids=[body["kind"] for body, _ in DIRTIEST])


def reading(gco2e_per_kwh: float, *, age_seconds: float = 4, estimated: bool = False) -> Reading:
    start = NOW - timedelta(seconds=age_seconds)
    return Reading(
        zone="ES",
        start=start,
        end=start + timedelta(hours=1),
        gco2e_per_kwh=gco2e_per_kwh,
        source="trace (synthetic)",
        estimated=estimated,
        fetched_at=NOW,
    )


def decided(
    body: dict[str, Any],
    gco2e_per_kwh: float,
    *,
    step: str | None = None,
    previous: PreviousRho | None = None,
    **about: Any,
) -> RhoDecision:
    context = PolicyContext(now=NOW, reading=reading(gco2e_per_kwh, **about), step=step, previous=previous)
    return decide_rho(parse_policy(body), context)


def without_reading(body: dict[str, Any], previous: PreviousRho | None = None) -> RhoDecision:
    return decide_rho(parse_policy(body), PolicyContext(now=NOW, reading=None, previous=previous))


@pytest.mark.parametrize(
    ("body", "gco2e_per_kwh", "reason"),
    [
        (STEPS, 212, "212 gCO2e/kWh (trace (synthetic), 4 s old) is at most 300, so ρ = 0.7"),
        (STEPS, 412.5, "412.5 gCO2e/kWh (trace (synthetic), 4 s old) is above 300, so ρ = 0.5"),
        (LINEAR, 80, "80 gCO2e/kWh (trace (synthetic), 4 s old) is at most 100, so ρ = 1"),
        (LINEAR, 250, "250 gCO2e/kWh (trace (synthetic), 4 s old) is between 100 and 400, so ρ = 0.7"),
        (LINEAR, 400, "400 gCO2e/kWh (trace (synthetic), 4 s old) is at least 400, so ρ = 0.4"),
        (
            CONSTANT,
            212,
            "212 gCO2e/kWh (trace (synthetic), 4 s old) changes nothing under a constant policy, so ρ = 0.6",
        ),
        (
            {"kind": "steps", "steps": [{"rho": 0.8}]},
            212,
            "212 gCO2e/kWh (trace (synthetic), 4 s old) falls in the only step, so ρ = 0.8",
        ),
    ],
)
def test_the_reason_describes_the_reading_and_its_place_in_the_policy(
    body: dict[str, Any], gco2e_per_kwh: float, reason: str
) -> None:
    assert decided(body, gco2e_per_kwh).reason == reason


def test_the_decision_has_the_values_of_its_reading() -> None:
    decision = decided(STEPS, 212, age_seconds=600, estimated=True, step="stale")
    assert decision == RhoDecision(
        rho=0.7,
        reason="212 gCO2e/kWh (trace (synthetic), no longer fresh, estimated, 10 min old) is at most 300, so ρ = 0.7",
        intensity_gco2e_per_kwh=212,
        source="trace (synthetic)",
        step="stale",
        age_seconds=600,
        estimated=True,
    )


@pytest.mark.parametrize(
    ("age_seconds", "words"), [(119, "119 s old"), (120, "2 min old"), (7200, "2 h old"), (172_800, "2 d old")]
)
def test_an_age_is_given_in_a_suitable_unit(age_seconds: float, words: str) -> None:
    assert words in decided(STEPS, 212, age_seconds=age_seconds).reason


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("fresh", "(trace (synthetic), 24 h old)"),
        ("stale", "(trace (synthetic), no longer fresh, 24 h old)"),
        ("forecast", "(trace (synthetic), forecast, 24 h old)"),
        ("yesterday", "(trace (synthetic), same hour yesterday, 24 h old)"),
        ("last week", "(trace (synthetic), same hour last week, 24 h old)"),
        ("static", "(trace (synthetic), yearly mean, 24 h old)"),
    ],
)
def test_the_reason_names_the_fallback_step_of_a_reading(step: str, words: str) -> None:
    decision = decided(STEPS, 212, step=step, age_seconds=86_400)
    assert decision.reason.startswith(f"212 gCO2e/kWh {words} is at most 300")
    assert (decision.step, decision.age_seconds) == (step, 86_400)


@pytest.mark.parametrize(
    ("on_missing", "previous", "rho", "reason"),
    [
        ("fallback", PreviousRho(0.9, 1), 0.5, "the policy falls back to its choice for the dirtiest grid, ρ = 0.5"),
        ("hold", PreviousRho(0.9, 1), 0.9, "the policy holds the previous ρ = 0.9"),
        (
            "hold",
            None,
            0.5,
            "there is no previous ρ to hold, and the policy falls back to its choice for the dirtiest grid, ρ = 0.5",
        ),
        ({"rho": 0.65}, PreviousRho(0.9, 1), 0.65, "the policy's on_missing sets ρ = 0.65"),
    ],
)
def test_without_a_reading_on_missing_decides(
    on_missing: object, previous: PreviousRho | None, rho: float, reason: str
) -> None:
    decision = without_reading(STEPS | {"on_missing": on_missing}, previous)
    assert decision == RhoDecision(rho, f"no intensity reading: {reason}", None, None, None, None, estimated=True)


@EVERY_KIND
def test_the_fallback_is_the_choice_for_the_dirtiest_grid(body: dict[str, Any], dirtiest: float) -> None:
    decision = without_reading(body, PreviousRho(1.0, 1))
    assert decision.rho == dirtiest
    assert "the policy falls back to its choice for the dirtiest grid" in decision.reason


@EVERY_KIND
def test_hold_keeps_the_previous_rho_under_every_kind(body: dict[str, Any], dirtiest: float) -> None:
    assert without_reading(body | {"on_missing": "hold"}, PreviousRho(0.77, 1)).rho == 0.77
    assert without_reading(body | {"on_missing": "hold"}).rho == dirtiest


@EVERY_KIND
def test_a_fixed_rho_is_taken_under_every_kind(body: dict[str, Any], dirtiest: float) -> None:
    assert without_reading(body | {"on_missing": {"rho": 0.77}}, PreviousRho(0.5, 1)).rho == 0.77


@EVERY_KIND
def test_without_a_reading_fail_raises_under_every_kind(body: dict[str, Any], dirtiest: float) -> None:
    with pytest.raises(IntensityMissing, match='on_missing is "fail"'):
        without_reading(body | {"on_missing": "fail"}, PreviousRho(0.9, 1))


def past(*values: float) -> IntensitySeries:
    """Readings of an hour each, the last of which ends now."""
    return IntensitySeries(reading(v, age_seconds=3600 * (len(values) - i)) for i, v in enumerate(values))


def ranked(gco2e_per_kwh: float, window: IntensitySeries, **policy: Any) -> RhoDecision:
    context = PolicyContext(now=NOW, reading=reading(gco2e_per_kwh), window=window, previous=PreviousRho(0.9, 1))
    return decide_rho(parse_policy(PERCENTILE | policy), context)


@pytest.mark.parametrize(
    ("gco2e_per_kwh", "rho", "rank"), [(0, 1.0, "0%"), (100, 0.925, "12%"), (250, 0.7, "50%"), (999, 0.4, "100%")]
)
def test_a_percentile_ranks_the_reading_in_its_window(gco2e_per_kwh: float, rho: float, rank: str) -> None:
    decision = ranked(gco2e_per_kwh, past(200, 100, 300, 400), smoothing={"deadband": 0, "max_change": 1.0})
    assert decision.rho == pytest.approx(rho)
    assert f" ranks at {rank} of the last 4 h, so ρ = " in decision.reason


def test_the_reason_of_percentile_gives_the_stored_hours_of_its_window() -> None:
    decision = ranked(100, past(200, 300))
    assert "ranks at 0% of the last 4 h, of which 2 h are stored, so ρ = 1" in decision.reason


@pytest.mark.parametrize("gco2e_per_kwh", [0.0, 200.0])
def test_a_flat_window_has_the_middle_rho(gco2e_per_kwh: float) -> None:
    assert ranked(gco2e_per_kwh, past(*[gco2e_per_kwh] * 4)).rho == pytest.approx(0.7)


@pytest.mark.parametrize(("on_missing", "rho"), [("fallback", 0.4), ("hold", 0.9), ({"rho": 0.65}, 0.65)])
def test_with_an_empty_window_on_missing_decides(on_missing: object, rho: float) -> None:
    decision = ranked(212, IntensitySeries(), on_missing=on_missing)
    assert decision.rho == rho
    assert decision.intensity_gco2e_per_kwh == 212
    start = "212 gCO2e/kWh (trace (synthetic), 4 s old), but no readings of the last 4 h to rank it among: the policy"
    assert decision.reason.startswith(start)


def test_with_an_empty_window_fail_raises() -> None:
    with pytest.raises(IntensityMissing, match=r"no readings of the last 4 h .* on_missing is \"fail\""):
        ranked(212, IntensitySeries(), on_missing="fail")


def test_a_decision_is_smoothed_and_gives_the_unsmoothed_rho() -> None:
    decision = decided(LINEAR | {"smoothing": {"max_change": 0.2}}, 400, previous=PreviousRho(1.0, 1))
    assert decision.rho == pytest.approx(0.8)
    assert decision.reason.endswith("is at least 400, so ρ = 0.4, smoothed to 0.8: ρ changes by 0.2 an epoch at most")


def test_the_rho_of_on_missing_is_not_smoothed() -> None:
    calm = {"smoothing": {"max_change": 0.1, "min_epochs": 9}}
    assert without_reading(LINEAR | calm, PreviousRho(1.0, 1)).rho == 0.4


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"now": NOW.replace(tzinfo=None)}, "now is .*: expected an aware time"),
        ({"epochs_left": 0}, "epochs_left is 0"),
        ({"epoch_kwh": -1.0}, "epoch_kwh is -1"),
        ({"epoch_hours": float("nan")}, "epoch_hours is nan"),
        ({"spent_gco2e": float("inf")}, "spent_gco2e is inf"),
    ],
)
def test_an_invalid_context_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PolicyContext(**({"now": NOW, "reading": None} | fields))
