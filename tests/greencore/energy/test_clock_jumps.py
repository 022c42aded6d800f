"""The lengths of intervals follow the monotonic clock when the wall clock jumps."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from greencore.energy import EnergyInterval, EnergyMeter
from greencore.energy.interval import JOULES_PER_KWH
from greencore.energy.timeline import Timeline
from tests.greencore.energy.intervals import seconds

pytestmark = pytest.mark.fault(number=14)

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


class Clocks:
    """A wall clock and a monotonic clock that a test can move ahead."""

    def __init__(self) -> None:
        self.wall_ahead, self.monotonic_ahead = timedelta(0), 0.0
        self._began = time.monotonic()

    def wall(self) -> datetime:
        return NOON + timedelta(seconds=time.monotonic() - self._began) + self.wall_ahead

    def monotonic(self) -> float:
        return time.monotonic() + self.monotonic_ahead

    def freeze_process(self, seconds: float) -> None:
        self.wall_ahead += timedelta(seconds=seconds)
        self.monotonic_ahead += seconds


def metered(clocks: Clocks, *events: Callable[[], object]) -> list[EnergyInterval]:
    """Return the intervals of a meter of 50 W, one closed after each event."""
    taken: list[EnergyInterval] = []
    with EnergyMeter(
        taken.append, cpu_power_w=40.0, ram_power_w=10.0, clock=clocks.wall, monotonic=clocks.monotonic
    ) as meter:
        for event in events:
            time.sleep(0.1)
            event()
            meter.close_interval()
        time.sleep(0.1)
    return taken


def jump(clocks: Clocks, by: timedelta) -> Callable[[], None]:
    def set_clock() -> None:
        clocks.wall_ahead += by

    return set_clock


@pytest.mark.parametrize(
    "by", [timedelta(hours=8), timedelta(seconds=90), timedelta(hours=-8), timedelta(seconds=-5)], ids=str
)
def test_a_clock_jump_changes_no_interval_length_and_makes_none_overlap(by: timedelta) -> None:
    clocks = Clocks()
    began = time.monotonic()
    taken = metered(clocks, lambda: None, jump(clocks, by), lambda: None)
    elapsed = time.monotonic() - began
    assert all(0.05 < seconds(interval) < elapsed for interval in taken)
    assert 0.4 <= sum(map(seconds, taken)) <= elapsed
    assert all(earlier.end <= later.start for earlier, later in pairwise(taken))
    assert sum(interval.energy_kwh for interval in taken) * JOULES_PER_KWH == pytest.approx(
        50 * sum(map(seconds, taken)), rel=0.05
    )


def test_after_a_suspension_intervals_continue_from_the_new_time_of_day() -> None:
    clocks = Clocks()
    before, after, last = metered(clocks, lambda: None, jump(clocks, timedelta(hours=8)))
    assert before.end == after.start
    assert after.end < NOON + timedelta(minutes=1)
    assert last.start == pytest.approx(NOON + timedelta(hours=8), abs=timedelta(minutes=1))


def test_after_the_clock_was_set_back_intervals_continue_from_the_last_end() -> None:
    clocks = Clocks()
    taken = metered(clocks, jump(clocks, timedelta(hours=-2)), lambda: None, jump(clocks, timedelta(hours=3)))
    assert [later.start - earlier.end for earlier, later in pairwise(taken)] == [
        timedelta(0),
        timedelta(0),
        pytest.approx(timedelta(hours=1), abs=timedelta(seconds=1)),
    ]


def test_a_clock_jump_ends_the_running_interval_within_seconds() -> None:
    clocks = Clocks()
    taken: list[EnergyInterval] = []
    with EnergyMeter(taken.append, cpu_power_w=40.0, ram_power_w=10.0, clock=clocks.wall):
        time.sleep(0.2)
        clocks.wall_ahead += timedelta(hours=8)
        deadline = time.monotonic() + 10
        while not taken and time.monotonic() < deadline:
            time.sleep(0.05)
        (before,) = taken
    assert before.end < NOON + timedelta(minutes=1)


def test_a_process_paused_for_hours_reports_intervals_of_at_most_a_minute() -> None:
    clocks = Clocks()
    taken = metered(clocks, lambda: clocks.freeze_process(28_801))
    assert max(map(seconds, taken)) <= 60
    assert sum(map(seconds, taken)) == pytest.approx(28_801, abs=5)
    assert all(earlier.end == later.start for earlier, later in pairwise(taken))
    assert all(
        (later.monotonic_start or 0) - (earlier.monotonic_start or 0) == pytest.approx(seconds(earlier), abs=1e-3)
        for earlier, later in pairwise(taken)
    )


def test_the_default_longest_interval_is_closed_before_its_minute_is_over() -> None:
    taken: list[EnergyInterval] = []
    clocks = Clocks()
    with EnergyMeter(
        taken.append,
        interval_seconds=60.0,
        cpu_power_w=40.0,
        ram_power_w=10.0,
        clock=clocks.wall,
        monotonic=clocks.monotonic,
    ):
        clocks.freeze_process(58.2)
        deadline = time.monotonic() + 10
        while not taken and time.monotonic() < deadline:
            time.sleep(0.05)
        assert 58 < seconds(taken[0]) <= 60
    assert len(taken) == 2


def test_the_unreported_period_is_known_at_any_time() -> None:
    clocks, refused = Clocks(), [True]
    taken: list[EnergyInterval] = []

    def take(interval: EnergyInterval) -> None:
        if refused:
            raise OSError("away")
        taken.append(interval)

    with EnergyMeter(take, cpu_power_w=40.0, ram_power_w=10.0, clock=clocks.wall, monotonic=clocks.monotonic) as meter:
        began = meter.unreported_period().since
        clocks.freeze_process(90)
        with pytest.raises(OSError, match="away"):
            meter.close_interval()
        assert meter.unreported_period().since == began
        assert meter.unreported_period().seconds == pytest.approx(90, abs=1)
        clocks.wall_ahead += timedelta(hours=8)
        assert meter.unreported_period().seconds == pytest.approx(90, abs=1)
        refused.clear()
        last = meter.close_interval()
        assert meter.unreported_period().since > last.end + timedelta(hours=7)
        assert meter.unreported_period().seconds < 1


def test_a_drift_of_milliseconds_is_not_a_jump() -> None:
    clocks = Clocks()
    timeline = Timeline(clocks.wall, clocks.monotonic)
    clocks.wall_ahead += timedelta(milliseconds=400)
    assert not timeline.has_jumped()
    clocks.wall_ahead += timedelta(milliseconds=700)
    assert timeline.has_jumped()
    timeline.follow_jump(clocks.monotonic())
    assert not timeline.has_jumped()
