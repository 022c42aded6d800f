"""The ρ that a policy sets at an epoch's start, for many runs at once: what `decide_rho` says of one."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from greencore.policy.backtesting.slots import Floats, Ints, Slots
from greencore.policy.context import ASSUMED_LOSS_PER_EPOCH
from greencore.policy.gate.forecasts import BacktestForecast
from greencore.policy.gate.hours import Bools, bridge_gaps, compute_window_means
from greencore.policy.models import Budget, FixedRho, IntensityPolicy, Percentile, Policy, Price
from greencore.policy.rho.budget_price import ROUNDING, budget_rhos, price_rho, smallest_budget_gco2e
from greencore.policy.rho.choices import BISECTION_STEPS, FIXED_POINT_ITERATIONS
from greencore.policy.rho.smoothing import smooth_rhos
from greencore.policy.rho.utility import DEFAULT_UTILITY

MAX_VALUES = 4_000_000  # of all windows that are ranked at a time


@dataclass(frozen=True)
class EpochStart:
    """Where runs stand as an epoch begins, one entry a run.

    The slot that it begins in and how far into it, the epochs that are left with this one, what was emitted so far in
    gCO2e, the previous epoch's ρ (NaN before the first) and for how many epochs it has held.
    """

    slot: Ints
    within_hours: Floats
    epochs_left: Ints
    spent_g: Floats
    previous_rho: Floats
    epochs_at_rho: Ints


@dataclass(frozen=True)
class RhoChoices:
    """ρ before smoothing, the most that smoothing may make of it, and which runs end rather than begin the epoch."""

    rho: Floats
    rho_limit: Floats
    ends: Bools


class RhoRule(ABC):
    """A policy on a grid of slots."""

    def __init__(self, policy: Policy, slots: Slots) -> None:
        self._smoothing, self._range = policy.smoothing, policy.rho_range
        self._slots = slots

    def decide(self, start: EpochStart) -> Floats:
        """ρ [runs] of the epoch that begins, smoothed; NaN where the run has to end before it."""
        choices = self._choose(start)
        lowest, highest = self._range
        rho = smooth_rhos(
            choices.rho,
            start.previous_rho,
            start.epochs_at_rho,
            self._smoothing,
            (lowest, np.minimum(highest, choices.rho_limit)),
        )
        return np.where(choices.ends, np.nan, rho)

    @abstractmethod
    def _choose(self, start: EpochStart) -> RhoChoices:
        """What the policy asks for."""

    def _in_force(self, slot: Ints) -> Floats:
        return self._slots.intensity[np.minimum(slot, len(self._slots.intensity) - 1)]


def build_rho_rule(
    policy: Policy, slots: Slots, forecast: BacktestForecast, *, epoch_hours: float, epoch_kwh: float
) -> RhoRule:
    """The rule of a policy of any kind, for epochs of a length and an energy at ρ = 1."""
    if isinstance(policy, IntensityPolicy):
        return _IntensityRule(policy, slots)
    if isinstance(policy, Percentile):
        return _RankRule(policy, slots)
    if isinstance(policy, Budget):
        return _BudgetRule(policy, slots, forecast, epoch_hours, epoch_kwh)
    assert isinstance(policy, Price)
    return _PriceRule(policy, slots, forecast, epoch_hours, epoch_kwh)


class _IntensityRule(RhoRule):
    """Constant, steps and linear."""

    def __init__(self, policy: IntensityPolicy, slots: Slots) -> None:
        super().__init__(policy, slots)
        self._policy = policy

    def _choose(self, start: EpochStart) -> RhoChoices:
        return _free(self._policy.rho_at_intensities(self._in_force(start.slot)))


class _RankRule(RhoRule):
    """Percentile.

    A window ends within the slot of the present, and begins within one of two slots: what lies between them is the
    same for every run that asks, and is added up once.
    """

    def __init__(self, policy: Percentile, slots: Slots) -> None:
        super().__init__(policy, slots)
        self._policy = policy
        count = len(slots.intensity)
        self._whole = int(policy.window_hours / slots.step_hours + 1e-9)
        self._rest_hours = max(policy.window_hours - self._whole * slots.step_hours, 0.0)
        self._cleaner = np.full(count, np.nan)  # slots between that were cleaner, with half of those that were the same
        self._between = np.minimum(np.arange(count), self._whole - 1) if self._whole else np.zeros(count)

    def _choose(self, start: EpochStart) -> RhoChoices:
        slot = np.minimum(start.slot, len(self._slots.intensity) - 1)
        self._add_up(np.unique(slot[np.isnan(self._cleaner[slot])]))
        step, within, rest = self._slots.step_hours, start.within_hours, self._rest_hours
        early = within < rest
        # The window begins `within` − `rest` into the slot `whole` before, or in the one before that.
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
        return _free(np.where(total > 0, self._policy.rho_at_ranks(rank), self._without_past()))

    def _without_past(self) -> float:
        """ρ at the first moment of a series, before which nothing came; "fail" falls back, too."""
        rule = self._policy.on_missing
        return rule.rho if isinstance(rule, FixedRho) else self._policy.dirtiest_rho

    def _add_up(self, slot: Ints) -> None:
        width = max(self._whole - 1, 0)
        for part in np.array_split(slot, max(1, -(-len(slot) * max(width, 1) // MAX_VALUES))):
            place = part[:, None] - 1 - np.arange(width)
            share = self._share(np.maximum(place, 0), part[:, None])
            self._cleaner[part] = np.where(place >= 0, share, 0.0).sum(axis=1)

    def _share(self, slot: Ints, present: Ints) -> Floats:
        """1 where a slot was cleaner than the present one, 1/2 where it was the same."""
        then, now = self._slots.intensity[slot], self._slots.intensity[present]
        share: Floats = np.where(then < now, 1.0, 0.0) + np.where(then == now, 0.5, 0.0)
        return share


class _PlannedRule(RhoRule, ABC):
    """Budget and price: they look at what is expected of the epochs to come, and use the default curve."""

    def __init__(
        self, policy: Budget | Price, slots: Slots, forecast: BacktestForecast, epoch_hours: float, epoch_kwh: float
    ) -> None:
        super().__init__(policy, slots)
        self._bounds = (policy.rho_min, policy.rho_max)
        self._forecast, self._epoch_hours, self._epoch_kwh = forecast, epoch_hours, epoch_kwh
        self._curve = DEFAULT_UTILITY.normalise()

    def _ahead(self, start: EpochStart) -> tuple[Floats, Floats]:
        """Intensities and hours [runs, slots] from now on: the one in force, then what is expected."""
        step = self._slots.step_hours
        count = int(np.ceil(start.epochs_left.max() * self._epoch_hours / step)) + 1
        expected = self._forecast.intensity_ahead(start.slot, count)
        expected[:, 0] = self._in_force(start.slot)
        intensity, reached = bridge_gaps(expected)
        hours = np.full(intensity.shape, step) * reached
        hours[:, 0] -= start.within_hours
        return intensity, hours

    def _costs(self, ahead: tuple[Floats, Floats], rho: Floats) -> Floats:
        """gCO2e [runs, epochs] at ρ = 1 of epochs that run back to back at these ρ."""
        ends = np.cumsum(rho * self._epoch_hours, axis=1)
        starts = np.concatenate([np.zeros((len(ends), 1)), ends[:, :-1]], axis=1)
        return compute_window_means(*ahead, starts, ends) * self._epoch_kwh

    def _cost_of_first(self, ahead: tuple[Floats, Floats], rho: Floats) -> Floats:
        costs: Floats = self._costs(ahead, rho[:, None])[:, 0]
        return costs


class _BudgetRule(_PlannedRule):
    """As much learning as is left of the budget."""

    def __init__(
        self, policy: Budget, slots: Slots, forecast: BacktestForecast, epoch_hours: float, epoch_kwh: float
    ) -> None:
        super().__init__(policy, slots, forecast, epoch_hours, epoch_kwh)
        self._budget = policy.budget_gco2e

    def _choose(self, start: EpochStart) -> RhoChoices:
        rho_min, rho_max = self._bounds
        runs, ahead = len(start.slot), self._ahead(start)
        remaining = np.maximum(self._budget - start.spent_g, 0.0)
        lowest, highest = np.full(runs, rho_min), np.full(runs, rho_max)
        free = self._cost_of_first(ahead, highest) == 0
        ends = (self._cost_of_first(ahead, lowest) * rho_min > remaining + self._budget * ROUNDING) & ~free
        # An epoch that is not there costs nothing.
        there = np.arange(start.epochs_left.max()) < start.epochs_left[:, None]
        rho = np.full(there.shape, rho_max)
        for _ in range(FIXED_POINT_ITERATIONS):
            cost = self._costs(ahead, rho) * there
            plan = budget_rhos(self._curve, cost, remaining, rho_min=rho_min, rho_max=rho_max)
            rho = plan.rho
        left = remaining - smallest_budget_gco2e(cost[:, 1:], rho_min)
        plenty = left >= cost[:, 0] * rho_max
        with np.errstate(invalid="ignore", divide="ignore"):
            most = np.where(plenty, rho_max, np.maximum(rho_min, left / cost[:, 0]))
        most = self._affordable(ahead, most, remaining)
        most = np.where(free, rho_max, np.where(plan.feasible, most, rho_min))
        chosen = np.where(free, rho_max, np.where(plan.feasible, np.minimum(rho[:, 0], most), rho_min))
        return RhoChoices(chosen, np.where(free, 1.0, most), ends)

    def _affordable(self, ahead: tuple[Floats, Floats], high: Floats, remaining: Floats) -> Floats:
        """The highest ρ up to `high` whose epoch is itself within the budget."""
        fits = self._cost_of_first(ahead, high) * high <= remaining
        low, top = np.full(len(high), self._bounds[0]), high
        if fits.all():
            return high
        for _ in range(BISECTION_STEPS):
            middle = (low + top) / 2
            within = self._cost_of_first(ahead, middle) * middle <= remaining
            low, top = np.where(within, middle, low), np.where(within, top, middle)
        return np.where(fits, high, low)


class _PriceRule(_PlannedRule):
    """As many FLOPs as pay; the loss that an epoch takes off is assumed, as before the first measurement."""

    def __init__(
        self, policy: Price, slots: Slots, forecast: BacktestForecast, epoch_hours: float, epoch_kwh: float
    ) -> None:
        super().__init__(policy, slots, forecast, epoch_hours, epoch_kwh)
        self._gco2e_per_loss = policy.gco2e_per_loss

    def _choose(self, start: EpochStart) -> RhoChoices:
        rho_min, rho_max = self._bounds
        ahead = self._ahead(start)
        rho = np.full(len(start.slot), rho_max)
        free = self._cost_of_first(ahead, rho) == 0
        for _ in range(FIXED_POINT_ITERATIONS):
            cost = self._cost_of_first(ahead, rho)
            rho = price_rho(self._curve, ASSUMED_LOSS_PER_EPOCH, cost, self._gco2e_per_loss, rho_min, rho_max)
        return _free(np.where(free, rho_max, rho))


def _free(rho: Floats) -> RhoChoices:
    """A choice that smoothing may change at will."""
    return RhoChoices(rho, np.ones(len(rho)), np.zeros(len(rho), dtype=bool))
