"""Policies in plain words, for those who would rather not read JSON."""

from api.figures import format_number
from greencore.policy import Budget, Constant, FixedRho, Gate, Linear, Percentile, Policy, Price, Smoothing, Steps


def describe_rule(policy: Policy) -> str:
    """What sets ρ."""
    match policy:
        case Constant():
            return f"always {format_number(policy.rho)}"
        case Steps():
            return f"by {len(policy.steps)} {'step' if len(policy.steps) == 1 else 'steps'} of the intensity"
        case Linear():
            return f"falls in a line between {format_number(policy.clean)} and {format_number(policy.dirty)} gCO2e/kWh"
        case Percentile():
            return f"by the intensity's rank among the last {format_number(policy.window_hours)} h"
        case Budget():
            return f"as much as {format_number(policy.budget_gco2e)} gCO2e allow for the whole run"
        case Price():
            return f"as much as pays at {format_number(policy.gco2e_per_loss)} gCO2e for 1 off the loss"
    raise TypeError(f"no words for a policy of the kind {type(policy).__name__}")


def describe_rho(policy: Policy) -> str:
    """The range that ρ moves in, or the one value."""
    lowest, highest = policy.rho_range
    return format_number(lowest) if lowest == highest else f"{format_number(lowest)} to {format_number(highest)}"


def describe_gate(gate: Gate) -> str:
    """When a job may run."""
    delay = f"up to {format_number(gate.max_delay_hours)} h later"
    least = f"where that saves more than {format_number(gate.min_saving * 100)} %"
    plan = {
        "none": "runs at once",
        "defer": f"waits for the best window, {delay}, {least}",
        "pause": f"runs in the cleanest hours only, {delay}, {least}",
    }[gate.mode]
    if gate.pause_above is None:
        return plan
    pause = f"pauses above {format_number(gate.pause_above)}"
    return f"{plan}; {pause}, goes on at {format_number(gate.resume_threshold)} gCO2e/kWh"


def describe_smoothing(smoothing: Smoothing) -> str:
    """How calmly ρ follows."""
    parts = []
    if smoothing.deadband > 0:
        parts.append(f"changes of less than {format_number(smoothing.deadband)} are left out")
    if smoothing.min_epochs > 1:
        parts.append(f"each ρ is kept for {smoothing.min_epochs} epochs")
    if smoothing.max_change < 1:
        parts.append(f"it changes by {format_number(smoothing.max_change)} an epoch at most")
    return "; ".join(parts) or "none"


def describe_missing(policy: Policy) -> str:
    """What happens while no intensity is known."""
    rule = policy.on_missing
    if isinstance(rule, FixedRho):
        return f"ρ is {format_number(rule.rho)}"
    return {
        "fallback": f"ρ as on the dirtiest grid, {format_number(policy.dirtiest_rho)}",
        "hold": f"the ρ before is kept, {format_number(policy.dirtiest_rho)} where there is none",
        "fail": "the job fails",
    }[rule]
