"""Selects the hours in which a run computes: the cheapest slots, or the best contiguous window.

All functions take many runs at once. A run is a row; its slots ahead are columns, the first of which starts now.
`intensity` [runs, slots] is expected, in gCO2e/kWh; `hours` [runs, slots] is a slot's length (0 after the deadline),
`rho` [runs, slots] the ρ at which a slot would be used, and `work` [runs] the remaining work in hours at ρ = 1: an hour
at ρ does 1/ρ of it. Power is assumed constant while a run computes, so emissions are compared as ∫c dt, in
(gCO2e/kWh)·h.
"""

from dataclasses import dataclass

import numpy as np

from greencore.arrays import Bools, Floats


@dataclass(frozen=True, kw_only=True)
class PlannedEmissions:
    """∫c dt [runs] of a plan, and of the same hours of computing from now on without a pause."""

    emissions: Floats
    uninterrupted_emissions: Floats

    @property
    def saving(self) -> Floats:
        """Share of the emissions that the plan avoids; 0 where there are none."""
        with np.errstate(invalid="ignore", divide="ignore"):
            saving = 1.0 - self.emissions / self.uninterrupted_emissions
        return np.where(self.uninterrupted_emissions > 0, saving, 0.0)


@dataclass(frozen=True, kw_only=True)
class PausePlan(PlannedEmissions):
    """The cheapest slots that together do the work.

    `share` [runs, slots] is the used share of each slot, in [0, 1]; `marginal` [runs] the intensity of the dirtiest
    used slot (0 where none is).
    """

    share: Floats
    marginal: Floats


@dataclass(frozen=True, kw_only=True)
class BestWindow(PlannedEmissions):
    """The best contiguous window: it starts `delay_hours` [runs] from now."""

    delay_hours: Floats


def select_cheapest_slots(intensity: Floats, hours: Floats, rho: Floats, work: Floats) -> PausePlan:
    """Use the cleanest slots first, the earlier of equals, until the work is done.

    That is optimal where power and ρ are constant and a pause is free. Where ρ rises as the grid gets cleaner, the
    cleanest slots also have the highest ρ. Where the slots cannot do the work, all of them are used.
    """
    order = np.argsort(np.where(hours > 0, intensity, np.inf), axis=1, kind="stable")
    capacity = np.take_along_axis(hours / rho, order, axis=1)
    before = np.cumsum(capacity, axis=1) - capacity
    with np.errstate(invalid="ignore", divide="ignore"):
        used = np.clip((work[:, None] - before) / capacity, 0.0, 1.0)
    used = np.where(capacity > 0, used, 0.0)
    # A share that is a rounding error does not count as use.
    used = np.where(used < 1e-9, 0.0, used)
    share = np.empty_like(used)
    np.put_along_axis(share, order, used, axis=1)
    marginal = np.where(share > 0, intensity, 0.0).max(axis=1)
    used_hours = share * hours
    return PausePlan(
        share=share,
        marginal=marginal,
        emissions=(used_hours * intensity).sum(axis=1),
        uninterrupted_emissions=_uninterrupted_emissions(intensity, hours, used_hours.sum(axis=1)),
    )


def find_best_window(intensity: Floats, hours: Floats, rho: Floats, work: Floats) -> BestWindow:
    """Find the contiguous window with the lowest mean intensity, the earliest of equals.

    At a constant ρ it emits least. With w the work that could have been done by a time, a window that starts at w
    emits G(w + work) − G(w) and takes H(w + work) − H(w) hours, where G and H are piecewise linear: their quotient is
    lowest where one of the window's ends is at a slot's edge.
    """
    done = _from_zero(hours / rho)
    elapsed, total = _from_zero(hours), _from_zero(hours * intensity)
    last = np.maximum(done[:, -1:] - work[:, None], 0.0)
    begins = np.concatenate([done, done - work[:, None]], axis=1)
    begins = np.sort(np.clip(begins, 0.0, last), axis=1)
    ends = begins + work[:, None]
    emissions = _rows_interp(ends, done, total) - _rows_interp(begins, done, total)
    taken = _rows_interp(ends, done, elapsed) - _rows_interp(begins, done, elapsed)
    mean = np.divide(emissions, taken, out=np.zeros_like(emissions), where=taken > 0)
    # With a tolerance, so that a difference in the last digits does not prefer a later window.
    best = np.argmax(mean <= mean.min(axis=1, keepdims=True) * (1 + 1e-12) + 1e-12, axis=1)[:, None]
    start = np.take_along_axis(begins, best, axis=1)
    return BestWindow(
        delay_hours=_rows_interp(start, done, elapsed)[:, 0],
        emissions=np.take_along_axis(emissions, best, axis=1)[:, 0],
        uninterrupted_emissions=_uninterrupted_emissions(
            intensity, hours, np.take_along_axis(taken, best, axis=1)[:, 0]
        ),
    )


def apply_hysteresis(
    plan: PausePlan, intensity: Floats, hours: Floats, *, running: Bools, switch_hours: Floats, slots: int = 1
) -> Floats:
    """Return the plan's `share` [runs, slots], without changes in the first `slots` that save less than they cost.

    `running`: whether each run computes now; `switch_hours` [runs]: the cost of a pause (checkpoint and reload) in
    hours of computing. A running job pauses only where the next pause saves more than that. A paused one resumes for
    the last stretch in any case, and for a stretch that another pause follows only where running there, rather than in
    the dirtiest slot of the plan, saves more than that.
    """
    share, running = plan.share.copy(), running.copy()
    matters = switch_hours > 0
    if not matters.any():
        return share
    used, absent = plan.share > 0, hours <= 0
    gain = np.abs(intensity - plan.marginal[:, None])
    planned = (plan.share * hours).sum(axis=1)
    for slot in range(min(slots, share.shape[1])):
        cost = switch_hours * intensity[:, slot]
        wanted, goes_on = used[:, slot], used[:, slot + 1 :].any(axis=1)
        same = np.logical_and.accumulate((used[:, slot:] == wanted[:, None]) | absent[:, slot:], axis=1)
        pays = _gained(gain[:, slot:], hours[:, slot:], same, planned) > cost
        pays |= wanted & ~(used[:, slot:] & ~same).any(axis=1)
        computes = np.where((wanted != running) & ~pays & matters, running, wanted)
        # Where the plan uses a part of a slot, and more later, a pause starts within the slot.
        pause = np.logical_and.accumulate(~used[:, slot + 1 :], axis=1)
        pause_pays = _gained(gain[:, slot + 1 :], hours[:, slot + 1 :], pause, planned) > cost
        through = computes & (~wanted | (goes_on & ~pause_pays & matters))
        share[:, slot] = np.where(through, 1.0, np.where(computes, share[:, slot], 0.0))
        running = computes & (share[:, slot] >= 1)
    return share


def compute_window_means(intensity: Floats, hours: Floats, starts: Floats, ends: Floats) -> Floats:
    """Mean expected intensity [runs, windows] between times in hours from now; after the slots the last one continues.

    `ends` are after `starts` (both [runs, windows]); a window of no length takes the last slot's.
    """
    edges, total = _from_zero(hours), _from_zero(hours * intensity)
    reach = edges[:, -1:]
    beyond = intensity[np.arange(len(intensity)), np.maximum((hours > 0).sum(axis=1) - 1, 0)][:, None]

    def integral(times: Floats) -> Floats:
        up_to: Floats = _rows_interp(times, edges, total) + np.maximum(times - reach, 0.0) * beyond
        return up_to

    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(ends > starts, (integral(ends) - integral(starts)) / (ends - starts), beyond)


def bridge_gaps(intensity: Floats) -> tuple[Floats, Bools]:
    """Return intensities [runs, slots] without NaN, and which slots are before the end of the known ones.

    A gap takes the value before it, a gap at the start the first known value; a row without any becomes 0.
    """
    known, places = np.isfinite(intensity), np.arange(intensity.shape[1])
    before = np.maximum.accumulate(np.where(known, places, -1), axis=1)
    source = np.where(before >= 0, before, np.argmax(known, axis=1)[:, None])
    return np.nan_to_num(np.take_along_axis(intensity, source, axis=1)), places <= before[:, -1:]


def _gained(gain: Floats, hours: Floats, stretch: Bools, planned: Floats) -> Floats:
    """Gain of a stretch [runs, slots] of pausing or computing, for at most the `planned` hours [runs]."""
    before = np.cumsum(hours, axis=1) - hours
    lasting = np.clip(planned[:, None] - before, 0.0, hours)
    gained: Floats = np.where(stretch, gain * lasting, 0.0).sum(axis=1)
    return gained


def _uninterrupted_emissions(intensity: Floats, hours: Floats, computing_hours: Floats) -> Floats:
    """∫c dt [runs] over `computing_hours` from now on."""
    return _rows_interp(computing_hours[:, None], _from_zero(hours), _from_zero(hours * intensity))[:, 0]


def _from_zero(steps: Floats) -> Floats:
    return np.concatenate([np.zeros((len(steps), 1)), np.cumsum(steps, axis=1)], axis=1)


def _rows_interp(x: Floats, xp: Floats, fp: Floats) -> Floats:
    """`np.interp` row by row; `xp` starts at 0 and does not fall, and x is at least 0."""
    rows, points = xp.shape
    # The rows are laid end to end as one long curve, so that one search finds all segments.
    span = max(float(xp[:, -1].max()), float(x.max(initial=0.0))) + 1.0
    offset = np.arange(rows)[:, None] * span
    x = np.minimum(x, xp[:, -1:])
    found = np.searchsorted((xp + offset).ravel(), (x + offset).ravel(), side="right").reshape(x.shape)
    last = np.maximum(points - 2, 0)
    segment = np.clip(found - 1 - np.arange(rows)[:, None] * points, 0, last)
    # The offset costs digits: a point just before an edge may have been found after it.
    segment = np.maximum(segment - (x < np.take_along_axis(xp, segment, axis=1)), 0)
    left, bottom = np.take_along_axis(xp, segment, axis=1), np.take_along_axis(fp, segment, axis=1)
    width = np.take_along_axis(xp, segment + 1, axis=1) - left
    height = np.take_along_axis(fp, segment + 1, axis=1) - bottom
    share = np.divide(x - left, width, out=np.zeros_like(x), where=width > 0)
    # Exact at the upper end, too.
    return np.where(share < 1, bottom + share * height, bottom + height)
