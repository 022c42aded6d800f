"""Stored intensities of a zone whose provider answers, fails and recovers; the provider is an HTTP server."""

import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from greencore.carbon import Basis, IntensitySeries
from greencore.clock import HOUR
from runtime.settings import Settings
from scheduler import Scheduler
from scheduler.grid import IntensityPoller, open_sources
from store.database import Database
from store.intensity.provider_health import ProviderRepository
from store.intensity.readings import GridRepository
from store.tables import Provider
from tests.carbon_provider_server import ManualClock, ProviderServer, Reply, rows
from tests.scheduler.stage import START, add_job, add_worker, read_job, write_trace

HALF_HOUR = HOUR / 2


@pytest.fixture
def provider(clock: ManualClock) -> Iterator[ProviderServer]:
    with ProviderServer(clock=clock) as server:
        publish(server, clock)
        yield server


def publish(server: ProviderServer, clock: ManualClock) -> None:
    """The grid as the provider knows it now: measured up to here, forecast for two days more."""
    server.rows = rows(
        START - timedelta(days=10),
        hours=24 * 30,
        measured_until=clock(),
        value=lambda at: 100.0 + at.hour,
    )
    server.rows = [row for row in server.rows if row.start < clock() + 48 * HOUR]


@pytest.fixture
def watched(settings: Settings, provider: ProviderServer) -> Settings:
    return settings.model_copy(update={"zones": {"GB": provider.spec("uk")}, "history_days": 9.0})


@pytest.fixture
def poller(watched: Settings, database: Database, clock: ManualClock) -> Iterator[IntensityPoller]:
    with closing(IntensityPoller(database, watched, open_sources(watched, clock=clock), clock=clock)) as poller:
        yield poller


def poll_once(poller: IntensityPoller) -> None:
    """Poll the zone once, and wait for the end of the poll."""
    poller.poll(["GB"])
    running = poller._zones["GB"].running
    assert running is not None
    running.result(timeout=30)


def stored(database: Database, start_hours: float, end_hours: float, *, forecast: bool = False) -> IntensitySeries:
    with database.session() as session:
        grid = GridRepository(session)
        find = grid.forecast if forecast else grid.readings_between
        return find("GB", grid.newest_basis("GB") or Basis(), START + start_hours * HOUR, START + end_hours * HOUR)


def gaps(series: IntensitySeries) -> float:
    """Hours between the readings."""
    readings = series.readings
    return sum((later.start - earlier.end) / HOUR for earlier, later in pairwise(readings))


def test_a_new_zone_gets_its_history_current_reading_and_forecast(poller: IntensityPoller, database: Database) -> None:
    poll_once(poller)
    past = stored(database, -240, 1)
    assert (past.readings[-1].end - past.readings[0].start) / HOUR == pytest.approx(9 * 24 + 0.5, abs=1)
    assert gaps(past) == 0
    ahead = stored(database, 0, 72, forecast=True)
    assert ahead.readings[-1].end >= START + 71 * HOUR
    assert gaps(ahead) == 0
    assert {reading.source for reading in ahead if reading.start < START + 40 * HOUR} == {past.readings[0].source}
    assert ahead.readings[-1].source == "own forecast"
    assert all(reading.estimated for reading in ahead)


def test_a_day_without_network_leaves_no_gap_once_it_is_back(
    poller: IntensityPoller, provider: ProviderServer, database: Database, clock: ManualClock
) -> None:
    poll_once(poller)
    provider.stop()
    for _ in range(24):
        clock.advance(hours=1)
        poll_once(poller)
    assert stored(database, 2, 24).readings == ()
    # The forecast of the day before, and then our own, cover every hour meanwhile.
    assert gaps(stored(database, 0, 40, forecast=True)) == 0
    provider.start()
    publish(provider, clock)
    for _ in range(12):
        clock.advance(minutes=10)
        poll_once(poller)
    publish(provider, clock)
    clock.advance(hours=1)
    poll_once(poller)
    back = stored(database, -1, 25)
    assert gaps(back) == 0
    assert back.readings[-1].end >= START + 25 * HOUR
    assert not any(reading.estimated for reading in stored(database, 0, 20))


def test_an_estimate_is_replaced_by_the_measurement_and_not_the_other_way_round(
    poller: IntensityPoller, provider: ProviderServer, database: Database, clock: ManualClock
) -> None:
    poll_once(poller)
    assert stored(database, 0, 0.5).readings[0].estimated
    clock.advance(hours=2)
    publish(provider, clock)
    poll_once(poller)
    assert not stored(database, 0, 0.5).readings[0].estimated
    provider.rows = [row for row in provider.rows if row.start >= START + 4 * HOUR]
    clock.advance(hours=2)
    poll_once(poller)
    assert not stored(database, 0, 0.5).readings[0].estimated


@pytest.mark.parametrize(
    "reply",
    [
        Reply(status=500, body=b"oops"),
        Reply(status=200, body=b"<html>maintenance</html>"),
        Reply(cut=40),
        Reply(status=401, body=b"{}"),
        Reply(status=429, body=b"{}", headers={"retry-after": "120"}),
    ],
    ids=["500", "html", "truncated", "401", "429"],
)
def test_a_failed_poll_is_retried_and_loses_no_reading(
    poller: IntensityPoller, provider: ProviderServer, database: Database, clock: ManualClock, reply: Reply
) -> None:
    poll_once(poller)
    before = stored(database, -240, 1)
    provider.standing_reply = reply
    clock.advance(hours=1)
    poll_once(poller)
    assert stored(database, -240, 1).readings[:-1] == before.readings[:-1]
    provider.standing_reply = None
    publish(provider, clock)
    for _ in range(8):
        clock.advance(minutes=15)
        publish(provider, clock)
        poll_once(poller)
    assert gaps(stored(database, -240, 3)) == 0
    assert stored(database, 2, 4).readings


def test_a_slow_provider_delays_no_tick_and_is_polled_once_at_a_time(
    watched: Settings, provider: ProviderServer, database: Database, clock: ManualClock
) -> None:
    provider.standing_reply = Reply(seconds=4.0)
    add_worker(database, "GB")
    job_id = add_job(database, zone="GB", hours=1)
    with closing(Scheduler(watched, clock=clock)) as scheduler:
        began = time.monotonic()
        scheduler.tick()
        scheduler.tick()
        took = time.monotonic() - began
        # Two ticks wait a second each at most; the job went out meanwhile, though nothing is known of its grid.
        assert took < 3.5
        assert read_job(database, job_id).dispatched_at == START
        assert provider.most_in_flight == 1


def test_successes_and_failures_of_a_zones_source_are_recorded(
    poller: IntensityPoller, provider: ProviderServer, database: Database, clock: ManualClock
) -> None:
    def record() -> Provider:
        with database.session() as session:
            [known] = ProviderRepository(session).all()
        return known

    poll_once(poller)
    known = record()
    assert (known.zone, known.source, known.failures, known.last_success_at) == ("GB", "uk", 0, START)
    provider.standing_reply = Reply(status=500, body=b"oops")
    for failures in (1, 2):
        clock.advance(hours=1)
        poll_once(poller)
        known = record()
        assert known.consecutive_failures >= failures
        assert known.last_failure_at == clock()
    assert known.last_success_at == START
    assert known.last_error is not None
    assert "answered 500" in known.last_error or "not asked" in known.last_error
    total = known.failures
    provider.standing_reply = None
    publish(provider, clock)
    clock.advance(hours=1)
    poll_once(poller)
    known = record()
    assert (known.failures, known.consecutive_failures, known.last_success_at) == (total, 0, clock())


def test_a_source_that_was_slow_is_not_waited_for_again(
    poller: IntensityPoller, provider: ProviderServer, clock: ManualClock
) -> None:
    provider.standing_reply = Reply(seconds=3.0)
    took = []
    for _ in range(2):
        began = time.monotonic()
        poller.poll(["GB"])
        poller.wait_for_polls()
        took.append(time.monotonic() - began)
    assert 0.9 < took[0] < 2
    assert took[1] < 0.5


def test_only_zones_with_a_worker_or_an_open_job_are_polled(
    settings: Settings, provider: ProviderServer, database: Database, clock: ManualClock
) -> None:
    zones = {"GB": provider.spec("uk"), "FR": "static"}
    with closing(Scheduler(settings.model_copy(update={"zones": zones}), clock=clock)) as scheduler:
        scheduler.tick()
        assert provider.log == []
        add_job(database, zone="GB")
        clock.advance(seconds=5)
        scheduler.tick()
        scheduler._intensity_poller.wait_for_polls()
        assert provider.log != []
    with database.session() as session:
        assert GridRepository(session).newest_basis("FR") is None


def test_a_source_that_changes_from_average_to_marginal_keeps_the_two_apart(
    settings: Settings, provider: ProviderServer, database: Database, clock: ManualClock
) -> None:
    keys = {
        "watttime_user": provider.user,
        "watttime_password": provider.password,
    }
    for spec in ("uk", "watttime"):
        changed = Settings.model_validate(
            {**settings.model_dump(by_alias=False), **keys, "zones": {"GB": provider.spec(spec)}}
            | {"DATABASE_URL": settings.database_url, "REDIS_URL": settings.redis_url}
        )
        with closing(IntensityPoller(database, changed, open_sources(changed, clock=clock), clock=clock)) as poller:
            poll_once(poller)
        clock.advance(minutes=1)
    with database.session() as session:
        grid = GridRepository(session)
        average = grid.newest_reading("GB", Basis("average", "direct"), at=clock())
        marginal = grid.newest_reading("GB", Basis("marginal", "direct"), at=clock())
        assert average is not None
        assert marginal is not None
        assert (average.signal, marginal.signal) == ("average", "marginal")
        assert grid.newest_basis("GB") == Basis("marginal", "direct")


def test_a_trace_that_runs_fast_is_stored_in_bounds(
    settings: Settings, database: Database, clock: ManualClock, tmp_path: Path
) -> None:
    spec = write_trace(tmp_path, [100.0 + hour for hour in range(24)])
    anchored = f"{spec}?speed=720&anchor={START:%Y-%m-%dT%H:%M:%SZ}"
    changed = settings.model_copy(update={"zones": {"GB": anchored}})
    with closing(IntensityPoller(database, changed, open_sources(changed, clock=clock), clock=clock)) as poller:
        poll_once(poller)
        clock.advance(seconds=30)
        poll_once(poller)
    with database.session() as session:
        history = GridRepository(session).readings_between("GB", Basis(), START - 30 * HOUR, START + HOUR)
    assert gaps(history) == 0
    assert 3000 <= len(history) <= 3020
