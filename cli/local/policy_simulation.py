"""Checks a policy, and simulates it on the intensities of a file, without a service."""

from pathlib import Path
from typing import Any

from api.policies.simulated import SimulationOut
from cli.errors import SettingError
from cli.local.policy_source import describe_policy_source, read_policy_json
from cli.remote.connection import field_to_option
from greencore.carbon import CarbonError, IntensitySeries
from greencore.carbon.trace_file import read_trace
from greencore.policy import BacktestError, Policy, PolicyError, backtest, parse_policy
from greentune.models import Simulation

DEFAULT_ZONE = "trace"
MAX_FAULTS = 100


def read_policy(given: str) -> Policy:
    """Return the policy in a JSON file, or in JSON itself. Raises `SettingError` that names every field at fault."""
    body = read_policy_json(given, "POLICY")
    try:
        return parse_policy(body)
    except PolicyError as error:
        where = describe_policy_source(given, "POLICY")
        lines = [f"{where}: {fault.field}: {fault.message}" for fault in error.errors[:MAX_FAULTS]]
        if len(error.errors) > MAX_FAULTS:
            lines.append(f"{where}: and {len(error.errors) - MAX_FAULTS} more faults")
        raise SettingError("\n".join(lines)) from error


def simulate_on_trace(policy: Policy, trace: Path, *, zone: str | None, **run: Any) -> Simulation:
    """Simulate a policy on the intensities of `trace`, in the form that the service answers.

    `zone` names the readings; `run` holds the arguments of `backtest`. Raises `SettingError` with the option at fault.
    """
    series = _read_series(trace, zone or DEFAULT_ZONE)
    try:
        result = backtest(policy, series, **run)
    except BacktestError as error:
        option = "--trace" if error.field == "series" else field_to_option(error.field)
        raise SettingError(f"{option}: {error.message}") from error
    assumed = {name: run[name] for name in ("forecast", "deadline_hours", "power_w", "idle_power_w")}
    found = SimulationOut.of(result, series, policy=policy, zone=zone, **assumed)
    return Simulation.model_validate(found.model_dump(by_alias=True))


def _read_series(trace: Path, zone: str) -> IntensitySeries:
    try:
        return IntensitySeries(read_trace(trace, zone, unlabelled=f"trace ({trace.name})"))
    except CarbonError as error:
        raise SettingError(f"--trace: {error}") from error
