"""Decides ρ at an epoch's start for many simulated runs at once, each as `decide_rho` does."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from greencore.arrays import Bools, Floats, Ints
from greencore.policy.backtesting.slots import Slots
from greencore.policy.context import ASSUMED_LOSS_PER_EPOCH
from greencore.policy.gate.forecasts import BacktestForecast
from greencore.policy.gate.hours import bridge_gaps, compute_window_means
from greencore.policy.kinds.by_intensity import IntensityPolicy
from greencore.policy.kinds.percentile import Percentile
from greencore.policy.kinds.policy import FixedRho, Policy
from greencore.policy.models import Budget, Price
from greencore.policy.rho.budget_price import EpochCosts, choose_budget_rho, choose_price_rho
from greencore.policy.rho.smoothing import smooth_rhos
from greencore.policy.rho.utility import DEFAULT_UTILITY

MAX_VALUES = 4_000_000  # slots of all windows that are ranked at once: bounds the memory


@dataclass(frozen=True)
class EpochStart:
    """State of runs at an epoch's start, one entry per run.

    The epoch starts `within_hours` into its `slot`; `epochs_left` includes it; `spent_g` are the emissions so far in
    gCO2e; `previous_rho` is NaN before the first epoch, and has held for `epochs_at_rho` epochs.
    """

    slot: Ints
    within_hours: Floats
    epochs_left: Ints
    spent_g: Floats
    previous_rho: Floats
    epochs_at_rho: Ints


@dataclass(frozen=True)
class RhoChoices:
    """Unsmoothed ρ, the highest ρ that smoothing may set, and which runs end instead of starting the epoch."""

    rho: Floats
    rho_limit: Floats | float = 1.0
    ends: Bools | bool = False


RhoRule = Callable[[EpochStart], Floats]
"""Decides the smoothed ρ [runs] of the epoch that starts; NaN where the run has to end before it."""


def build_rho_rule(
    policy: Policy, slots: Slots, forecast: BacktestForecast, *, epoch_hours: float, epoch_kwh: float
) -> RhoRule:
    """Build the rule by which a policy sets ρ on a grid, for epochs of the given length and energy at ρ = 1."""
    lowest, highest = policy.rho_range
    choose = _build_choice(policy, slots, forecast, epoch_hours, epoch_kwh)

    def decide(start: EpochStart) -> Floats:
        choices = choose(start)
        limit = np.minimum(highest, choices.rho_limit)
        rho, _ = smooth_rhos(choices.rho, start.previous_rho, start.epochs_at_rho, policy.smoothing, (lowest, limit))
        return np.where(choices.ends, np.nan, rho)

    return decide


def _build_choice(
    policy: Policy, slots: Slots, forecast: BacktestForecast, epoch_hours: float, epoch_kwh: float
) -> Callable[[EpochStart], RhoChoices]:
    if isinstance(policy, IntensityPolicy):
        return lambda start: RhoChoices(policy.rho_at_intensities(slots.at(start.slot)))
    if isinstance(policy, Percentile):
        return _RankRule(policy, slots).choose
    assert isinstance(policy, Budget | Price)
    return lambda start: _plan(policy, _epoch_costs(start, slots, forecast, epoch_hours, epoch_kwh), start)


class _RankRule:
    """Percentile.

    A window ends within the present slot, and starts within one of two slots: the sum over the slots between them is
    the same for all runs, and is computed once.
    """

    def __init__(self, policy: Percentile, slots: Slots) -> None:
        self._policy, self._slots = policy, slots
        count = len(slots.intensity)
        self._whole = int(policy.window_hours / slots.step_hours + 1e-9)
        self._rest_hours = max(policy.window_hours - self._whole * slots.step_hours, 0.0)
        self._cleaner = np.full(count, np.nan)  # number of cleaner slots between, plus half of the equal ones
        self._between = np.minimum(np.arange(count), self._whole - 1) if self._whole else np.zeros(count)

    def choose(self, start: EpochStart) -> RhoChoices:
        slot = np.minimum(start.slot, len(self._slots.intensity) - 1)
        self._add_up(np.unique(slot[np.isnan(self._cleaner[slot])]))
        step, within, rest = self._slots.step_hours, start.within_hours, self._rest_hours
        early = within < rest
        # The window starts `within` − `rest` into the slot `whole` slots back, or in the one before that.
        hours = [
            (self._whole, np.where(early, step, step - (within - rest))),
            (self._whole + 1, np.where(early, rest - within, 0.0)),
        ]
        if self._whole == 0:
            hours = [(1, np.where(early, rest - within, 0.0))]
        now_hours = within if self._whole else np.minimum(within, rest)
        total = self._between[slot] * step + now_hours
        cleaner = self._cleaner[slot] * step + now_hours / 2
        for back, length in hours:
            there = np.where(slot >= back, length, 0.0)
            total = total + there
            cleaner = cleaner + there * self._share(np.maximum(slot - back, 0), slot)
        with np.errstate(invalid="ignore", divide="ignore"):
            rank = np.where(total > 0, cleaner / total, 0.0)
        # At the start of the series the window is empty; "fail" falls back, too.
        rule = self._policy.on_missing
        without_past = rule.rho if isinstance(rule, FixedRho) else self._policy.dirtiest_rho
        return RhoChoices(np.where(total > 0, self._policy.rho_at_ranks(rank), without_past))

    def _add_up(self, slot: Ints) -> None:
        width = max(self._whole - 1, 0)
        for part in np.array_split(slot, max(1, -(-len(slot) * max(width, 1) // MAX_VALUES))):
            place = part[:, None] - 1 - np.arange(width)
            share = self._share(np.maximum(place, 0), part[:, None])
            self._cleaner[part] = np.where(place >= 0, share, 0.0).sum(axis=1)

    def _share(self, slot: Ints, present: Ints) -> Floats:
        """1 where a slot was cleaner than the present one, 1/2 where it was equal."""
        then, now = self._slots.intensity[slot], self._slots.intensity[present]
        return np.where(then < now, 1.0, 0.0) + np.where(then == now, 0.5, 0.0)


def _plan(policy: Budget | Price, costs: EpochCosts, start: EpochStart) -> RhoChoices:
    """Choose by the forecast of the coming epochs and the default curve.

    An epoch's decrease of the loss is the assumed one, as before a job's first measurement.
    """
    runs, bounds = len(start.slot), {"rho_min": policy.rho_min, "rho_max": policy.rho_max}
    free = costs(np.full((runs, 1), policy.rho_max))[:, 0] == 0
    if isinstance(policy, Price):
        rho, _ = choose_price_rho(
            DEFAULT_UTILITY,
            costs,
            runs,
            loss_per_epoch=ASSUMED_LOSS_PER_EPOCH,
            gco2e_per_loss=policy.gco2e_per_loss,
            **bounds,
        )
        return RhoChoices(np.where(free, policy.rho_max, rho))
    remaining = np.maximum(policy.budget_gco2e - start.spent_g, 0.0)
    choice = choose_budget_rho(
        DEFAULT_UTILITY, costs, remaining, start.epochs_left, budget_gco2e=policy.budget_gco2e, **bounds
    )
    return RhoChoices(
        np.where(free, policy.rho_max, choice.rho), np.where(free, 1.0, choice.rho_limit), choice.ends & ~free
    )


def _epoch_costs(
    start: EpochStart, slots: Slots, forecast: BacktestForecast, epoch_hours: float, epoch_kwh: float
) -> EpochCosts:
    """Costs of epochs that start at the runs' positions: the intensity in force, then the expected ones."""
    count = int(np.ceil(start.epochs_left.max() * epoch_hours / slots.step_hours)) + 1
    expected = forecast(start.slot, count)
    expected[:, 0] = slots.at(start.slot)
    intensity, reached = bridge_gaps(expected)
    hours = np.full(intensity.shape, slots.step_hours) * reached
    hours[:, 0] -= start.within_hours

    def costs(rho: Floats) -> Floats:
        ends = np.cumsum(rho * epoch_hours, axis=1)
        starts = np.concatenate([np.zeros((len(ends), 1)), ends[:, :-1]], axis=1)
        return compute_window_means(intensity, hours, starts, ends) * epoch_kwh

    return costs
