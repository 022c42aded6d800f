"""Chooses the unsmoothed ρ of one epoch by each kind of policy, with the reason."""

from dataclasses import dataclass

import numpy as np

from greencore.policy.context import ASSUMED_LOSS_PER_EPOCH, PolicyContext
from greencore.policy.kinds.by_intensity import IntensityPolicy
from greencore.policy.kinds.percentile import Percentile
from greencore.policy.kinds.policy import Policy
from greencore.policy.models import Budget, Price
from greencore.policy.rho.budget_price import (
    ROUNDING,
    EpochCosts,
    choose_budget_rho,
    choose_price_rho,
    smallest_budget_gco2e,
)

FULL_WINDOW = 0.999


@dataclass(frozen=True, slots=True)
class RhoChoice:
    """ρ, and `why` as a text that continues a described intensity.

    `rho_limit` is the highest ρ that smoothing may set. `ends_run`: the run must end instead of starting this epoch.
    `price_gco2e` is the marginal price of a whole epoch's learning, None where nothing limits it.
    """

    rho: float
    why: str
    rho_limit: float = 1.0
    ends_run: bool = False
    price_gco2e: float | None = None


@dataclass(frozen=True, slots=True)
class NoChoice:
    """No choice is possible: `missing` names the missing input; `ends_run` where the budget is used up, too."""

    missing: str
    ends_run: bool = False


def choose_rho(policy: Policy, context: PolicyContext) -> RhoChoice | NoChoice:
    """Choose ρ by the policy in the context."""
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
    choice = choose_budget_rho(
        context.curve,
        _epoch_costs(context, context.epoch_kwh),
        np.array([remaining]),
        np.array([context.epochs_left]),
        budget_gco2e=policy.budget_gco2e,
        rho_min=policy.rho_min,
        rho_max=policy.rho_max,
    )
    if choice.ends[0]:
        least = f"{choice.least_gco2e[0]:.4g} gCO2e at the least"
        why = f"now; this epoch would emit {least}, and {remain}: the run ends before it"
        return RhoChoice(policy.rho_min, why, ends_run=True)
    [cost] = choice.cost_gco2e
    rho, rho_limit = float(choice.rho[0]), float(choice.rho_limit[0])
    epochs = f"{len(cost)} epochs" if len(cost) > 1 else "the last epoch"
    if not choice.plan.feasible[0]:
        all_least = float(smallest_budget_gco2e(cost, policy.rho_min))
        why = f"now; {remain}, less than the {all_least:.4g} that {epochs} emit at rho_min"
        return RhoChoice(rho, why, rho_limit)
    price = float(choice.plan.price_per_gram[0])
    return RhoChoice(
        rho=rho,
        why=f"now; {remain} for {epochs}, {cost.sum():.4g} at ρ = 1{_curve(context)}",
        rho_limit=rho_limit,
        price_gco2e=1 / price if price > 0 else None,
    )


def _by_price(policy: Price, context: PolicyContext) -> RhoChoice | NoChoice:
    if not len(context.expected):
        return NoChoice("no intensity reading and no forecast")
    if _is_free(policy, context):
        return RhoChoice(policy.rho_max, "now, at which this epoch emits nothing")
    if context.epoch_kwh is None:
        return RhoChoice(policy.rho_min, "now; what an epoch emits is not known yet, which calls for rho_min")
    assumed = context.loss_per_epoch is None
    loss = ASSUMED_LOSS_PER_EPOCH if context.loss_per_epoch is None else context.loss_per_epoch
    [rho], [cost] = choose_price_rho(
        context.curve,
        _epoch_costs(context, context.epoch_kwh),
        1,
        loss_per_epoch=loss,
        gco2e_per_loss=policy.gco2e_per_loss,
        rho_min=policy.rho_min,
        rho_max=policy.rho_max,
    )
    worth = max(loss, 0.0) * policy.gco2e_per_loss
    return RhoChoice(
        rho=float(rho),
        why=(
            f"now; at ρ = 1 this epoch would emit {cost:.4g} gCO2e, and take {loss:.3g} off the loss"
            f"{' (assumed, none measured yet)' if assumed else ''}, worth {worth:.4g}{_curve(context)}"
        ),
        price_gco2e=worth,
    )


def _is_free(policy: Budget | Price, context: PolicyContext) -> bool:
    return float(context.expected_over_epochs([policy.rho_max])[0]) == 0


def _epoch_costs(context: PolicyContext, epoch_kwh: float) -> EpochCosts:
    """Costs of the context's epochs, as a batch of one run."""
    return lambda rho: (context.expected_over_epochs(rho[0]) * epoch_kwh)[None, :]


def _curve(context: PolicyContext) -> str:
    return " (default curve, no probe yet)" if context.utility is None else ""
