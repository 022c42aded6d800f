from collections.abc import Mapping
from typing import Any, cast

import pytest
from pydantic import TypeAdapter

from greencore.policy import Constant, Linear, PolicyBody, PolicyError, Steps, parse_policy

CONSTANT: dict[str, Any] = {"kind": "constant", "rho": 0.6}
STEPS: dict[str, Any] = {
    "kind": "steps",
    "steps": [{"up_to": 150, "rho": 1.0}, {"up_to": 300, "rho": 0.7}, {"rho": 0.5}],
}
LINEAR: dict[str, Any] = {"kind": "linear", "clean": 100, "dirty": 400, "rho_max": 1.0, "rho_min": 0.4}


@pytest.mark.parametrize(
    ("body", "model"), [(CONSTANT, Constant), (STEPS, Steps), (LINEAR, Linear)], ids=["constant", "steps", "linear"]
)
@pytest.mark.parametrize("on_missing", ["fallback", "hold", "fail", {"rho": 0.6}])
def test_a_policy_comes_back_as_it_went_in(body: dict[str, Any], model: type, on_missing: object) -> None:
    policy = parse_policy(body | {"on_missing": on_missing})
    assert isinstance(policy, model)
    assert policy.body() == body | {"on_missing": on_missing}
    assert parse_policy(policy.body()) == policy


def test_the_default_on_missing_is_spelt_out() -> None:
    assert parse_policy(CONSTANT).body() == CONSTANT | {"on_missing": "fallback"}


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({}, "kind", "missing: expected one of constant, steps, linear"),
        ({"kind": "magic"}, "kind", "given 'magic': expected one of constant, steps, linear"),
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
    ],
)
def test_a_fault_is_placed_on_its_field(body: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(body)
    (error,) = caught.value.errors
    assert error.field == field
    assert message in error.message
    assert str(caught.value) == f"{field}: {error.message}"


@pytest.mark.parametrize("kind", ["percentile", "budget", "price"])
def test_a_kind_that_is_to_come_is_not_supported_yet(kind: str) -> None:
    with pytest.raises(PolicyError, match=f"kind: '{kind}' is not supported yet: expected one of constant, "):
        parse_policy({"kind": kind, "rho_max": 1.0, "rho_min": 0.4})


@pytest.mark.parametrize("field", ["gate", "smoothing"])
def test_a_field_that_is_to_come_is_not_supported_yet(field: str) -> None:
    with pytest.raises(PolicyError, match=f"{field}: not supported yet"):
        parse_policy(CONSTANT | {field: {}})


def test_every_fault_is_reported_at_once() -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(LINEAR | {"rho_max": 2, "rho_min": 0, "gate": {}, "colour": "green"})
    assert [error.field for error in caught.value.errors] == ["rho_max", "rho_min", "colour", "gate"]


@pytest.mark.parametrize("body", [None, [], "constant", 0.6])
def test_a_body_that_is_no_object_is_refused(body: object) -> None:
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
    ],
)
def test_the_lowest_rho_is_named_by_its_field(body: dict[str, Any], lowest: tuple[str, float]) -> None:
    assert parse_policy(body).lowest_rho() == lowest


def test_the_bodies_form_one_schema_told_apart_by_kind() -> None:
    adapter: TypeAdapter[object] = TypeAdapter(PolicyBody)
    schema = adapter.json_schema()
    assert schema["discriminator"]["propertyName"] == "kind"
    assert set(schema["discriminator"]["mapping"]) == {"constant", "steps", "linear"}
    assert adapter.validate_json('{"kind": "constant", "rho": 0.6}') == parse_policy(CONSTANT)
