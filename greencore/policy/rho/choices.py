"""The ρ that each kind of policy asks for, before it is smoothed, and why."""

from dataclasses import dataclass

import numpy as np

from greencore.policy.context import ASSUMED_LOSS_PER_EPOCH, Floats, PolicyContext
from greencore.policy.models import Budget, IntensityPolicy, Percentile, Policy, Price
from greencore.policy.rho.budget_price import ROUNDING, BudgetPlan, budget_rhos, price_rho, smallest_budget_gco2e

# An epoch's length depends on its ρ, which depends on the intensity over its length: this often round the circle.
FIXED_POINT_ITERATIONS = 3
BISECTION_STEPS = 40
FULL_WINDOW = 0.999


@dataclass(frozen=True, slots=True)
class RhoChoice:
    """ρ, and `why` in words that follow on from an intensity.

    `rho_limit` is the highest ρ that smoothing may make of it. `ends_run`: the run must end rather than begin this
    epoch. `price_gco2e` is what the learning of a whole epoch may emit at the margin, where anything limits that.
    """

    rho: float
    why: str
    rho_limit: float = 1.0
    ends_run: bool = False
    price_gco2e: float | None = None


@dataclass(frozen=True, slots=True)
class NoChoice:
    """No choice can be made for want of what `missing` says; `ends_run` where nothing is left to be spent, either."""

    missing: str
    ends_run: bool = False


def choose_rho(policy: Policy, context: PolicyContext) -> RhoChoice | NoChoice:
    """What a policy asks for in the context."""
    if isinstance(policy, Budget):
        return _by_budget(policy, context)
    if isinstance(policy, Price):
        return _by_price(policy, context)
    if context.reading is None:
        refused = context.refused
        return NoChoice(f"no intensity reading ({refused})" if refused else "no intensity reading")
    intensity = context.reading.gco2e_per_kwh
    if isinstance(policy, Percentile):
        return _by_rank(policy, context, intensity)
    assert isinstance(policy, IntensityPolicy)
    return RhoChoice(policy.rho_at(intensity), policy.describe_intensity(intensity))


def _by_rank(policy: Percentile, context: PolicyContext, intensity: float) -> RhoChoice | NoChoice:
    rank = policy.rank(intensity, context.window, context.now)
    if rank is None:
        return NoChoice(f"no readings of the last {policy.window_hours:g} h to rank it among")
    hours = policy.covered_hours(context.window, context.now)
    stored = "" if hours >= policy.window_hours * FULL_WINDOW else f", of which {hours:.3g} h are stored"
    return RhoChoice(policy.rho_at_rank(rank), f"ranks at {rank:.0%} of the last {policy.window_hours:g} h{stored}")


def _by_budget(policy: Budget, context: PolicyContext) -> RhoChoice | NoChoice:
    remaining = max(policy.budget_gco2e - context.spent_gco2e, 0.0)
    used_up = remaining <= policy.budget_gco2e * ROUNDING
    remain = f"{remaining:.4g} of {policy.budget_gco2e:.4g} gCO2e remain"
    if not len(context.expected):
        return NoChoice(f"no intensity reading and no forecast{f', and {remain}' if used_up else ''}", used_up)
    if _is_free(policy, context):
        return RhoChoice(policy.rho_max, "now, at which this epoch emits nothing")
    if context.epoch_kwh is None:
        why = f"now; what an epoch emits is not known yet, and {remain}"
        if used_up:
            return RhoChoice(policy.rho_min, f"{why}: the run ends before this epoch", ends_run=True)
        return RhoChoice(policy.rho_min, f"{why}, which calls for rho_min", rho_limit=policy.rho_min)
    least = _emissions_gco2e(context, policy.rho_min)
    if least > remaining + policy.budget_gco2e * ROUNDING:
        why = f"now; this epoch would emit {least:.4g} gCO2e at the least, and {remain}: the run ends before it"
        return RhoChoice(policy.rho_min, why, ends_run=True)
    cost, plan = _plan(policy, context, remaining)
    epochs = f"{len(cost)} epochs" if len(cost) > 1 else "the last epoch"
    if not plan.feasible:
        all_least = float(smallest_budget_gco2e(cost, policy.rho_min))
        why = f"now; {remain}, less than the {all_least:.4g} that {epochs} emit at rho_min"
        return RhoChoice(policy.rho_min, why, rho_limit=policy.rho_min)
    most = _max_affordable_rho(policy, context, cost, remaining)
    price = float(plan.price_per_gram)
    return RhoChoice(
        rho=min(float(plan.rho[0]), most),
        why=f"now; {remain} for {epochs}, {cost.sum():.4g} at ρ = 1{_curve(context)}",
        rho_limit=most,
        price_gco2e=1 / price if price > 0 else None,
    )


def _plan(policy: Budget, context: PolicyContext, remaining: float) -> tuple[Floats, BudgetPlan]:
    """What each epoch emits at ρ = 1 in gCO2e [epochs], and how the budget is spread over them."""
    assert context.epoch_kwh is not None
    rho = np.full(context.epochs_left, policy.rho_max)
    for _ in range(FIXED_POINT_ITERATIONS):
        cost = context.expected_over_epochs(rho) * context.epoch_kwh
        plan = budget_rhos(context.curve, cost, remaining, rho_min=policy.rho_min, rho_max=policy.rho_max)
        rho = plan.rho
    return cost, plan


def _max_affordable_rho(policy: Budget, context: PolicyContext, cost: Floats, remaining: float) -> float:
    """The highest ρ that leaves enough for the epochs after this one at `rho_min`, and is itself within the budget."""
    left = remaining - float(smallest_budget_gco2e(cost[1:], policy.rho_min))
    high = policy.rho_max if left >= cost[0] * policy.rho_max else max(policy.rho_min, left / float(cost[0]))
    if _emissions_gco2e(context, high) <= remaining:
        return high
    # The costs are means over lengths that are only nearly this one's.
    low = policy.rho_min
    for _ in range(BISECTION_STEPS):
        middle = (low + high) / 2
        if _emissions_gco2e(context, middle) <= remaining:
            low = middle
        else:
            high = middle
    return low


def _by_price(policy: Price, context: PolicyContext) -> RhoChoice | NoChoice:
    if not len(context.expected):
        return NoChoice("no intensity reading and no forecast")
    if _is_free(policy, context):
        return RhoChoice(policy.rho_max, "now, at which this epoch emits nothing")
    if context.epoch_kwh is None:
        return RhoChoice(policy.rho_min, "now; what an epoch emits is not known yet, which calls for rho_min")
    assumed = context.loss_per_epoch is None
    loss = ASSUMED_LOSS_PER_EPOCH if context.loss_per_epoch is None else context.loss_per_epoch
    rho = policy.rho_max
    for _ in range(FIXED_POINT_ITERATIONS):
        cost = float(context.expected_over_epochs([rho])[0]) * context.epoch_kwh
        chosen = price_rho(context.curve, loss, cost, policy.gco2e_per_loss, policy.rho_min, policy.rho_max)
        rho = float(chosen)
    worth = max(loss, 0.0) * policy.gco2e_per_loss
    return RhoChoice(
        rho=rho,
        why=(
            f"now; at ρ = 1 this epoch would emit {cost:.4g} gCO2e, and take {loss:.3g} off the loss"
            f"{' (assumed, none measured yet)' if assumed else ''}, worth {worth:.4g}{_curve(context)}"
        ),
        price_gco2e=worth,
    )


def _is_free(policy: Budget | Price, context: PolicyContext) -> bool:
    return float(context.expected_over_epochs([policy.rho_max])[0]) == 0


def _emissions_gco2e(context: PolicyContext, rho: float) -> float:
    """What the epoch that begins is expected to emit."""
    assert context.epoch_kwh is not None
    return float(context.expected_over_epochs([rho])[0]) * context.epoch_kwh * rho


def _curve(context: PolicyContext) -> str:
    return " (default curve, no probe yet)" if context.utility is None else ""
