from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greencore.policy import parse_policy
from greencore.policy.kinds.by_intensity import IntensityPolicy

STEPS: dict[str, Any] = {
    "kind": "steps",
    "steps": [{"up_to": 150, "rho": 1.0}, {"up_to": 300, "rho": 0.7}, {"rho": 0.5}],
}
LINEAR: dict[str, Any] = {"kind": "linear", "clean": 100, "dirty": 400, "rho_max": 1.0, "rho_min": 0.4}
CONSTANT: dict[str, Any] = {"kind": "constant", "rho": 0.6}


def get_job_policy(body: dict[str, Any]) -> IntensityPolicy:
    policy = parse_policy(body)
    assert isinstance(policy, IntensityPolicy)
    return policy


@pytest.mark.parametrize(
    ("intensity", "rho"),
    [(0, 1.0), (149.9, 1.0), (150, 1.0), (150.1, 0.7), (300, 0.7), (300.1, 0.5), (99_999, 0.5)],
)
def test_bounds_of_steps_are_inclusive(intensity: float, rho: float) -> None:
    assert get_job_policy(STEPS).rho_at(intensity) == rho


def test_a_step_up_to_zero_includes_zero() -> None:
    policy = get_job_policy({"kind": "steps", "steps": [{"up_to": 0, "rho": 1.0}, {"rho": 0.5}]})
    assert (policy.rho_at(0), policy.rho_at(5e-324)) == (1.0, 0.5)


@pytest.mark.parametrize(
    ("intensity", "rho"), [(0, 1.0), (100, 1.0), (250, 0.7), (325, 0.55), (400, 0.4), (99_999, 0.4)]
)
def test_linear_falls_between_clean_and_dirty_and_is_flat_beyond(intensity: float, rho: float) -> None:
    assert get_job_policy(LINEAR).rho_at(intensity) == pytest.approx(rho)


@pytest.mark.parametrize("body", [CONSTANT, STEPS, LINEAR], ids=["constant", "steps", "linear"])
def test_an_intensity_of_zero_is_the_cleanest(body: dict[str, Any]) -> None:
    policy = get_job_policy(body)
    assert policy.rho_at(0) == policy.rho_at_intensities(np.arange(0.0, 1000.0, 10.0)).max()


@st.composite
def linear_policies(draw: st.DrawFn) -> IntensityPolicy:
    clean, dirty = sorted(draw(st.lists(st.floats(0, 2000), min_size=2, max_size=2, unique=True)))
    rho_min, rho_max = sorted(draw(st.lists(st.floats(0.01, 1), min_size=2, max_size=2)))
    return get_job_policy({"kind": "linear", "clean": clean, "dirty": dirty, "rho_max": rho_max, "rho_min": rho_min})


@st.composite
def step_bodies(draw: st.DrawFn) -> dict[str, Any]:
    bounds = draw(st.lists(st.floats(0, 2000), max_size=5, unique=True).map(sorted))
    rhos = draw(st.lists(st.floats(0.01, 1), min_size=len(bounds) + 1, max_size=len(bounds) + 1))
    steps: list[dict[str, float]] = [{"up_to": bound, "rho": rho} for bound, rho in zip(bounds, rhos, strict=False)]
    return {"kind": "steps", "steps": [*steps, {"rho": rhos[-1]}]}


@given(policy=linear_policies(), intensities=st.lists(st.floats(0, 3000), min_size=2, max_size=2))
def test_a_dirtier_grid_never_gets_a_larger_rho(policy: IntensityPolicy, intensities: list[float]) -> None:
    cleaner, dirtier = sorted(intensities)
    assert policy.rho_at(cleaner) >= policy.rho_at(dirtier)


@given(policy=linear_policies(), intensity=st.floats(0, 3000))
def test_linear_stays_within_its_bounds_and_reaches_them(policy: IntensityPolicy, intensity: float) -> None:
    body: dict[str, Any] = policy.to_json()
    assert body["rho_min"] <= policy.rho_at(intensity) <= body["rho_max"]
    assert policy.rho_at(body["clean"]) == body["rho_max"]
    assert policy.rho_at(body["dirty"]) == body["rho_min"]
    assert policy.rho_range == (body["rho_min"], body["rho_max"])


@given(body=step_bodies(), intensity=st.floats(0, 3000))
def test_a_step_is_the_first_whose_bound_is_not_exceeded(body: dict[str, Any], intensity: float) -> None:
    policy, steps = get_job_policy(body), body["steps"]
    exceeded = sum(intensity > step["up_to"] for step in steps[:-1])
    assert policy.rho_at(intensity) == steps[exceeded]["rho"]
    for step in steps[:-1]:
        assert policy.rho_at(step["up_to"]) == step["rho"]


@given(policy=linear_policies() | step_bodies().map(get_job_policy), data=st.data())
def test_rho_at_intensities_equals_rho_at_of_each(policy: IntensityPolicy, data: st.DataObject) -> None:
    body: Any = policy.to_json()
    bounds = [step["up_to"] for step in body["steps"][:-1]] if body["kind"] == "steps" else [body["clean"]]
    intensities = data.draw(st.lists(st.floats(0, 3000) | st.sampled_from([0.0, *bounds]), min_size=1, max_size=40))
    grid = np.array(intensities).reshape(1, -1)
    assert policy.rho_at_intensities(grid).tolist() == [[policy.rho_at(intensity) for intensity in intensities]]
