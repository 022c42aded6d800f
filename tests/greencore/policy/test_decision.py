from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greencore.carbon import Reading
from greencore.policy import Decision, IntensityMissing, Policy, decide, parse_policy

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
STEPS: dict[str, Any] = {
    "kind": "steps",
    "steps": [{"up_to": 150, "rho": 1.0}, {"up_to": 300, "rho": 0.7}, {"rho": 0.5}],
}
LINEAR: dict[str, Any] = {"kind": "linear", "clean": 100, "dirty": 400, "rho_max": 1.0, "rho_min": 0.4}
CONSTANT: dict[str, Any] = {"kind": "constant", "rho": 0.6}


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


def decided(body: dict[str, Any], gco2e_per_kwh: float, **about: Any) -> Decision:
    return decide(parse_policy(body), reading(gco2e_per_kwh, **about), now=NOW, previous_rho=None)


@pytest.mark.parametrize(
    ("gco2e_per_kwh", "rho"),
    [(0, 1.0), (149.9, 1.0), (150, 1.0), (150.1, 0.7), (300, 0.7), (300.1, 0.5), (99_999, 0.5)],
)
def test_steps_hold_up_to_and_including_their_bound(gco2e_per_kwh: float, rho: float) -> None:
    assert decided(STEPS, gco2e_per_kwh).rho == rho


@pytest.mark.parametrize(
    ("gco2e_per_kwh", "rho"), [(0, 1.0), (100, 1.0), (250, 0.7), (325, 0.55), (400, 0.4), (99_999, 0.4)]
)
def test_linear_falls_between_clean_and_dirty_and_is_flat_beyond(gco2e_per_kwh: float, rho: float) -> None:
    assert decided(LINEAR, gco2e_per_kwh).rho == pytest.approx(rho)


@pytest.mark.parametrize("body", [CONSTANT, STEPS, LINEAR], ids=["constant", "steps", "linear"])
def test_an_intensity_of_zero_is_the_cleanest(body: dict[str, Any]) -> None:
    assert decided(body, 0).rho == max(decided(body, c).rho for c in range(0, 1000, 10))


@st.composite
def linear_policies(draw: st.DrawFn) -> Policy:
    clean, dirty = sorted(draw(st.lists(st.floats(0, 2000), min_size=2, max_size=2, unique=True)))
    rho_min, rho_max = sorted(draw(st.lists(st.floats(0.01, 1), min_size=2, max_size=2)))
    return parse_policy({"kind": "linear", "clean": clean, "dirty": dirty, "rho_max": rho_max, "rho_min": rho_min})


@given(policy=linear_policies(), intensities=st.lists(st.floats(0, 3000), min_size=2, max_size=2))
def test_a_dirtier_grid_never_gets_a_larger_rho(policy: Policy, intensities: list[float]) -> None:
    cleaner, dirtier = sorted(intensities)
    assert policy.rho_at(cleaner) >= policy.rho_at(dirtier)


@given(policy=linear_policies(), intensity=st.floats(0, 3000))
def test_linear_stays_within_its_bounds(policy: Policy, intensity: float) -> None:
    body: dict[str, Any] = policy.body()
    assert body["rho_min"] <= policy.rho_at(intensity) <= body["rho_max"]
    assert policy.rho_at(body["clean"]) == body["rho_max"]
    assert policy.rho_at(body["dirty"]) == body["rho_min"]
    assert policy.lowest_rho()[1] <= policy.rho_at(intensity)


@given(
    bounds=st.lists(st.floats(0, 2000), max_size=5, unique=True).map(sorted),
    intensity=st.floats(0, 3000),
    data=st.data(),
)
def test_a_step_is_the_first_whose_bound_is_not_exceeded(
    bounds: list[float], intensity: float, data: st.DataObject
) -> None:
    rhos = data.draw(st.lists(st.floats(0.01, 1), min_size=len(bounds) + 1, max_size=len(bounds) + 1))
    steps: list[dict[str, float]] = [{"up_to": bound, "rho": rho} for bound, rho in zip(bounds, rhos, strict=False)]
    policy = parse_policy({"kind": "steps", "steps": [*steps, {"rho": rhos[-1]}]})
    exceeded = sum(intensity > bound for bound in bounds)
    assert policy.rho_at(intensity) == rhos[exceeded]
    for bound, rho in zip(bounds, rhos, strict=False):
        assert policy.rho_at(bound) == rho


@pytest.mark.parametrize(
    ("body", "gco2e_per_kwh", "reason"),
    [
        (STEPS, 212, "212 gCO2e/kWh (trace (synthetic), 4 s old) is at most 300, so ρ = 0.7"),
        (STEPS, 412.5, "412.5 gCO2e/kWh (trace (synthetic), 4 s old) is above 300, so ρ = 0.5"),
        (LINEAR, 80, "80 gCO2e/kWh (trace (synthetic), 4 s old) is at most 100, so ρ = 1"),
        (LINEAR, 250, "250 gCO2e/kWh (trace (synthetic), 4 s old) lies between 100 and 400, so ρ = 0.7"),
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
def test_the_reason_says_what_was_read_and_where_it_stands(
    body: dict[str, Any], gco2e_per_kwh: float, reason: str
) -> None:
    assert decided(body, gco2e_per_kwh).reason == reason


def test_the_decision_keeps_the_reading_behind_it() -> None:
    decision = decided(STEPS, 212, age_seconds=600, estimated=True)
    assert decision == Decision(
        rho=0.7,
        reason="212 gCO2e/kWh (trace (synthetic), estimated, 10 min old) is at most 300, so ρ = 0.7",
        intensity_gco2e_per_kwh=212,
        source="trace (synthetic)",
        age_seconds=600,
        estimated=True,
    )


@pytest.mark.parametrize(
    ("age_seconds", "words"), [(119, "119 s old"), (120, "2 min old"), (7200, "2 h old"), (172_800, "2 d old")]
)
def test_an_age_is_told_in_its_own_unit(age_seconds: float, words: str) -> None:
    assert words in decided(STEPS, 212, age_seconds=age_seconds).reason


@pytest.mark.parametrize(
    ("on_missing", "previous_rho", "rho", "reason"),
    [
        ("fallback", 0.9, 0.5, "the policy falls back to its choice for the dirtiest grid, ρ = 0.5"),
        ("hold", 0.9, 0.9, "the policy holds the previous ρ = 0.9"),
        (
            "hold",
            None,
            0.5,
            "there is no previous ρ to hold, and the policy falls back to its choice for the dirtiest grid, ρ = 0.5",
        ),
        ({"rho": 0.65}, 0.9, 0.65, "the policy's on_missing sets ρ = 0.65"),
    ],
)
def test_without_a_reading_on_missing_decides(
    on_missing: object, previous_rho: float | None, rho: float, reason: str
) -> None:
    policy = parse_policy(STEPS | {"on_missing": on_missing})
    decision = decide(policy, None, now=NOW, previous_rho=previous_rho)
    assert decision == Decision(rho, f"no intensity reading: {reason}", None, None, None, estimated=True)


@pytest.mark.parametrize(
    ("body", "rho"), [(CONSTANT, 0.6), (STEPS, 0.5), (LINEAR, 0.4)], ids=["constant", "steps", "linear"]
)
def test_the_fallback_is_the_choice_for_the_dirtiest_grid(body: dict[str, Any], rho: float) -> None:
    assert decide(parse_policy(body), None, now=NOW, previous_rho=1.0).rho == rho


def test_without_a_reading_fail_raises() -> None:
    with pytest.raises(IntensityMissing, match='on_missing is "fail"'):
        decide(parse_policy(STEPS | {"on_missing": "fail"}), None, now=NOW, previous_rho=0.9)
