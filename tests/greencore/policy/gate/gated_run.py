"""One run under a gate: its policy, its progress, and its evaluation on a forecast."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from greencore.carbon import IntensitySeries
from greencore.policy import Policy, parse_policy
from greencore.policy.gate.evaluate import GateDecision, RunProgress, evaluate_gate
from tests.greencore.policy.grids import MIDNIGHT, series

BOTH = pytest.mark.parametrize("mode", ["defer", "pause"])


def policy(mode: str, *, rho: float = 1.0, **gate: Any) -> Policy:
    return parse_policy({"kind": "constant", "rho": rho, "gate": {"mode": mode, **gate}})


def waiting(work_hours: float) -> RunProgress:
    return RunProgress(epoch_left_hours=0.0, work_left_hours=work_hours, rho=None, begun=False, computing=False)


def running(work_hours: float) -> RunProgress:
    return RunProgress(epoch_left_hours=work_hours, work_left_hours=0.0, rho=1.0, begun=True, computing=True)


def evaluated(
    given_policy: Policy,
    progress: RunProgress,
    values: list[float] | IntensitySeries,
    *,
    now: datetime = MIDNIGHT,
    hours: float = 24,
    intensity: float | None = None,
) -> GateDecision:
    forecast = series(values) if isinstance(values, list) else values
    in_force = forecast.at(now)
    known = intensity if intensity is not None or in_force is None else in_force.gco2e_per_kwh
    return evaluate_gate(
        given_policy,
        progress,
        now=now,
        deadline=now + timedelta(hours=hours),
        forecast=forecast,
        intensity_gco2e_per_kwh=known,
    )
