"""Descriptions of a policy's parts in words."""

from api.figures import format_number
from greencore.policy import Budget, Constant, FixedRho, Gate, Linear, Percentile, Policy, Price, Smoothing, Steps


def summarise_policy(policy: Policy) -> dict[str, str]:
    """Describe what sets ρ, its range, the gate, the limits on changes, and the decision without an intensity."""
    return {
        "rule": _describe_rule(policy),
        "rho": _describe_rho(policy),
        "gate": _describe_gate(policy.gate),
        "smoothing": _describe_smoothing(policy.smoothing),
        "missing": _describe_missing(policy),
    }


def _describe_rule(policy: Policy) -> str:
    match policy:
        case Constant():
            return f"always {format_number(policy.rho)}"
        case Steps():
            return f"by {len(policy.steps)} {'step' if len(policy.steps) == 1 else 'steps'} of the intensity"
        case Linear():
            return f"falls linearly from {format_number(policy.clean)} to {format_number(policy.dirty)} gCO2e/kWh"
        case Percentile():
            return f"by the intensity's rank among the last {format_number(policy.window_hours)} h"
        case Budget():
            return f"the most that a budget of {format_number(policy.budget_gco2e)} gCO2e for the whole run allows"
        case Price():
            return f"the most that pays at {format_number(policy.gco2e_per_loss)} gCO2e per reduction of the loss by 1"
    raise TypeError(f"no description for a policy of the kind {type(policy).__name__}")


def _describe_rho(policy: Policy) -> str:
    lowest, highest = policy.rho_range
    return format_number(lowest) if lowest == highest else f"{format_number(lowest)} to {format_number(highest)}"


def _describe_gate(gate: Gate) -> str:
    delay = f"up to {format_number(gate.max_delay_hours)} h later"
    least = f"where that saves more than {format_number(gate.min_saving * 100)} %"
    plan = {
        "none": "runs immediately",
        "defer": f"waits for the best window, {delay}, {least}",
        "pause": f"runs only in the cleanest hours, {delay}, {least}",
    }[gate.mode]
    if gate.pause_above is None:
        return plan
    pause = f"pauses above {format_number(gate.pause_above)}"
    return f"{plan}; {pause}, resumes at {format_number(gate.resume_threshold)} gCO2e/kWh"


def _describe_smoothing(smoothing: Smoothing) -> str:
    parts = []
    if smoothing.deadband > 0:
        parts.append(f"changes of less than {format_number(smoothing.deadband)} are ignored")
    if smoothing.min_epochs > 1:
        parts.append(f"each ρ is kept for {smoothing.min_epochs} epochs")
    if smoothing.max_change < 1:
        parts.append(f"it changes by at most {format_number(smoothing.max_change)} an epoch")
    return "; ".join(parts) or "none"


def _describe_missing(policy: Policy) -> str:
    rule = policy.on_missing
    if isinstance(rule, FixedRho):
        return f"ρ is {format_number(rule.rho)}"
    return {
        "fallback": f"ρ as on the dirtiest grid, {format_number(policy.dirtiest_rho)}",
        "hold": f"the previous ρ, or {format_number(policy.dirtiest_rho)} where there is none",
        "fail": "the job fails",
    }[rule]
