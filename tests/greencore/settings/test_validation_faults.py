"""Faults of pydantic on unions, as faults of fields."""

from typing import Any

import pytest
from pydantic import ValidationError

from greencore.settings.hyperparameters import Hyperparameters
from greencore.settings.validation_faults import describe_fault, merge_union_faults
from tests.stand_in_settings import StandIn


def faults(body: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(ValidationError) as caught:
        StandIn.model_validate(body)
    found = merge_union_faults(caught.value.errors())
    return {".".join(map(str, fault["loc"])): fault["msg"] for fault in found}


def test_a_value_of_no_branch_is_one_fault_that_names_all_of_them() -> None:
    found = faults({"size": "many", "packing": "perhaps"})
    assert found == {
        "size": "Input should be a valid integer, unable to parse string as an integer, or 'auto'",
        "packing": "Input should be a valid boolean, unable to interpret input, or 'auto'",
    }


def test_a_value_out_of_bounds_keeps_its_bound() -> None:
    assert faults({"size": 0}) == {"size": "Input should be greater than or equal to 1, or 'auto'"}


def test_a_fault_of_an_item_replaces_those_of_other_branches() -> None:
    found = faults({"probe": {"targets": ["q", 7]}})
    assert found == {"probe.targets.1": "Input should be a valid string"}


def test_other_faults_stay_as_they_are() -> None:
    found = faults({"rounds": 0, "probe": {"rank": 0}, "absent": 1, "size": "x"})
    assert list(found) == ["rounds", "size", "probe.rank", "absent"]


def test_messages_name_no_type_of_python() -> None:
    body = {"adaptive": 3, "lora": {"targets": 3}, "absent": 1, "eval_every": "x"}
    with pytest.raises(ValidationError) as caught:
        Hyperparameters.model_validate(body)
    found = {str(fault["loc"][-1]): describe_fault(fault) for fault in merge_union_faults(caught.value.errors())}
    assert (
        found.items()
        >= {
            "adaptive": "expected an object",
            "targets": "expected a list, or 'all-linear'",
            "absent": "there is no such field",
        }.items()
    )
    assert faults({"marks": 1, "probe": {"targets": 1}, "stopping": [1]}) == {
        "marks": "expected a list",
        "probe.targets": "expected a list, or 'all'",
        "stopping": "expected an object",
    }


def test_messages_are_in_plain_words() -> None:
    with pytest.raises(ValidationError) as caught:
        Hyperparameters.model_validate({"adaptive": {"never_train": ["a"] * 65}, "lora": {"targets": []}, "epochs": 0})
    found = {str(fault["loc"][-1]): describe_fault(fault) for fault in merge_union_faults(caught.value.errors())}
    assert found == {
        "never_train": "given 65 items: expected at most 64",
        "targets": "given 0 items: expected at least 1, or 'all-linear'",
        "epochs": "input should be greater than or equal to 1",
    }
