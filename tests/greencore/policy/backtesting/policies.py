"""A policy of each kind, and its backtest."""

from datetime import datetime
from typing import Any

import pytest

from greencore.carbon import IntensitySeries
from greencore.policy import BacktestResult, Policy, backtest, parse_policy

CONSTANT: dict[str, Any] = {"kind": "constant", "rho": 1.0}
STEPS: dict[str, Any] = {
    "kind": "steps",
    "steps": [{"up_to": 150, "rho": 1.0}, {"up_to": 200, "rho": 0.7}, {"rho": 0.5}],
}
LINEAR: dict[str, Any] = {"kind": "linear", "clean": 100, "dirty": 300, "rho_max": 1.0, "rho_min": 0.4}
PERCENTILE: dict[str, Any] = {"kind": "percentile", "window_hours": 48, "rho_max": 0.9, "rho_min": 0.4}
BUDGET: dict[str, Any] = {"kind": "budget", "budget_gco2e": 300, "rho_max": 1.0, "rho_min": 0.4}
PRICE: dict[str, Any] = {"kind": "price", "gco2e_per_loss": 50, "rho_max": 1.0, "rho_min": 0.4}
KINDS = [CONSTANT, STEPS, LINEAR, PERCENTILE, BUDGET, PRICE]
MODES = ["none", "defer", "pause"]
EVERY_KIND = pytest.mark.parametrize("body", KINDS, ids=[body["kind"] for body in KINDS])
EVERY_MODE = pytest.mark.parametrize("mode", MODES)


def with_gate(body: dict[str, Any], mode: str, **gate: Any) -> Policy:
    return parse_policy({**body, "gate": {"mode": mode, **gate}})


def simulated(policy: Policy, readings: IntensitySeries, **changed: Any) -> BacktestResult:
    asked: dict[str, Any] = {
        "start": None,
        "work_hours": 8.0,
        "epochs": 8,
        "deadline_hours": 24.0,
        "forecast": "perfect",
        "power_w": 1000.0,
    }
    return backtest(policy, readings, **(asked | changed))


def epochs(result: BacktestResult) -> list[tuple[datetime, float]]:
    return [(step.time, step.rho) for step in result.decisions if step.action == "epoch" and step.rho is not None]
