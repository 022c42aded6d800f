"""Reference simulation of one run in plain Python: slow, and independent of the simulation that it checks."""

import math
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from greencore.carbon import IntensitySeries
from greencore.carbon.forecasting import rolling_forecasts
from greencore.policy import Policy, PolicyContext, PreviousRho, decide_rho
from greencore.policy.kinds.by_intensity import IntensityPolicy
from tests.greencore.policy.grids import at, reading

TINY = 1e-9

# (intensity, hours, ρ) of the slots ahead, in order of time.
Pieces = list[tuple[float, float, float]]


@dataclass
class ReferenceSimulation:
    """Inputs of the simulation; then its results, in hours from the start and in gCO2e."""

    policy: Policy
    values: list[float]
    step_hours: float
    start_hours: float
    work_hours: float
    epochs: int
    deadline_hours: float
    forecast: str
    power_kw: float
    idle_kw: float
    emissions_g: float = 0.0
    computing_hours: float = 0.0
    finish_hours: float = math.nan
    begun: list[tuple[float, float]] = field(default_factory=list)  # when each epoch began, and at which ρ
    epochs_run: int = 0
    epoch_left: float = 0.0
    epochs_left: int = 0
    rho: float | None = None
    committed: bool = False
    shut: bool = False
    shares: dict[int, float] = field(default_factory=dict)

    def run(self) -> "ReferenceSimulation":
        """Simulate slot by slot until the last epoch has ended."""
        self.epochs_left = self.epochs
        slot, now, first = int(self.start_hours / self.step_hours + TINY), self.start_hours, True
        while math.isnan(self.finish_hours):
            end = (slot + 1) * self.step_hours
            if self.policy.gate.mode != "none" and (first or abs(now - round(now)) < TINY):
                self._plan(slot, now)
            self._live_slot(slot, now, end)
            slot, now, first = slot + 1, end, False
        return self

    def _live_slot(self, slot: int, now: float, end: float) -> None:
        gate, c, length = self.policy.gate, self.values[slot], end - now
        if gate.pause_above is not None:
            assert gate.resume_below is not None
            self.shut = c > gate.pause_above or (self.shut and c > gate.resume_below)
        if gate.mode == "defer" and self.begun:
            self.shut, self.shares = False, {}
        wanted = 0.0 if self.shut else self.shares.get(slot, 1.0) * length
        slack = self.start_hours + self.deadline_hours - now - self._longest_left()
        hours = max(wanted, length - max(slack, 0.0))
        late = gate.mode == "defer" or wanted <= TINY
        begin = end - hours if late else now
        self._idle(c, begin - now)
        left = hours
        time = begin
        while left > TINY and math.isnan(self.finish_hours):
            if self.epoch_left <= TINY and not self._begin(slot, time):
                self.finish_hours = time - self.start_hours
                return
            assert self.rho is not None
            used = min(left, self.epoch_left * self.rho)
            self.emissions_g += c * used * self.power_kw
            self.computing_hours += used
            self.epoch_left -= used / self.rho
            left, time = left - used, time + used
            if self.epoch_left <= TINY:
                self.epochs_run += 1
                if self.epochs_left == 0:
                    self.finish_hours = time - self.start_hours
                    return
        self._idle(c, end - time)

    def _idle(self, c: float, hours: float) -> None:
        self.emissions_g += c * hours * self.idle_kw

    def _longest_left(self) -> float:
        _, rho_max = self.policy.rho_range
        return self.epoch_left * (self.rho or rho_max) + self.epochs_left * self.work_hours / self.epochs * rho_max

    def _begin(self, slot: int, time: float) -> bool:
        """Start an epoch; False where the policy ends the run."""
        expected = self._expected(slot, 60)
        expected[0] = self.values[slot]
        forecast = IntensitySeries(
            reading(at((slot + index) * self.step_hours), at((slot + index + 1) * self.step_hours), c)
            for index, c in enumerate(expected)
            if c is not None
        )
        now = at(time)
        window = [
            reading(at(index * self.step_hours), at((index + 1) * self.step_hours), c)
            for index, c in enumerate(self.values[: slot + 1])
        ]
        decision = decide_rho(
            self.policy,
            PolicyContext(
                now=max(now, window[-1].start),
                reading=window[-1],
                window=IntensitySeries(window),
                forecast=forecast,
                previous=self._previous(),
                epochs_left=self.epochs_left,
                epoch_hours=self.work_hours / self.epochs,
                epoch_kwh=self.work_hours / self.epochs * self.power_kw,
                spent_gco2e=self.emissions_g,
            ),
        )
        if decision.ends_run:
            return False
        self.rho = decision.rho
        self.begun.append((time, decision.rho))
        self.epoch_left = self.work_hours / self.epochs
        self.epochs_left -= 1
        return True

    def _previous(self) -> PreviousRho | None:
        if not self.begun:
            return None
        rhos = [rho for _, rho in self.begun]
        same = next((back for back, rho in enumerate(reversed(rhos)) if rho != rhos[-1]), len(rhos))
        return PreviousRho(rhos[-1], same)

    def _expected(self, now: int, count: int) -> list[float | None]:
        """Forecast of slot `now` and those after it, as known at its start."""
        per_hour, day = round(1 / self.step_hours), round(24 / self.step_hours)
        if self.forecast == "perfect":
            known = [float(c) for c in self.values[now : now + count]]
            return [*known, *[None] * (count - len(known))]
        if self.forecast == "persistence":
            days_before = [now + index - day * (index // day + 1) for index in range(count)]
            return [self.values[back] if back >= 0 else None for back in days_before]
        hour = now // per_hour
        past = [float(np.mean(self.values[h * per_hour : (h + 1) * per_hour])) for h in range(hour)]
        if not past:
            return [None] * count
        forecast = rolling_forecasts(np.array(past), 72)[-1].tolist()
        return [forecast[(now + index) // per_hour - hour] for index in range(count)]

    def _plan(self, slot: int, now: float) -> None:
        """Plan the shares of the slots ahead by the gate."""
        gate, deadline = self.policy.gate, self.start_hours + self.deadline_hours
        lengths: list[float] = []
        time = now
        while time < deadline - TINY:
            end = min((slot + len(lengths) + 1) * self.step_hours, deadline)
            lengths.append(end - time)
            time = end
        expected = self._expected(slot, len(lengths))
        known = [index for index, c in enumerate(expected) if c is not None]
        pieces: Pieces = []
        for index in range(known[-1] + 1 if known else 0):
            source = max((place for place in known if place <= index), default=known[0])
            c = expected[source]
            assert c is not None
            pieces.append((c, lengths[index], self._planned_rho(c)))
        first_rho = pieces[0][2] if pieces else 1.0
        work = self.epoch_left * (self.rho or 0.0) / first_rho + self.epochs_left * self.work_hours / self.epochs
        self.shares = {}
        if sum(hours / rho for _, hours, rho in pieces) < work - TINY or (gate.mode == "defer" and self.begun):
            return
        shares = cheapest_shares(pieces, work)
        planned, computing = _emissions(pieces, shares), _hours(pieces, shares)
        if gate.mode == "defer":
            planned, computing, shares = best_window(pieces, work)
        else:
            # The last used slot is used whole, since no later one is.
            shares[max(index for index, share in enumerate(shares) if share > 0)] = 1.0
        # The same hours of computing, and so the same FLOPs, from now on.
        straight = _emissions(pieces, straight_shares([(c, hours, 1.0) for c, hours, _ in pieces], computing))
        saving = 1 - planned / straight if straight > 0 else 0.0
        self.committed = self.committed or saving > gate.min_saving
        if self.committed:
            self.shares = {slot + index: share for index, share in enumerate(shares)}

    def _planned_rho(self, c: float) -> float:
        if isinstance(self.policy, IntensityPolicy):
            return self.policy.rho_at(c)
        low, high = self.policy.rho_range
        return (low + high) / 2 if self.rho is None else self.rho


def cheapest_shares(pieces: Pieces, work: float) -> list[float]:
    """Shares of the pieces, the cleanest first, the earlier of equals."""
    shares = [0.0] * len(pieces)
    for index in sorted(range(len(pieces)), key=lambda index: pieces[index][0]):
        _, hours, rho = pieces[index]
        share = min(1.0, work * rho / hours)
        if share > TINY:
            shares[index] = share
            work -= hours / rho * share
    return shares


def straight_shares(pieces: Pieces, work: float, skip_hours: float = 0.0) -> list[float]:
    """Shares of the pieces from `skip_hours` on, until the work is done."""
    shares = []
    for _, hours, rho in pieces:
        skipped = min(skip_hours, hours)
        used = min(hours - skipped, work * rho)
        shares.append(used / hours)
        skip_hours, work = skip_hours - skipped, work - used / rho
    return shares


def best_window(pieces: Pieces, work: float) -> tuple[float, float, list[float]]:
    """Emissions and hours of the cleanest window, and the shares of all pieces from its start on."""
    edges = [sum(hours for _, hours, _ in pieces[:index]) for index in range(len(pieces) + 1)]
    starts = list(edges)
    for index in range(len(edges)):
        left, start = work, edges[index]
        for _, hours, rho in reversed(pieces[:index]):
            used = min(hours, left * rho)
            left, start = left - used / rho, start - used
        starts.append(start)
    found = []
    for start in sorted(starts):
        shares = straight_shares(pieces, work, start)
        done = sum(share * hours / rho for share, (_, hours, rho) in zip(shares, pieces, strict=True))
        if done > work - 1e-8:
            found.append((_emissions(pieces, shares), _hours(pieces, shares), start))
    least = min(emissions / hours for emissions, hours, _ in found)
    emissions, hours, start = next(window for window in found if window[0] / window[1] <= least + 1e-8)
    return emissions, hours, [min(1.0, max(0.0, (end - start) / (end - begin))) for begin, end in pairwise(edges)]


def _hours(pieces: Pieces, shares: list[float]) -> float:
    return sum(hours * share for (_, hours, _), share in zip(pieces, shares, strict=True))


def _emissions(pieces: Pieces, shares: list[float]) -> float:
    return sum(c * hours * share for (c, hours, _), share in zip(pieces, shares, strict=True))
