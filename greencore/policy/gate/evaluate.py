"""Evaluates a policy's gate on a forecast: whether a run computes now, waits or pauses."""

from dataclasses import dataclass
from datetime import datetime

import numpy as np

from greencore.arrays import Bools, Floats
from greencore.carbon.series import IntensitySeries
from greencore.clock import HOUR
from greencore.policy.gate.hours import apply_hysteresis, bridge_gaps, find_best_window, select_cheapest_slots
from greencore.policy.kinds.by_intensity import IntensityPolicy
from greencore.policy.kinds.policy import Gate, Policy

EPSILON_HOURS = 1e-9  # tolerance for rounding errors
NO_SAVING = 1e-12
NO_PAUSE_REASON = "it has begun, and runs through"


@dataclass(frozen=True)
class GatePlans:
    """Gate plans of many runs: when each computes, what that saves, and whether it follows the plan.

    `share` [runs, slots] is the used share of each slot; `delay_hours` [runs] the time until the first used one;
    `saving` [runs] a share of the emissions of running through from now; `planned` [runs]: the gate plans and the
    forecast reaches far enough; `committed` [runs]: the saving once exceeded `min_saving`, after which the plan is
    followed to its end, however little the rest of it saves.
    """

    share: Floats
    delay_hours: Floats
    saving: Floats
    planned: Bools
    committed: Bools


def plan_gates(
    gate: Gate,
    intensity: Floats,
    hours: Floats,
    rho: Floats,
    work: Floats,
    *,
    committed: Bools,
    begun: Bools,
    computing: Bools,
    switch_hours: float,
    followed: int = 1,
) -> GatePlans:
    """Plan many runs at once; arrays as in `greencore.policy.gate.hours`, with NaN where no intensity is known.

    A gap between known intensities takes the one before it; after the last one nothing is planned. A run computes at
    once where its gate is "none", where it is "defer" and the run has started, where the slots with a known intensity
    cannot do the work, and as long as no plan saves more than `min_saving`. The first `followed` slots are those before
    the next plan: in them a run changes between computing and pausing only where that saves more than `switch_hours`
    costs.
    """
    intensity, reached = bridge_gaps(intensity)
    hours = hours * reached
    through = (hours / rho).sum(axis=1) < work - EPSILON_HOURS
    if gate.mode == "none":
        through |= True
    elif gate.mode == "defer":
        through = through | begun
    if gate.mode == "pause":
        cheapest = select_cheapest_slots(intensity, hours, rho, work)
        saving = cheapest.saving
        share = apply_hysteresis(
            cheapest,
            intensity,
            hours,
            running=computing,
            switch_hours=np.where(begun, switch_hours, 0.0),
            slots=followed,
        )
        # The last used slot is used whole, in case the work takes a little longer: there is no later one to pause for.
        goes_on = np.zeros(share.shape, dtype=bool)
        goes_on[:, :-1] = np.logical_or.accumulate(share[:, :0:-1] > 0, axis=1)[:, ::-1]
        share = np.where((share > 0) & ~goes_on, 1.0, share)
    else:
        window = find_best_window(intensity, hours, rho, work)
        ends = np.cumsum(hours, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.clip((ends - window.delay_hours[:, None]) / hours, 0.0, 1.0)
        share, saving = np.where(hours > 0, share, 0.0), window.saving
    committed = committed | ((saving > gate.min_saving + NO_SAVING) & ~through)
    share = np.where((committed & ~through)[:, None], share, 1.0)
    return GatePlans(share, _delay(share, hours, gate), saving, ~through, committed)


def predict_rho(policy: Policy, intensity: Floats, current: Floats) -> Floats:
    """Predict ρ [runs, slots] at expected intensities [runs, slots], for a plan.

    Policies by intensity alone give it for each slot; the others are assumed to keep `current` [runs] (NaN before the
    first epoch: the middle of their range), and are planned again as their ρ changes. NaN intensities are bridged as
    in `plan_gates`.
    """
    if isinstance(policy, IntensityPolicy):
        return policy.rho_at_intensities(bridge_gaps(intensity)[0])
    rho = np.nan_to_num(current, nan=sum(policy.rho_range) / 2)
    return np.repeat(rho[:, None], intensity.shape[1], axis=1)


def apply_thresholds(gate: Gate, intensity: Floats, before: Bools) -> Bools:
    """Whether the gate's thresholds forbid computing: above `pause_above`, and then until not above `resume_below`."""
    if gate.pause_above is None:
        return np.zeros(len(intensity), dtype=bool)
    return (intensity > gate.pause_above) | (before & (intensity > gate.resume_threshold))


@dataclass(frozen=True)
class RunProgress:
    """Progress of a run, as its gate needs it.

    `epoch_left_hours` is the rest of the running epoch at its own ρ (0 between epochs), `work_left_hours` the length
    of the epochs after it at ρ = 1; `rho` is the newest, None before the first epoch. `switch_hours` is the cost of a
    checkpoint and a reload, in hours of computing. `committed` and `shut` come from the last `GateDecision`.
    """

    epoch_left_hours: float
    work_left_hours: float
    rho: float | None
    begun: bool
    computing: bool
    switch_hours: float = 0.0
    committed: bool = False
    shut: bool = False


@dataclass(frozen=True)
class GateDecision:
    """Whether the run may compute now, and if not, when it is expected to.

    `until` is None while the gate is open. `saving` is the share of the emissions of running through from now that the
    plan avoids. `forced`: the slack is used up, and the deadline overrides the gate. `committed` and `shut` go into
    the next evaluation's `RunProgress`.
    """

    opens: bool
    until: datetime | None
    saving: float
    forced: bool
    committed: bool
    shut: bool
    reason: str


def evaluate_gate(
    policy: Policy,
    progress: RunProgress,
    *,
    now: datetime,
    deadline: datetime,
    forecast: IntensitySeries,
    intensity_gco2e_per_kwh: float | None,
) -> GateDecision:
    """Plan over `forecast` up to `deadline`, and decide whether the run may compute now.

    `intensity_gco2e_per_kwh` is the one in force, for the two thresholds; an unknown one (None) does not close the
    gate. A run whose slack is used up computes whatever the plan says: its deadline overrides the gate.
    """
    gate = policy.gate
    _, rho_max = policy.rho_range
    slack_hours = (deadline - now) / HOUR - progress.epoch_left_hours - progress.work_left_hours * rho_max
    edges, intensity = _slots(forecast, now, deadline)
    hours = np.diff(edges)[None, :]
    rho = predict_rho(policy, intensity, np.array([np.nan if progress.rho is None else progress.rho]))
    plans = plan_gates(
        gate,
        intensity,
        hours,
        rho,
        np.array([progress.epoch_left_hours / rho[0, 0] + progress.work_left_hours]),
        committed=np.array([progress.committed]),
        begun=np.array([progress.begun]),
        computing=np.array([progress.computing]),
        switch_hours=progress.switch_hours,
    )
    bound_by_gate = not (gate.mode == "defer" and progress.begun)
    is_shut = False
    if intensity_gco2e_per_kwh is not None and bound_by_gate:
        [is_shut] = apply_thresholds(gate, np.array([intensity_gco2e_per_kwh]), np.array([progress.shut])).tolist()
    saving, delay, committed = float(plans.saving[0]), float(plans.delay_hours[0]), bool(plans.committed[0])
    waits = delay > EPSILON_HOURS
    forced = (is_shut or (gate.mode != "none" and bound_by_gate)) and slack_hours <= EPSILON_HOURS
    if forced or not (waits or is_shut):
        why = explain_open_gate(gate, plans, begun=progress.begun)
        if forced:
            why = f"the slack before the deadline {_clock(deadline)} is used up, so it runs regardless"
        return GateDecision(True, None, saving, forced, committed, is_shut, why)
    last = now + slack_hours * HOUR
    if is_shut:
        assert intensity_gco2e_per_kwh is not None
        bound = explain_closed_gate(gate, intensity_gco2e_per_kwh)
        reason = f"{intensity_gco2e_per_kwh:.4g} gCO2e/kWh is {bound}; it runs by {_clock(last)} in any case"
        return GateDecision(False, last, saving, False, committed, True, reason)
    until = min(now + delay * HOUR, last)
    what = "the best window begins" if gate.mode == "defer" else "the planned clean hours begin"
    return GateDecision(
        False, until, saving, False, committed, False, f"{what} at {_clock(until)}, which saves {saving:.1%}"
    )


def explain_open_gate(gate: Gate, plans: GatePlans, *, begun: bool) -> str:
    """Return the reason why the first of the planned runs may compute now."""
    if gate.mode == "none":
        return "the gate is open"
    if gate.mode == "defer" and begun:
        return NO_PAUSE_REASON
    if not plans.planned[0]:
        return "the forecast does not reach far enough to plan"
    if plans.committed[0]:
        return "now is in the planned clean hours" if gate.mode == "pause" else "now is the best window"
    return f"waiting would save {max(plans.saving[0], 0.0):.1%}, not more than min_saving {gate.min_saving:.1%}"


def explain_closed_gate(gate: Gate, intensity_gco2e_per_kwh: float) -> str:
    """Return which threshold closes the gate at an intensity, as a text that continues "it is"."""
    assert gate.pause_above is not None
    if intensity_gco2e_per_kwh > gate.pause_above:
        return f"above pause_above {gate.pause_above:g}"
    return f"still above resume_below {gate.resume_threshold:g}"


def _slots(forecast: IntensitySeries, now: datetime, deadline: datetime) -> tuple[Floats, Floats]:
    """Return slot edges in hours from `now` and intensities [1, slots] up to the deadline; NaN where unknown."""
    edges, values = [0.0], []
    for reading in forecast:
        if reading.start >= deadline:
            break
        begins, ends = (reading.start - now) / HOUR, (min(reading.end, deadline) - now) / HOUR
        if ends <= edges[-1]:
            continue
        if begins > edges[-1]:
            edges.append(begins)
            values.append(np.nan)
        edges.append(ends)
        values.append(reading.gco2e_per_kwh)
    until = max((deadline - now) / HOUR, 0.0)
    if until > edges[-1] or not values:
        edges.append(max(until, edges[-1]))
        values.append(np.nan)
    return np.array(edges), np.array([values])


def _delay(share: Floats, hours: Floats, gate: Gate) -> Floats:
    """Hours until the first use of a slot, which defer starts late and pause starts at once."""
    begins = np.cumsum(hours, axis=1) - hours
    used = (share > 0) & (hours > 0)
    late = (1.0 - share) * hours if gate.mode == "defer" else np.zeros_like(hours)
    first = np.argmax(used, axis=1)[:, None]
    delay = np.take_along_axis(begins + late, first, axis=1)[:, 0]
    return np.where(used.any(axis=1), delay, 0.0)


def _clock(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC"
