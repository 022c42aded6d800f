import json
from collections.abc import Mapping
from typing import Any, cast

import pytest
from pydantic import TypeAdapter

from greencore.policy import Budget, Constant, Linear, Percentile, PolicyBody, PolicyError, Price, Steps, parse_policy

CONSTANT: dict[str, Any] = {"kind": "constant", "rho": 0.6}
STEPS: dict[str, Any] = {
    "kind": "steps",
    "steps": [{"up_to": 150, "rho": 1.0}, {"up_to": 300, "rho": 0.7}, {"rho": 0.5}],
}
LINEAR: dict[str, Any] = {"kind": "linear", "clean": 100, "dirty": 400, "rho_max": 1.0, "rho_min": 0.4}
PERCENTILE: dict[str, Any] = {"kind": "percentile", "window_hours": 168, "gamma": 2.0, "rho_max": 1.0, "rho_min": 0.4}
BUDGET: dict[str, Any] = {"kind": "budget", "budget_gco2e": 500, "rho_max": 1.0, "rho_min": 0.4}
PRICE: dict[str, Any] = {"kind": "price", "gco2e_per_loss": 50, "rho_max": 1.0, "rho_min": 0.4}
MODELS = {Constant: CONSTANT, Steps: STEPS, Linear: LINEAR, Percentile: PERCENTILE, Budget: BUDGET, Price: PRICE}
KINDS = "constant, steps, linear, percentile, budget, price"
GATE: dict[str, Any] = {
    "mode": "pause",
    "min_saving": 0.1,
    "max_delay_hours": 12,
    "pause_above": 450,
    "resume_below": 400,
}
SMOOTHING: dict[str, Any] = {"deadband": 0.02, "min_epochs": 2, "max_change": 0.3}


@pytest.mark.parametrize(("model", "body"), MODELS.items(), ids=[model.__name__ for model in MODELS])
@pytest.mark.parametrize("on_missing", ["fallback", "hold", "fail", {"rho": 0.6}])
def test_to_json_and_parse_policy_are_inverse(body: dict[str, Any], model: type, on_missing: object) -> None:
    full = body | {"on_missing": on_missing, "gate": GATE, "smoothing": SMOOTHING}
    policy = parse_policy(full)
    assert isinstance(policy, model)
    assert policy.to_json() == full
    assert parse_policy(json.loads(json.dumps(policy.to_json()))) == policy


def test_to_json_includes_the_defaults() -> None:
    assert parse_policy(CONSTANT).to_json() == CONSTANT | {
        "on_missing": "fallback",
        "gate": {"mode": "none", "min_saving": 0.05, "max_delay_hours": 24},
        "smoothing": {"deadband": 0, "min_epochs": 1, "max_change": 1},
    }
    calm = {"deadband": 0.05, "min_epochs": 1, "max_change": 0.3}
    assert parse_policy(CONSTANT | {"smoothing": {}}).to_json()["smoothing"] == calm
    assert parse_policy({key: PERCENTILE[key] for key in PERCENTILE if key != "gamma"}).to_json()["gamma"] == 1


@pytest.mark.parametrize("resume_below", [{}, {"resume_below": None}])
def test_pause_above_alone_resumes_at_nine_tenths_of_it(resume_below: dict[str, None]) -> None:
    policy = parse_policy(CONSTANT | {"gate": {"pause_above": 400} | resume_below})
    assert policy.gate.resume_below == pytest.approx(360)
    assert policy.gate.resume_threshold == policy.gate.resume_below
    assert parse_policy(policy.to_json()) == policy


def test_resume_threshold_is_infinite_without_thresholds() -> None:
    assert parse_policy(CONSTANT).gate.resume_threshold == float("inf")


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({}, "kind", f"missing: expected one of {KINDS}"),
        ({"kind": "magic"}, "kind", f"given 'magic': expected one of {KINDS}"),
        ({"kind": "constant"}, "rho", "field required"),
        (CONSTANT | {"rho": 0}, "rho", "given 0: input should be greater than 0"),
        (CONSTANT | {"rho": 1.01}, "rho", "given 1.01: input should be less than or equal to 1"),
        (CONSTANT | {"rho": "0.5"}, "rho", "given '0.5': input should be a valid number"),
        (CONSTANT | {"rho": True}, "rho", "given True: input should be a valid number"),
        (CONSTANT | {"rho": None}, "rho", "given None: input should be a valid number"),
        (CONSTANT | {"rho": float("nan")}, "rho", "given nan: input should be a finite number"),
        (CONSTANT | {"roh": 1}, "roh", "given 1: extra inputs are not permitted"),
        ({"kind": "steps", "steps": []}, "steps", "given none: expected at least one step"),
        ({"kind": "steps", "steps": 1}, "steps", "given 1: expected a list"),
        ({"kind": "steps", "steps": [{"up_to": 9}]}, "steps[0].rho", "field required"),
        ({"kind": "steps", "steps": [{"up_to": -1, "rho": 1}, {"rho": 1}]}, "steps[0].up_to", "given -1"),
        ({"kind": "steps", "steps": [{"up_to": 9, "rho": 1}, {"rho": 2}]}, "steps[1].rho", "given 2"),
        ({"kind": "steps", "steps": [{"rho": 1}, {"rho": 1}]}, "steps[0].up_to", "only the last step goes without"),
        ({"kind": "steps", "steps": [{"up_to": 9, "rho": 1}]}, "steps[0].up_to", "the last step goes without"),
        (
            {"kind": "steps", "steps": [{"up_to": 9, "rho": 1}, {"up_to": 9, "rho": 0.9}, {"rho": 0.8}]},
            "steps[1].up_to",
            "given 9: expected more than 9",
        ),
        (
            {"kind": "steps", "steps": [{"rho": 1, "from": 3}]},
            "steps[0].from",
            "given 3: extra inputs are not permitted",
        ),
        (LINEAR | {"dirty": 100}, "dirty", "given 100: expected more than clean, which is 100"),
        (LINEAR | {"clean": 500}, "dirty", "given 400: expected more than clean, which is 500"),
        (LINEAR | {"rho_min": 1, "rho_max": 0.9}, "rho_min", "given 1: expected at most rho_max, which is 0.9"),
        (CONSTANT | {"on_missing": "guess"}, "on_missing", "given 'guess': input should be 'fallback', 'hold' or"),
        (CONSTANT | {"on_missing": 3}, "on_missing", 'given 3: expected "fallback", "hold", "fail" or an object'),
        (CONSTANT | {"on_missing": {"rho": 3}}, "on_missing.rho", "given 3: input should be less than or equal to 1"),
        (CONSTANT | {"on_missing": {}}, "on_missing.rho", "field required"),
        (PERCENTILE | {"window_hours": 0}, "window_hours", "given 0: input should be greater than 0"),
        (PERCENTILE | {"window_hours": 8761}, "window_hours", "given 8761: input should be less than or equal to 8760"),
        (PERCENTILE | {"gamma": 0}, "gamma", "given 0: input should be greater than 0"),
        (PERCENTILE | {"rho_min": 1, "rho_max": 0.9}, "rho_min", "given 1: expected at most rho_max, which is 0.9"),
        (BUDGET | {"budget_gco2e": 0}, "budget_gco2e", "given 0: input should be greater than 0"),
        (BUDGET | {"budget_gco2e": float("inf")}, "budget_gco2e", "given inf: input should be a finite number"),
        (BUDGET | {"budget": 5}, "budget", "given 5: extra inputs are not permitted"),
        (PRICE | {"gco2e_per_loss": -1}, "gco2e_per_loss", "given -1: input should be greater than 0"),
        ({key: PRICE[key] for key in PRICE if key != "rho_max"}, "rho_max", "field required"),
        (CONSTANT | {"gate": None}, "gate", "given None: expected an object"),
        (CONSTANT | {"gate": 3}, "gate", "given 3: expected an object"),
        (
            CONSTANT | {"gate": {"mode": "wait"}},
            "gate.mode",
            "given 'wait': input should be 'none', 'defer' or 'pause'",
        ),
        (CONSTANT | {"gate": {"min_saving": 1}}, "gate.min_saving", "given 1: input should be less than 1"),
        (CONSTANT | {"gate": {"min_saving": -0.1}}, "gate.min_saving", "given -0.1: input should be greater than or"),
        (
            CONSTANT | {"gate": {"max_delay_hours": 0}},
            "gate.max_delay_hours",
            "given 0: input should be greater than 0",
        ),
        (CONSTANT | {"gate": {"pause_above": 0}}, "gate.pause_above", "given 0: input should be greater than 0"),
        (CONSTANT | {"gate": {"pause_above": "9"}}, "gate.pause_above", "given '9': input should be a valid number"),
        (CONSTANT | {"gate": {"pause_above": -9}}, "gate.pause_above", "given -9: input should be greater than"),
        (CONSTANT | {"gate": {"pause_above": float("inf")}}, "gate.pause_above", "given inf: input should be a finite"),
        (CONSTANT | {"gate": {"resume_below": 9}}, "gate.resume_below", "given 9 alone: expected pause_above, too"),
        (
            CONSTANT | {"gate": {"pause_above": 9, "resume_below": 9}},
            "gate.resume_below",
            "given 9: expected less than pause_above, which is 9",
        ),
        (CONSTANT | {"gate": {"until": 9}}, "gate.until", "given 9: extra inputs are not permitted"),
        (CONSTANT | {"smoothing": []}, "smoothing", "expected an object"),
        (CONSTANT | {"smoothing": {"deadband": -1}}, "smoothing.deadband", "given -1: input should be greater than or"),
        (CONSTANT | {"smoothing": {"min_epochs": 0}}, "smoothing.min_epochs", "given 0: input should be greater than"),
        (
            CONSTANT | {"smoothing": {"min_epochs": 1.5}},
            "smoothing.min_epochs",
            "given 1.5: input should be a valid int",
        ),
        (
            CONSTANT | {"smoothing": {"max_change": 0}},
            "smoothing.max_change",
            "given 0: input should be greater than 0",
        ),
        (CONSTANT | {"smoothing": {"max_change": 1.1}}, "smoothing.max_change", "given 1.1: input should be less than"),
    ],
)
def test_an_error_names_its_field(body: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(body)
    (error,) = caught.value.errors
    assert error.field == field
    assert message in error.message
    assert str(caught.value) == f"{field}: {error.message}"


def test_all_errors_are_reported_at_once() -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(LINEAR | {"rho_max": 2, "rho_min": 0, "gate": {"mode": 1, "min_saving": 2}, "colour": "green"})
    faulty = ["gate.mode", "gate.min_saving", "rho_max", "rho_min", "colour"]
    assert [error.field for error in caught.value.errors] == faulty


@pytest.mark.parametrize("body", [None, [], "constant", 0.6])
def test_a_body_that_is_not_an_object_is_refused(body: object) -> None:
    with pytest.raises(PolicyError, match="expected an object with a kind"):
        parse_policy(cast("Mapping[str, object]", body))


@pytest.mark.parametrize(
    ("body", "lowest"),
    [
        (CONSTANT, ("rho", 0.6)),
        (STEPS, ("steps[2].rho", 0.5)),
        ({"kind": "steps", "steps": [{"up_to": 9, "rho": 0.3}, {"rho": 0.5}]}, ("steps[0].rho", 0.3)),
        (LINEAR, ("rho_min", 0.4)),
        (LINEAR | {"on_missing": {"rho": 0.35}}, ("on_missing.rho", 0.35)),
        (LINEAR | {"on_missing": {"rho": 0.9}}, ("rho_min", 0.4)),
        (LINEAR | {"rho_max": 0.4}, ("rho_min", 0.4)),
        (PERCENTILE, ("rho_min", 0.4)),
        (BUDGET, ("rho_min", 0.4)),
        (PRICE | {"on_missing": {"rho": 0.35}}, ("on_missing.rho", 0.35)),
    ],
)
def test_the_lowest_rho_is_named_by_its_field(body: dict[str, Any], lowest: tuple[str, float]) -> None:
    assert parse_policy(body).lowest_rho() == lowest


@pytest.mark.parametrize(
    ("body", "rho_range"),
    [
        (CONSTANT, (0.6, 0.6)),
        (CONSTANT | {"on_missing": {"rho": 0.9}}, (0.6, 0.9)),
        (STEPS, (0.5, 1.0)),
        ({"kind": "steps", "steps": [{"up_to": 9, "rho": 0.3}, {"rho": 0.5}]}, (0.3, 0.5)),
        (LINEAR, (0.4, 1.0)),
        (BUDGET | {"on_missing": {"rho": 0.35}}, (0.35, 1.0)),
    ],
)
def test_rho_range_spans_every_possible_rho(body: dict[str, Any], rho_range: tuple[float, float]) -> None:
    assert parse_policy(body).rho_range == rho_range


def test_the_schema_is_a_union_discriminated_by_kind() -> None:
    adapter: TypeAdapter[object] = TypeAdapter(PolicyBody)
    schema = adapter.json_schema()
    assert schema["discriminator"]["propertyName"] == "kind"
    assert set(schema["discriminator"]["mapping"]) == set(KINDS.split(", "))
    assert adapter.validate_json('{"kind": "constant", "rho": 0.6}') == parse_policy(CONSTANT)
