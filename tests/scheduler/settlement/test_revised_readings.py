"""Readings that a provider repeats, revises or refuses, and the prices by them; the provider is an HTTP server."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from threading import Thread
from typing import Any

import pytest
from sqlalchemy.orm import Session

from greencore.carbon import Basis, IntensitySeries
from greencore.carbon.accounting.pricing import price_by_reading
from greencore.clock import HOUR
from greencore.energy import EnergyInterval
from runtime.settings import Settings
from scheduler.grid import IntensityPoller, open_sources
from scheduler.settlement import settle_prices, store_counterfactuals
from store.database import Database
from store.intensity.readings import GridRepository
from store.lifecycle import progress
from store.repositories.jobs import JobRepository
from store.tables import EnergyInterval as StoredInterval
from store.tables import Job
from tests.carbon_provider_protocols import Request
from tests.carbon_provider_server import ManualClock, ProviderServer, rows
from tests.scheduler.stage import START, add_job, claim_as_worker, events, read_job

pytestmark = pytest.mark.fault(number=17)

PROVIDERS = ["uk", "electricity-maps", "energy-charts", "carbon-aware-sdk"]


@pytest.fixture
def provider(clock: ManualClock) -> Iterator[ProviderServer]:
    """At hour h of each day the grid has 100 + h g/kWh, in steps of an hour, measured up to now."""
    with ProviderServer(clock=clock) as server:
        publish(server, clock)
        yield server


def publish(server: ProviderServer, clock: ManualClock, *, revised: float = 0.0) -> None:
    """Measured up to now, forecast for two days more; `revised` is added to what was measured in START's hour."""
    server.rows = [
        replace(row, actual=row.actual + revised) if row.start == START and row.actual is not None else row
        for row in rows(
            START - timedelta(days=10),
            hours=24 * 15,
            measured_until=clock(),
            value=lambda at: 100.0 + at.hour,
            step=HOUR,
        )
        if row.start < clock() + 48 * HOUR
    ]


def watched(settings: Settings, provider: ProviderServer, source: str, **changes: Any) -> Settings:
    keys = {
        "electricity_maps_token": provider.token,
        "watttime_user": provider.user,
        "watttime_password": provider.password,
    }
    return Settings.model_validate(
        {**settings.model_dump(by_alias=False), **keys, "zones": {"GB": provider.spec(source)}, "history_days": 9.0}
        | {"DATABASE_URL": settings.database_url, "REDIS_URL": settings.redis_url}
        | changes
    )


def poller_of(database: Database, settings: Settings, clock: ManualClock) -> IntensityPoller:
    return IntensityPoller(database, settings, open_sources(settings, clock=clock), clock=clock)


def poll_once(poller: IntensityPoller) -> None:
    poller.poll(["GB"])
    running = poller._zones["GB"].running
    assert running is not None
    running.result(timeout=30)


def stored_readings(session: Session, start: datetime, end: datetime) -> IntensitySeries:
    grid = GridRepository(session)
    return grid.readings_between("GB", grid.newest_basis("GB") or Basis(), start, end)


def stored_in_starts_hour(database: Database) -> float:
    with database.session() as session:
        reading = stored_readings(session, START, START + HOUR).at(START)
    assert reading is not None
    assert not reading.estimated
    return reading.gco2e_per_kwh


def run_job(database: Database, *, kwh: float) -> str:
    """A job of one interval in START's hour, which is over."""
    with database.session() as session:
        basis = GridRepository(session).newest_basis("GB", "average") or Basis()
    job_id = add_job(database, zone="GB", signal="average", emission_factors=basis.emission_factors)
    lease = claim_as_worker(database, job_id, at=START)
    used = EnergyInterval(
        start=START,
        end=START + timedelta(minutes=1),
        cpu_kwh=kwh,
        gpu_kwh=0.0,
        ram_kwh=0.0,
        cpu_method="RAPL",
        gpu_method="none",
        ram_method="none",
    )
    with database.session() as session:
        known = stored_readings(session, START, START + HOUR)
        progress.add_energy(session, lease, 1, used, price_by_reading(used, known))
        progress.succeed(session, lease, at=START + HOUR, artifacts=[], evaluation={})
    return job_id


def run_measured_job(poller: IntensityPoller, database: Database, provider: ProviderServer, clock: ManualClock) -> str:
    """Run a job of 2 kWh in the present hour, and two hours later fetch what was measured of it."""
    poll_once(poller)
    job_id = run_job(database, kwh=2.0)
    clock.advance(hours=2)
    publish(provider, clock)
    poll_once(poller)
    return job_id


def settle(database: Database, settings: Settings, clock: ManualClock) -> None:
    settle_prices(database, settings, at=clock())
    store_counterfactuals(database, settings, at=clock())


@pytest.mark.parametrize("source", PROVIDERS)
def test_a_measured_value_that_is_revised_is_read_again_and_priced_again(
    settings: Settings, provider: ProviderServer, database: Database, clock: ManualClock, source: str
) -> None:
    settings = watched(settings, provider, source)
    with closing(poller_of(database, settings, clock)) as poller:
        job_id = run_measured_job(poller, database, provider, clock)
        settle(database, settings, clock)
        before = read_job(database, job_id)
        assert before.settled_at is not None
        assert before.emissions_gco2e == pytest.approx(2 * 112)
        # Two days later the provider has consolidated its data.
        for _ in range(2):
            clock.advance(hours=23)
            publish(provider, clock, revised=50.0)
            poll_once(poller)
        assert stored_in_starts_hour(database) == 162
        assert read_job(database, job_id).settled_at is None
        settle(database, settings, clock)
    after = read_job(database, job_id)
    assert after.settled_at == clock()
    assert after.emissions_gco2e == pytest.approx(2 * 162)
    assert after.revision > before.revision
    emissions = [
        event.data["emissions_gco2e"] for event in events(database, job_id) if event.type == "emissions.settled"
    ]
    assert emissions == pytest.approx([2 * 112, 2 * 162])


def test_a_value_that_is_read_again_unrevised_leaves_prices_final(
    settings: Settings, provider: ProviderServer, database: Database, clock: ManualClock
) -> None:
    settings = watched(settings, provider, "uk")
    with closing(poller_of(database, settings, clock)) as poller:
        poll_once(poller)
        job_id = run_job(database, kwh=2.0)
        for _ in range(4):
            clock.advance(hours=2)
            publish(provider, clock)
            poll_once(poller)
            settle(database, settings, clock)
    assert [event.type for event in events(database, job_id)].count("emissions.settled") == 1


def test_a_value_revised_after_the_settlement_window_changes_no_price(
    settings: Settings, provider: ProviderServer, database: Database, clock: ManualClock
) -> None:
    settings = watched(settings, provider, "uk", settle_after_hours=24.0)
    with closing(poller_of(database, settings, clock)) as poller:
        job_id = run_measured_job(poller, database, provider, clock)
        settle(database, settings, clock)
        clock.advance(hours=30)
        publish(provider, clock, revised=50.0)
        poll_once(poller)
        settle(database, settings, clock)
    assert read_job(database, job_id).emissions_gco2e == pytest.approx(2 * 112)
    with database.session() as session:
        assert session.query(StoredInterval).filter(StoredInterval.settled.is_(False)).count() == 0
        assert session.query(Job).filter(Job.settled_at.is_(None)).count() == 0


def test_a_value_that_is_revised_while_the_one_before_settles_a_price_is_priced_again(
    settings: Settings, provider: ProviderServer, database: Database, clock: ManualClock
) -> None:
    settings = watched(settings, provider, "uk")
    with closing(poller_of(database, settings, clock)) as poller:
        job_id = run_measured_job(poller, database, provider, clock)
        publish(provider, clock, revised=50.0)
        clock.advance(hours=1)
        revising = Thread(target=poll_once, args=(poller,))
        with database.session() as session:
            job = JobRepository(session).lock(job_id)  # as settlement does
            assert job is not None
            known = stored_readings(session, START, START + HOUR)
            for interval in session.query(StoredInterval).filter(StoredInterval.job_id == job_id):
                interval.emissions_gco2e = interval.energy_kwh * known.readings[0].gco2e_per_kwh
                interval.settled = True
            session.flush()
            revising.start()
            revising.join(timeout=3)
        revising.join(timeout=30)
        assert not revising.is_alive()
        settle(database, settings, clock)
    after = read_job(database, job_id)
    assert after.emissions_gco2e == pytest.approx(2 * 162)
    assert after.settled_at == clock()


def test_readings_of_another_basis_reopen_no_price(
    settings: Settings, provider: ProviderServer, database: Database, clock: ManualClock
) -> None:
    watched_as_direct = watched(settings, provider, "uk")
    with closing(poller_of(database, watched_as_direct, clock)) as poller:
        job_id = run_measured_job(poller, database, provider, clock)
        settle(database, watched_as_direct, clock)
    before = read_job(database, job_id)
    assert before.settled_at is not None
    # From now on the zone's source counts the life cycle, with another value for the same hours.
    clock.advance(hours=1)
    publish(provider, clock, revised=50.0)
    as_lifecycle = watched(settings, provider, "electricity-maps")
    with closing(poller_of(database, as_lifecycle, clock)) as poller:
        poll_once(poller)
    settle(database, as_lifecycle, clock)
    after = read_job(database, job_id)
    assert after.settled_at == before.settled_at
    assert after.emissions_gco2e == before.emissions_gco2e


def test_a_plan_that_refuses_older_hours_repairs_the_last_day_all_the_same(
    settings: Settings,
    provider: ProviderServer,
    database: Database,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answered = provider.answer

    def without_past_range(request: Request) -> tuple[int, Any]:
        refused = request.path.endswith("past-range")
        return (403, {"error": "not in your plan"}) if refused else answered(request)

    monkeypatch.setattr(provider, "answer", without_past_range)
    settings = watched(settings, provider, "electricity-maps")
    with closing(poller_of(database, settings, clock)) as poller:
        poll_once(poller)
        # The scheduler is away for five hours.
        clock.advance(hours=5)
        publish(provider, clock)
        poll_once(poller)
        clock.advance(hours=1)
        publish(provider, clock)
        poll_once(poller)
    with database.session() as session:
        assert stored_readings(session, START, clock()).mean(START, clock()).covered_share == 1
        day = stored_readings(session, START - 15 * HOUR, START)
    assert day.mean(START - 15 * HOUR, START).covered_share == 1
    assert not any(reading.estimated for reading in day)


@pytest.mark.parametrize("source", [*PROVIDERS, "watttime"])
def test_a_source_whose_newest_value_has_ended_is_asked_at_most_12_times_an_hour(
    settings: Settings, provider: ProviderServer, database: Database, clock: ManualClock, source: str
) -> None:
    settings = watched(settings, provider, source)
    with closing(poller_of(database, settings, clock)) as poller:
        poll_once(poller)
        # From now on it has no data after the present hour, not even a forecast.
        provider.rows = [row for row in provider.rows if row.start <= START]
        clock.advance(hours=1)
        provider.log.clear()
        for _ in range(60):
            clock.advance(minutes=1)
            poll_once(poller)
    asked = [path for path in provider.paths if "histor" not in path and "past-range" not in path]
    assert 0 < len(asked) <= 12
