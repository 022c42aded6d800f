"""The ρ that each kind of policy asks for, before it is smoothed, and why."""

from dataclasses import dataclass

import numpy as np

from greencore.policy.budget import ROUNDING, BudgetPlan, budget_rhos, price_rho, smallest_budget_gco2e
from greencore.policy.circumstances import ASSUMED_LOSS_PER_EPOCH, Circumstances, Floats
from greencore.policy.models import Budget, ByIntensity, Percentile, Policy, Price

# An epoch's length depends on its ρ, which depends on the intensity over its length: this often round the circle.
ROUNDS = 3
HALVINGS = 40
FULL_WINDOW = 0.999


@dataclass(frozen=True, slots=True)
class Choice:
    """ρ, and `why` in words that follow on from an intensity.

    `most` is the highest ρ that smoothing may make of it. `ends_run`: the run must end rather than begin this epoch.
    `price_gco2e` is what the learning of a whole epoch may emit at the margin, where anything limits that.
    """

    rho: float
    why: str
    most: float = 1.0
    ends_run: bool = False
    price_gco2e: float | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """No choice can be made for want of what `missing` says; `ends_run` where nothing is left to be spent, either."""

    missing: str
    ends_run: bool = False


def choose(policy: Policy, circumstances: Circumstances) -> Choice | Unknown:
    """What a policy asks for in these circumstances."""
    if isinstance(policy, Budget):
        return _by_budget(policy, circumstances)
    if isinstance(policy, Price):
        return _by_price(policy, circumstances)
    if circumstances.reading is None:
        refused = circumstances.refused
        return Unknown(f"no intensity reading ({refused})" if refused else "no intensity reading")
    intensity = circumstances.reading.gco2e_per_kwh
    if isinstance(policy, Percentile):
        return _by_rank(policy, circumstances, intensity)
    assert isinstance(policy, ByIntensity)
    return Choice(policy.rho_at(intensity), policy.reason_at(intensity))


def _by_rank(policy: Percentile, circumstances: Circumstances, intensity: float) -> Choice | Unknown:
    rank = policy.rank(intensity, circumstances.window, circumstances.now)
    if rank is None:
        return Unknown(f"no readings of the last {policy.window_hours:g} h to rank it among")
    hours = policy.covered_hours(circumstances.window, circumstances.now)
    stored = "" if hours >= policy.window_hours * FULL_WINDOW else f", of which {hours:.3g} h are stored"
    return Choice(policy.rho_at_rank(rank), f"ranks at {rank:.0%} of the last {policy.window_hours:g} h{stored}")


def _by_budget(policy: Budget, circumstances: Circumstances) -> Choice | Unknown:
    remaining = max(policy.budget_gco2e - circumstances.spent_gco2e, 0.0)
    used_up = remaining <= policy.budget_gco2e * ROUNDING
    remain = f"{remaining:.4g} of {policy.budget_gco2e:.4g} gCO2e remain"
    if not len(circumstances.expected):
        return Unknown(f"no intensity reading and no outlook{f', and {remain}' if used_up else ''}", used_up)
    if _is_free(policy, circumstances):
        return Choice(policy.rho_max, "now, at which this epoch emits nothing")
    if circumstances.epoch_kwh is None:
        why = f"now; what an epoch emits is not known yet, and {remain}"
        if used_up:
            return Choice(policy.rho_min, f"{why}: the run ends before this epoch", ends_run=True)
        return Choice(policy.rho_min, f"{why}, which calls for rho_min", most=policy.rho_min)
    least = _emissions_gco2e(circumstances, policy.rho_min)
    if least > remaining + policy.budget_gco2e * ROUNDING:
        why = f"now; this epoch would emit {least:.4g} gCO2e at the least, and {remain}: the run ends before it"
        return Choice(policy.rho_min, why, ends_run=True)
    cost, plan = _plan(policy, circumstances, remaining)
    epochs = f"{len(cost)} epochs" if len(cost) > 1 else "the last epoch"
    if not plan.feasible:
        all_least = float(smallest_budget_gco2e(cost, policy.rho_min))
        why = f"now; {remain}, less than the {all_least:.4g} that {epochs} emit at rho_min"
        return Choice(policy.rho_min, why, most=policy.rho_min)
    most = _most(policy, circumstances, cost, remaining)
    price = float(plan.price_per_gram)
    return Choice(
        rho=min(float(plan.rho[0]), most),
        why=f"now; {remain} for {epochs}, {cost.sum():.4g} at ρ = 1{_curve(circumstances)}",
        most=most,
        price_gco2e=1 / price if price > 0 else None,
    )


def _plan(policy: Budget, circumstances: Circumstances, remaining: float) -> tuple[Floats, BudgetPlan]:
    """What each epoch emits at ρ = 1 in gCO2e [epochs], and how the budget is spread over them."""
    assert circumstances.epoch_kwh is not None
    rho = np.full(circumstances.epochs_left, policy.rho_max)
    for _ in range(ROUNDS):
        cost = circumstances.expected_over_epochs(rho) * circumstances.epoch_kwh
        plan = budget_rhos(circumstances.curve, cost, remaining, rho_min=policy.rho_min, rho_max=policy.rho_max)
        rho = plan.rho
    return cost, plan


def _most(policy: Budget, circumstances: Circumstances, cost: Floats, remaining: float) -> float:
    """The highest ρ that leaves enough for the epochs after this one at `rho_min`, and is itself within the budget."""
    left = remaining - float(smallest_budget_gco2e(cost[1:], policy.rho_min))
    high = policy.rho_max if left >= cost[0] * policy.rho_max else max(policy.rho_min, left / float(cost[0]))
    if _emissions_gco2e(circumstances, high) <= remaining:
        return high
    # The costs are means over lengths that are only nearly this one's.
    low = policy.rho_min
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if _emissions_gco2e(circumstances, middle) <= remaining:
            low = middle
        else:
            high = middle
    return low


def _by_price(policy: Price, circumstances: Circumstances) -> Choice | Unknown:
    if not len(circumstances.expected):
        return Unknown("no intensity reading and no outlook")
    if _is_free(policy, circumstances):
        return Choice(policy.rho_max, "now, at which this epoch emits nothing")
    if circumstances.epoch_kwh is None:
        return Choice(policy.rho_min, "now; what an epoch emits is not known yet, which calls for rho_min")
    assumed = circumstances.loss_per_epoch is None
    loss = ASSUMED_LOSS_PER_EPOCH if circumstances.loss_per_epoch is None else circumstances.loss_per_epoch
    rho = policy.rho_max
    for _ in range(ROUNDS):
        cost = float(circumstances.expected_over_epochs([rho])[0]) * circumstances.epoch_kwh
        chosen = price_rho(circumstances.curve, loss, cost, policy.gco2e_per_loss, policy.rho_min, policy.rho_max)
        rho = float(chosen)
    worth = max(loss, 0.0) * policy.gco2e_per_loss
    return Choice(
        rho=rho,
        why=(
            f"now; at ρ = 1 this epoch would emit {cost:.4g} gCO2e, and take {loss:.3g} off the loss"
            f"{' (assumed, none measured yet)' if assumed else ''}, worth {worth:.4g}{_curve(circumstances)}"
        ),
        price_gco2e=worth,
    )


def _is_free(policy: Budget | Price, circumstances: Circumstances) -> bool:
    return float(circumstances.expected_over_epochs([policy.rho_max])[0]) == 0


def _emissions_gco2e(circumstances: Circumstances, rho: float) -> float:
    """What the epoch that begins is expected to emit."""
    assert circumstances.epoch_kwh is not None
    return float(circumstances.expected_over_epochs([rho])[0]) * circumstances.epoch_kwh * rho


def _curve(circumstances: Circumstances) -> str:
    return " (default curve, no probe yet)" if circumstances.utility is None else ""
