"""Plans against brute force: enumeration of fine pieces, and a scan of every minute at which a window may begin."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greencore.arrays import Floats
from greencore.policy.gate.hours import (
    PausePlan,
    apply_hysteresis,
    bridge_gaps,
    compute_window_means,
    find_best_window,
    select_cheapest_slots,
)

# Quarters of an hour, and ρ whose inverses are whole quarters: the brute force need not be approximate.
QUARTER = 0.25
RHOS = (1.0, 0.5, 0.25)


@dataclass(frozen=True)
class Hours:
    """One run's slots ahead."""

    intensity: list[float]
    hours: list[float]
    rho: list[float]
    work: float

    def rows(self) -> tuple[Floats, Floats, Floats, Floats]:
        return (np.array([self.intensity]), np.array([self.hours]), np.array([self.rho]), np.array([self.work]))

    def quarters(self) -> list[tuple[float, float]]:
        """Intensity and ρ of each quarter of an hour."""
        return [
            (c, rho)
            for c, length, rho in zip(self.intensity, self.hours, self.rho, strict=True)
            for _ in range(round(length / QUARTER))
        ]

    def uninterrupted_emissions(self, computing_hours: float) -> float:
        """∫c dt over `computing_hours` from now on."""
        emissions, left = 0.0, computing_hours
        for c, length in zip(self.intensity, self.hours, strict=True):
            emissions, left = emissions + c * min(length, left), left - min(length, left)
        return emissions


@st.composite
def hours(draw: st.DrawFn, *, constant_rho: bool = False) -> Hours:
    count = draw(st.integers(1, 7))
    intensity = draw(st.lists(st.sampled_from([0.0, 50.0, 100.0, 100.0, 130.5, 400.0]), min_size=count, max_size=count))
    lengths = draw(st.lists(st.sampled_from([0.25, 0.5, 1.0]), min_size=count, max_size=count))
    rho = draw(st.lists(st.sampled_from(RHOS), min_size=count, max_size=count))
    if constant_rho:
        rho = [rho[0]] * count
    capacity = sum(length / share for length, share in zip(lengths, rho, strict=True))
    work = draw(st.integers(1, max(1, round(capacity / QUARTER)))) * QUARTER
    return Hours(intensity, lengths, rho, work)


@st.composite
def many_hours(draw: st.DrawFn) -> tuple[Floats, Floats, Floats, Floats]:
    """Several runs side by side, of one number of slots; beyond a run's deadline its hours are 0."""
    runs = draw(st.lists(hours(), min_size=2, max_size=4))
    widest = max(len(run.hours) for run in runs)

    def rows(name: str, beyond: float) -> Floats:
        return np.array([getattr(run, name) + [beyond] * (widest - len(run.hours)) for run in runs])

    return rows("intensity", 7.0), rows("hours", 0.0), rows("rho", 1.0), np.array([run.work for run in runs])


def _through(quarters: list[tuple[float, float]], work: float) -> float:
    """∫c dt until the work is done, or until there are no more quarters."""
    emissions, left = 0.0, work
    for c, rho in quarters:
        used = min(QUARTER, left * rho)
        emissions, left = emissions + c * used, left - used / rho
    return emissions


@given(run=hours())
def test_cheapest_slots_equal_a_greedy_choice_of_quarters(run: Hours) -> None:
    plan = select_cheapest_slots(*run.rows())
    assert plan.emissions[0] == pytest.approx(
        _through(sorted(run.quarters(), key=lambda quarter: quarter[0]), run.work)
    )
    computing = sum(s * h for s, h in zip(plan.share[0], run.hours, strict=True))
    assert plan.uninterrupted_emissions[0] == pytest.approx(run.uninterrupted_emissions(computing))
    assert plan.saving[0] >= -1e-9
    done = sum(s * h / r for s, h, r in zip(plan.share[0], run.hours, run.rho, strict=True))
    assert done == pytest.approx(run.work)
    assert ((plan.share >= 0) & (plan.share <= 1)).all()


@given(run=hours(constant_rho=True))
def test_no_other_choice_of_quarters_emits_less(run: Hours) -> None:
    quarters = run.quarters()[:10]
    rho, count = run.rho[0], len(quarters)
    needed = min(run.work * rho / QUARTER, count)
    whole = int(needed)
    cut = Hours([c for c, _ in quarters], [QUARTER] * count, [rho] * count, needed * QUARTER / rho)
    best = min(
        sum(quarters[index][0] for index in range(count) if chosen >> index & 1)
        for chosen in range(1 << count)
        if chosen.bit_count() == whole
    )
    rest = needed - whole
    emissions = select_cheapest_slots(*cut.rows()).emissions[0]
    assert emissions >= best * QUARTER - 1e-9
    if rest == 0:
        assert emissions == pytest.approx(best * QUARTER)


def test_of_slots_that_are_equally_clean_the_earlier_is_taken() -> None:
    plan = select_cheapest_slots(np.full((1, 4), 80.0), np.ones((1, 4)), np.ones((1, 4)), np.array([1.5]))
    assert plan.share.tolist() == [[1.0, 0.5, 0.0, 0.0]]
    assert plan.marginal.tolist() == [80.0]
    assert plan.saving.tolist() == [0.0]


def test_work_beyond_the_slots_uses_all_of_them() -> None:
    plan = select_cheapest_slots(
        np.array([[300.0, 100.0, 5.0]]), np.array([[1.0, 1.0, 0.0]]), np.ones((1, 3)), np.array([9.0])
    )
    assert plan.share.tolist() == [[1.0, 1.0, 0.0]]
    assert plan.emissions.tolist() == plan.uninterrupted_emissions.tolist() == [400.0]


def test_a_clean_grid_saves_nothing_and_does_not_divide_by_it() -> None:
    rows = (np.zeros((1, 5)), np.ones((1, 5)), np.ones((1, 5)), np.array([2.0]))
    plan, window = select_cheapest_slots(*rows), find_best_window(*rows)
    assert plan.saving.tolist() == window.saving.tolist() == [0.0]
    assert window.delay_hours.tolist() == [0.0]
    assert plan.share[0, :2].tolist() == [1.0, 1.0]


def _scanned(run: Hours, step_hours: float) -> tuple[Floats, Floats, Floats]:
    """(delays, emissions, hours) of every start at which the work can be done to its end."""
    edges = np.concatenate([[0.0], np.cumsum(run.hours)])
    delays = np.arange(0.0, edges[-1] + step_hours / 2, step_hours)
    left, emissions, hours = np.full(len(delays), run.work), np.zeros(len(delays)), np.zeros(len(delays))
    for begin, end, c, rho in zip(edges, edges[1:], run.intensity, run.rho, strict=False):
        length = np.minimum(np.maximum(end - np.maximum(begin, delays), 0.0), left * rho)
        emissions, left, hours = emissions + c * length, left - length / rho, hours + length
    done = left <= 1e-9
    return delays[done], emissions[done], hours[done]


@given(run=hours())
def test_best_window_equals_a_scan_of_all_starts(run: Hours) -> None:
    window = find_best_window(*run.rows())
    delay, emissions = float(window.delay_hours[0]), float(window.emissions[0])
    # The best start is at a sixteenth of an hour, as slots and ρ are quarters.
    delays, scanned, hours = _scanned(run, 1 / 16)
    means = scanned / hours
    best = np.argmax(means <= means.min() + 1e-9)
    assert delay == pytest.approx(delays[best], abs=1e-9)
    assert emissions == pytest.approx(scanned[best], abs=1e-9)
    _, by_minute, hours_by_minute = _scanned(run, 1 / 60)
    assert means[best] <= (by_minute / hours_by_minute).min() + 1e-9
    assert window.uninterrupted_emissions[0] == pytest.approx(run.uninterrupted_emissions(float(hours[best])))


@given(rows=many_hours())
def test_each_run_is_planned_independently(rows: tuple[Floats, Floats, Floats, Floats]) -> None:
    window, plan = find_best_window(*rows), select_cheapest_slots(*rows)
    for run in range(len(rows[0])):
        alone = tuple(values[run : run + 1] for values in rows)
        assert find_best_window(*alone).delay_hours[0] == window.delay_hours[run]
        assert find_best_window(*alone).emissions[0] == window.emissions[run]
        assert np.array_equal(select_cheapest_slots(*alone).share[0], plan.share[run])


def test_ten_thousand_runs_on_a_flat_grid_all_begin_at_once() -> None:
    runs = 10_000
    work = np.linspace(0.1, 23.9, runs)
    rows = (np.full((runs, 30), 123.45), np.ones((runs, 30)), np.full((runs, 30), 0.7), work)
    window = find_best_window(*rows)
    assert window.delay_hours.max() == 0
    assert window.emissions == pytest.approx(work * 0.7 * 123.45)


def test_ten_thousand_runs_find_the_edges_of_their_slots() -> None:
    runs = 10_000
    hours = np.ones((runs, 30))
    hours[:, 0] = np.linspace(0.01, 1.0, runs)
    intensity = np.tile([0.0, 987.65], (runs, 15))
    edges = np.concatenate([np.zeros((runs, 1)), np.cumsum(hours, axis=1)], axis=1)
    for ends in (edges[:, 1:], np.nextafter(edges[:, 1:], 0.0)):
        means = compute_window_means(intensity, hours, edges[:, :-1], ends)
        assert (means[:, ::2] == 0).all()
        assert means[:, 1::2] == pytest.approx(987.65)


def damped(
    share: list[float],
    intensity: list[float],
    *,
    running: bool,
    switch_hours: float,
    slots: int = 1,
    marginal: float | None = None,
) -> list[float]:
    used = [c for c, part in zip(intensity, share, strict=True) if part > 0]
    dirtiest = max(used, default=0.0) if marginal is None else marginal
    plan = PausePlan(
        share=np.array([share]),
        marginal=np.array([dirtiest]),
        emissions=np.zeros(1),
        uninterrupted_emissions=np.zeros(1),
    )
    steady: list[list[float]] = apply_hysteresis(
        plan,
        np.array([intensity]),
        np.ones((1, len(share))),
        running=np.array([running]),
        switch_hours=np.array([switch_hours]),
        slots=slots,
    ).tolist()
    return steady[0]


def test_a_pause_that_saves_less_than_it_costs_is_not_made() -> None:
    # An hour at 130 rather than at 100 costs 30; a switch of 0.2 h at 130 costs 26, one of 0.25 h 32.5.
    plan, intensity = [0.0, 1.0, 1.0], [130.0, 100.0, 100.0]
    assert damped(plan, intensity, running=True, switch_hours=0.2) == [0.0, 1.0, 1.0]
    assert damped(plan, intensity, running=True, switch_hours=0.25) == [1.0, 1.0, 1.0]


def test_a_pause_that_saves_exactly_what_it_costs_is_not_made() -> None:
    assert damped([0.0, 1.0], [200.0, 100.0], running=True, switch_hours=0.5) == [1.0, 1.0]


def test_a_pause_counts_for_no_longer_than_the_work_lasts() -> None:
    # Six hours at 130 could be left out, but only one would be computed in.
    plan, intensity = [0.0] * 6 + [1.0], [130.0] * 6 + [100.0]
    assert damped(plan, intensity, running=True, switch_hours=0.2)[0] == 0.0
    assert damped(plan, intensity, running=True, switch_hours=0.25)[0] == 1.0


def test_a_pause_without_a_cost_is_made_for_the_smallest_gain() -> None:
    assert damped([0.0, 1.0], [100.001, 100.0], running=True, switch_hours=0.0) == [0.0, 1.0]


def test_a_short_clean_hour_between_pauses_does_not_end_a_pause() -> None:
    # Running at 80 rather than at 100 gains 20; a switch of 0.2 h at 80 costs 16, one of 0.3 h 24.
    plan, intensity = [1.0, 0.0, 1.0], [80.0, 300.0, 100.0]
    assert damped(plan, intensity, running=False, switch_hours=0.2) == [1.0, 0.0, 1.0]
    assert damped(plan, intensity, running=False, switch_hours=0.3) == [0.0, 0.0, 1.0]


def test_the_last_stretch_is_run_however_little_it_gains() -> None:
    assert damped([1.0, 1.0, 0.0], [100.0, 100.0, 100.0], running=False, switch_hours=5.0) == [1.0, 1.0, 0.0]


def test_without_a_change_no_gain_is_needed() -> None:
    assert damped([1.0, 0.0, 1.0], [100.0, 101.0, 100.0], running=True, switch_hours=9.0)[0] == 1.0
    assert damped([0.0, 1.0, 1.0], [101.0, 100.0, 100.0], running=False, switch_hours=9.0)[0] == 0.0


def test_every_followed_slot_is_compared_with_the_one_before_it() -> None:
    plan, intensity = [1.0, 0.0, 1.0], [100.0, 101.0, 100.0]
    assert damped(plan, intensity, running=True, switch_hours=0.5, slots=1) == [1.0, 0.0, 1.0]
    assert damped(plan, intensity, running=True, switch_hours=0.5, slots=2) == [1.0, 1.0, 1.0]


def test_a_slot_that_is_used_in_part_is_run_through_where_the_pause_after_it_does_not_pay() -> None:
    assert damped([0.4, 0.0, 1.0], [100.0, 101.0, 90.0], running=True, switch_hours=0.5) == [1.0, 0.0, 1.0]
    assert damped([0.4, 0.0, 1.0], [100.0, 300.0, 90.0], running=True, switch_hours=0.5) == [0.4, 0.0, 1.0]
    # The work ends there.
    assert damped([0.4, 0.0, 0.0], [100.0, 101.0, 120.0], running=True, switch_hours=0.5) == [0.4, 0.0, 0.0]


@given(run=hours(), running=st.booleans(), slots=st.integers(1, 4))
def test_without_a_cost_the_plan_is_followed_as_it_is(run: Hours, running: bool, slots: int) -> None:
    plan = select_cheapest_slots(*run.rows())
    steady = apply_hysteresis(
        plan,
        np.array([run.intensity]),
        np.array([run.hours]),
        running=np.array([running]),
        switch_hours=np.zeros(1),
        slots=slots,
    )
    assert np.array_equal(steady, plan.share)


@given(run=hours(), running=st.booleans(), switch_hours=st.sampled_from([0.1, 0.5, 2.0]))
def test_the_first_slot_changes_only_where_that_pays(run: Hours, running: bool, switch_hours: float) -> None:
    plan = select_cheapest_slots(*run.rows())
    steady = apply_hysteresis(
        plan,
        np.array([run.intensity]),
        np.array([run.hours]),
        running=np.array([running]),
        switch_hours=np.array([switch_hours]),
    )[0]
    used = [part > 0 for part in plan.share[0]]
    length = next((index for index, part in enumerate(used) if part != used[0]), len(used))
    left, gain = sum(plan.share[0] * run.hours), 0.0
    for c, piece in list(zip(run.intensity, run.hours, strict=True))[:length]:
        lasting = min(piece, left)
        gain, left = gain + abs(c - plan.marginal[0]) * lasting, left - lasting
    last = used[0] and not any(used[length:])
    if used[0] == running or last or gain > switch_hours * run.intensity[0] + 1e-9:
        assert (steady[0] > 0) == used[0]
    elif gain < switch_hours * run.intensity[0] - 1e-9:
        assert (steady[0] > 0) == running


@given(run=hours(), edges=st.lists(st.integers(0, 40), min_size=2, max_size=5, unique=True))
def test_window_mean_equals_that_of_its_minutes_and_the_last_slot_continues(run: Hours, edges: list[int]) -> None:
    times = np.array(sorted(edges)) * QUARTER
    means = compute_window_means(np.array([run.intensity]), np.array([run.hours]), times[None, :-1], times[None, 1:])[0]
    quarters = [c for c, _ in run.quarters()]
    quarters += [run.intensity[-1]] * 60
    for begin, end, mean in zip(times, times[1:], means, strict=False):
        assert mean == pytest.approx(np.mean(quarters[round(begin / QUARTER) : round(end / QUARTER)]))


def test_a_window_beyond_the_deadline_takes_the_last_slot_that_has_hours() -> None:
    means = compute_window_means(
        np.array([[100.0, 200.0, 7.0]]), np.array([[1.0, 1.0, 0.0]]), np.array([[5.0]]), np.array([[6.0]])
    )
    assert means.tolist() == [[200.0]]


def test_gaps_take_the_value_before_them_up_to_the_last_known_slot() -> None:
    nan = np.nan
    values, reached = bridge_gaps(np.array([[nan, 5.0, nan, 7.0, nan], [nan] * 5, [1.0, 2.0, 3.0, 4.0, 5.0]]))
    assert values[0, :4].tolist() == [5.0, 5.0, 5.0, 7.0]
    assert reached.tolist() == [[True] * 4 + [False], [False] * 5, [True] * 5]
    assert values[1].tolist() == [0.0] * 5
    assert values[2].tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]
