"""What is asked of the service, as it goes over the wire."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypedDict

PolicyChoice = str | Mapping[str, Any]


class RunOptions(TypedDict, total=False):
    """What a run may be told beside its model and its rows; what is left out, or None, has the service's default."""

    method: str | None
    """greentrainer, full, lora, prefix, top2 or bitfit"""
    policy: PolicyChoice | None
    """The name of a stored policy, or a policy"""
    zone: str | None
    """Where to run; any zone with a worker where it is None"""
    deadline: datetime | None
    """When the run has to be over; with an offset from UTC"""
    priority: int | None
    """From -100 to 100: jobs of a higher priority start first"""
    hyperparameters: Mapping[str, Any] | None
    metadata: Mapping[str, str] | None


def job_request(model: str, dataset: str, options: RunOptions) -> dict[str, Any]:
    """The body of `POST /jobs` and `POST /jobs/estimate`."""
    return without_nones({"model": model, "dataset": dataset, **options})


def without_nones(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Those that are not None, as JSON has them."""
    return {name: to_json_value(value) for name, value in fields.items() if value is not None}


def to_json_value(value: Any) -> Any:
    """A value as JSON has it; times in ISO 8601."""
    if isinstance(value, datetime):
        return value.isoformat()
    return dict(value) if isinstance(value, Mapping) else value
