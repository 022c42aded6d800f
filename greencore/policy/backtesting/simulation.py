"""Simulates many runs under one policy, slot by slot: when each computes, at which ρ, and what it emits."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np

from greencore.arrays import Floats, Ints
from greencore.policy.backtesting.slots import Slots
from greencore.policy.gate.evaluate import (
    EPSILON_HOURS,
    NO_PAUSE_REASON,
    apply_thresholds,
    explain_closed_gate,
    explain_open_gate,
    plan_gates,
    predict_rho,
)
from greencore.policy.gate.forecasts import BacktestForecast
from greencore.policy.kinds.policy import Policy
from greencore.policy.rho.simulated_rules import EpochStart, RhoRule


@dataclass(frozen=True)
class Workload:
    """Work and power of each run.

    `work_hours` at ρ = 1 in `epochs` equal parts; power in kW while it computes, and while it waits after its start;
    `switch_hours` is the cost of a checkpoint and a reload, in hours of computing.
    """

    work_hours: float
    epochs: int
    power_kw: float
    idle_power_kw: float
    switch_hours: float = 0.0


@dataclass(frozen=True, slots=True)
class BacktestDecision:
    """Action of a simulated run at `time`, the intensity in gCO2e/kWh, and the reason.

    `action` is "run", "wait" (not started yet), "pause", "epoch" (one starts at `rho`), "end" (the budget is used up)
    or "finish".
    """

    time: datetime
    intensity: float
    action: str
    rho: float | None
    reason: str


@dataclass
class SimulatedRuns:
    """Results of the simulation, one entry per run; `starts` in slots.

    `computing_hours`, `finish_hours` and `deadline_hours` count from the start; `emissions_g` in gCO2e. `decisions` has
    those of the first run, where they were recorded.
    """

    starts: Floats
    deadline_hours: Floats
    computing_hours: Floats
    finish_hours: Floats
    emissions_g: Floats
    epochs_run: Ints
    decisions: list[BacktestDecision] = field(default_factory=list)


def latest_finish_hours(policy: Policy, work_hours: float, deadline_hours: float | None) -> tuple[float, float]:
    """Return the deadline in hours from the start, and the longest time that a run may take, late or not."""
    _, rho_max = policy.rho_range
    longest = work_hours * rho_max
    deadline = longest + policy.gate.max_delay_hours if deadline_hours is None else deadline_hours
    return deadline, max(deadline, longest)


def concatenate_runs(parts: Sequence[SimulatedRuns]) -> SimulatedRuns:
    """Concatenate the runs of several simulations (at least one), in order."""
    fields = ("starts", "deadline_hours", "computing_hours", "finish_hours", "emissions_g", "epochs_run")
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in fields}
    return SimulatedRuns(**arrays, decisions=parts[0].decisions)


class Simulation:
    """Simulates runs that start at the grid positions `starts`, independently of each other.

    The gate plans again at each full hour from `forecast`; ρ and the two thresholds use the intensity in force. A run
    whose slack is used up computes whatever the plan says.
    """

    def __init__(
        self,
        policy: Policy,
        slots: Slots,
        forecast: BacktestForecast,
        rule: RhoRule,
        starts: Floats,
        work: Workload,
        *,
        deadline_hours: float,
        record_decisions: bool,
    ) -> None:
        count = len(starts)
        self._policy, self._slots, self._forecast, self._rule, self._work = policy, slots, forecast, rule, work
        _, self._rho_max = policy.rho_range
        self._record_decisions = record_decisions
        self._first = np.floor(starts + EPSILON_HOURS).astype(np.int64)
        self._offset_hours = np.maximum(starts - self._first, 0.0) * slots.step_hours
        self._runs = SimulatedRuns(
            starts=starts,
            deadline_hours=np.full(count, deadline_hours),
            computing_hours=np.zeros(count),
            finish_hours=np.full(count, np.nan),
            emissions_g=np.zeros(count),
            epochs_run=np.zeros(count, dtype=np.int64),
        )
        self._epoch_work = work.work_hours / work.epochs
        self._epoch_left = np.zeros(count)  # rest of the running epoch, in hours at ρ = 1
        self._epochs_left = np.full(count, work.epochs)  # epochs not started yet
        self._rho = np.full(count, np.nan)
        self._epochs_at_rho = np.zeros(count, dtype=np.int64)
        self._active = np.ones(count, dtype=bool)
        self._begun = np.zeros(count, dtype=bool)
        self._computing = np.zeros(count, dtype=bool)  # at the end of the last slot
        self._committed = np.zeros(count, dtype=bool)  # to a plan that once saved more than min_saving
        self._shut = np.zeros(count, dtype=bool)  # by pause_above
        self._plan = np.ones((count, slots.per_hour))  # planned shares of the slots up to the next full hour
        self._why_runs, self._why_waits = "the gate is open", ""

    def run(self) -> SimulatedRuns:
        """Simulate slot by slot until every run has ended."""
        index, elapsed = 0, np.zeros(len(self._first))
        while self._active.any():
            slot = self._first + index
            begins = self._offset_hours if index == 0 else np.zeros(len(slot))
            length = self._slots.step_hours - begins
            self._step(slot, begins, length, elapsed)
            elapsed = elapsed + length
            index += 1
        return self._runs

    def _step(self, slot: Ints, begins: Floats, length: Floats, elapsed: Floats) -> None:
        intensity = self._slots.at(slot)
        slack = self._runs.deadline_hours - elapsed - self._longest_left()
        wanted = self._wanted_hours(slot, length, elapsed, intensity)
        # Idling may use up the slack and no more: the rest of the slot has to compute.
        forced = np.clip(length - np.maximum(slack, 0.0), 0.0, length)
        forced = np.where(forced > EPSILON_HOURS, forced, 0.0)
        hours = np.where(self._active, np.maximum(wanted, forced), 0.0)
        # A window chosen by defer starts late in its slot, as do hours forced by the deadline; a pause plan uses a slot
        # from its start.
        idle_first = np.where((self._policy.gate.mode == "defer") | (wanted <= 0), length - hours, 0.0)
        active = self._active.copy()
        starts = slot[0] + (begins[0] + idle_first[0]) / self._slots.step_hours
        if idle_first[0] > 0:
            self._record(slot[0] + begins[0] / self._slots.step_hours, runs=False, forced=False)
        if hours[0] > 0:
            self._record(starts, runs=True, forced=forced[0] > 0)
        self._runs.emissions_g += intensity * np.where(active, idle_first, 0.0) * self._work.idle_power_kw
        self._compute(slot, begins + idle_first, hours, elapsed + idle_first, intensity)
        if 0 < hours[0] < length[0] - idle_first[0] - EPSILON_HOURS:
            self._record(starts + hours[0] / self._slots.step_hours, runs=False, forced=False)
        idle_last = np.where(self._active, length - hours - idle_first, 0.0)
        self._runs.emissions_g += intensity * idle_last * self._work.idle_power_kw
        self._computing = self._active & (hours > 0) & ((hours >= length - EPSILON_HOURS) | (idle_first > 0))

    def _longest_left(self) -> Floats:
        """Hours that the rest takes where every later epoch has the highest ρ."""
        this = self._epoch_left * np.where(np.isnan(self._rho), self._rho_max, self._rho)
        return this + self._epochs_left * self._epoch_work * self._rho_max

    def _wanted_hours(self, slot: Ints, length: Floats, elapsed: Floats, intensity: Floats) -> Floats:
        """Hours of this slot in which the gate lets each run compute."""
        gate = self._policy.gate
        replan = self._active & ((slot % self._slots.per_hour == 0) | (elapsed == 0)) & (gate.mode != "none")
        if gate.mode == "defer":
            # A started run is not interrupted and needs no plan.
            self._plan[self._begun] = 1.0
            replan &= ~self._begun
        if replan.any():
            self._replan(np.flatnonzero(replan), slot, length, elapsed)
        self._shut = apply_thresholds(gate, intensity, self._shut)
        if gate.mode == "defer":
            self._shut &= ~self._begun
        wanted = self._plan[np.arange(len(slot)), slot % self._slots.per_hour] * length
        return np.where(~self._shut & (wanted > EPSILON_HOURS), wanted, 0.0)

    def _replan(self, runs: Ints, slot: Ints, length: Floats, elapsed: Floats) -> None:
        step, per_hour = self._slots.step_hours, self._slots.per_hour
        left = np.maximum(self._runs.deadline_hours - elapsed, 0.0)[runs]
        count = int(np.ceil(left.max() / step - EPSILON_HOURS)) + 1
        expected = self._forecast(slot[runs], count)
        lengths = np.full((len(runs), count), step)
        lengths[:, 0] = length[runs]
        hours = np.clip(left[:, None] - (np.cumsum(lengths, axis=1) - lengths), 0.0, lengths)
        rho = predict_rho(self._policy, expected, self._rho[runs])
        current = self._epoch_left * np.nan_to_num(self._rho, nan=self._rho_max)
        plans = plan_gates(
            self._policy.gate,
            expected,
            hours,
            rho,
            current[runs] / rho[:, 0] + self._epochs_left[runs] * self._epoch_work,
            committed=self._committed[runs],
            begun=self._begun[runs],
            computing=self._computing[runs],
            switch_hours=self._work.switch_hours,
            followed=per_hour,
        )
        self._committed[runs] = plans.committed
        for column in range(min(per_hour, count)):
            self._plan[runs, (slot[runs] + column) % per_hour] = plans.share[:, column]
        if self._record_decisions and runs[0] == 0:
            self._why_runs = explain_open_gate(self._policy.gate, plans, begun=bool(self._begun[0]))
            ahead = "the best window is" if self._policy.gate.mode == "defer" else "cleaner hours are"
            self._why_waits = f"{ahead} ahead, which saves {max(plans.saving[0], 0.0):.1%}"

    def _compute(self, slot: Ints, within: Floats, hours: Floats, elapsed: Floats, intensity: Floats) -> None:
        """Compute for `hours` from `elapsed` on, epoch after epoch."""
        todo, used = hours.copy(), np.zeros_like(hours)
        while True:
            ready = self._active & (todo > EPSILON_HOURS)
            if not ready.any():
                return
            fresh = np.flatnonzero(ready & (self._epoch_left <= EPSILON_HOURS))
            if len(fresh):
                self._begin_epochs(fresh, slot, within + used, elapsed + used)
                ready &= self._active
            rho = np.nan_to_num(self._rho, nan=1.0)
            spent = np.where(ready, np.minimum(todo, self._epoch_left * rho), 0.0)
            todo -= spent
            used += spent
            self._begun |= spent > 0
            self._epoch_left -= spent / rho
            self._runs.computing_hours += spent
            self._runs.emissions_g += intensity * spent * self._work.power_kw
            done = ready & (self._epoch_left <= EPSILON_HOURS)
            self._runs.epochs_run += done
            finished = done & (self._epochs_left == 0)
            self._runs.finish_hours[finished] = (elapsed + used)[finished]
            self._active &= ~finished

    def _begin_epochs(self, runs: Ints, slot: Ints, within: Floats, elapsed: Floats) -> None:
        start = EpochStart(
            slot=slot[runs],
            within_hours=within[runs],
            epochs_left=self._epochs_left[runs],
            spent_g=self._runs.emissions_g[runs],
            previous_rho=self._rho[runs],
            epochs_at_rho=self._epochs_at_rho[runs],
        )
        rho = self._rule(start)
        ends = np.isnan(rho)  # the budget is used up
        self._epochs_at_rho[runs] = np.where(rho == self._rho[runs], self._epochs_at_rho[runs] + 1, 1)
        self._rho[runs] = np.where(ends, self._rho[runs], rho)
        self._epoch_left[runs] = np.where(ends, 0.0, self._epoch_work)
        self._epochs_left[runs] -= np.where(ends, 0, 1)
        ended = runs[ends]
        self._active[ended] = False
        self._runs.finish_hours[ended] = elapsed[ended]
        self._epochs_left[ended] = 0
        if self._record_decisions and runs[0] == 0:
            number = int(self._runs.epochs_run[0]) + 1
            position = slot[0] + within[0] / self._slots.step_hours
            why = f"epoch {number}" if not ends[0] else "the budget is used up: the run ends"
            self._append(position, "end" if ends[0] else "epoch", None if ends[0] else float(rho[0]), why)

    def _record(self, position: float, *, runs: bool, forced: bool) -> None:
        if not self._record_decisions or not self._active[0]:
            return
        gate, begun = self._policy.gate, bool(self._begun[0])
        held = bool(self._shut[0]) or (gate.mode != "none" and not (gate.mode == "defer" and begun))
        if not runs:
            why = explain_closed_gate(gate, self._intensity_at(position)) if self._shut[0] else self._why_waits
        elif forced and held:
            why = "the slack before the deadline is used up, so it runs regardless"
        elif gate.mode == "defer" and begun:
            why = NO_PAUSE_REASON
        else:
            why = self._why_runs
        self._append(position, "run" if runs else "pause" if begun else "wait", None, why)

    def _append(self, position: float, action: str, rho: float | None, why: str) -> None:
        time = self._slots.time(position)
        self._runs.decisions.append(BacktestDecision(time, self._intensity_at(position), action, rho, why))

    def _intensity_at(self, position: float) -> float:
        return float(self._slots.at(np.array(int(position + EPSILON_HOURS))))
