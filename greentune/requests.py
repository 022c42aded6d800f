"""Options of a run and request bodies; separate from the transport, so that they are imported without httpx."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypedDict

PolicyChoice = str | Mapping[str, Any]


class RunOptions(TypedDict, total=False):
    """Options of a run; one that is missing or None has the service's default."""

    name: str | None
    """Name for people, also of the result: one line of at most 100 characters"""
    validation_dataset: str | None
    """Id of a dataset that the model is evaluated on, in place of an `eval_share` of the rows"""
    method: str | None
    """auto (the service chooses, the default), greentrainer, full, lora, prefix, top2 or bitfit"""
    policy: PolicyChoice | None
    """Name of a stored policy, or a policy"""
    zone: str | None
    """Zone to run in; None: any with a worker"""
    deadline: datetime | None
    """Latest end of the run, with an offset from UTC"""
    priority: int | None
    """From -100 to 100: jobs of a higher priority start first"""
    resources: Mapping[str, Any] | None
    """GPUs of one machine that it trains on: {"gpus": 4}, or "auto" for the fewest that hold it"""
    hyperparameters: Mapping[str, Any] | None
    metadata: Mapping[str, str] | None


def without_nones(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that are not None, as JSON values."""
    return {name: to_json_value(value) for name, value in fields.items() if value is not None}


def to_json_value(value: Any) -> Any:
    """Return a value as a JSON value; times in ISO 8601."""
    if isinstance(value, datetime):
        return value.isoformat()
    return dict(value) if isinstance(value, Mapping) else value
