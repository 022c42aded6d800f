"""Settlement: prices are provisional until the source has measured, then final; and counterfactuals."""

from collections.abc import Sequence
from datetime import timedelta

import pytest

from greencore.carbon import Basis, Reading, Signal
from greencore.carbon.accounting.pricing import price_by_reading
from greencore.clock import HOUR
from greencore.energy import EnergyInterval
from runtime.settings import Settings
from runtime.site import Site
from scheduler.settlement import settle_prices, store_counterfactuals
from store.database import Database
from store.intensity.readings import GridRepository
from store.lifecycle import progress
from store.lifecycle.leases import Lease
from store.repositories.jobs import JobRepository
from store.tables import EnergyInterval as StoredInterval
from store.tables import Epoch, Job
from tests.scheduler.stage import START, add_job, claim_as_worker, events, read_job

MINUTE = timedelta(minutes=1)


def reading(hour: float, value: float, *, estimated: bool = False, signal: Signal = "average") -> Reading:
    return Reading(
        zone="FR",
        start=START + hour * HOUR,
        end=START + (hour + 1) * HOUR,
        gco2e_per_kwh=value,
        source="test",
        signal=signal,
        estimated=estimated,
        fetched_at=START + hour * HOUR,
    )


def put(database: Database, readings: Sequence[Reading]) -> None:
    with database.session() as session:
        GridRepository(session).put(readings)


def meter(database: Database, lease: Lease, begins: float, ends: float, kwh: float, settings: Settings) -> None:
    """Energy between two times, in minutes from START, as a worker stores it."""
    interval = EnergyInterval(
        start=START + begins * MINUTE,
        end=START + ends * MINUTE,
        cpu_kwh=kwh,
        gpu_kwh=0.0,
        ram_kwh=0.0,
        cpu_method="RAPL",
        gpu_method="none",
        ram_method="none",
    )
    with database.session() as session:
        known = GridRepository(session).load_snapshot("FR", Basis(), interval.start, interval.end)
        series = known.series_with_fallback(interval.start, interval.end, stale_limit=settings.stale_limit, static=None)
        progress.add_energy(
            session, lease, 1, interval, price_by_reading(interval, series, pue=settings.training_site.pue)
        )


def running(database: Database) -> tuple[str, Lease]:
    job_id = add_job(database, zone="FR", signal="average")
    return job_id, claim_as_worker(database, job_id, at=START)


def intervals(database: Database) -> list[StoredInterval]:
    with database.session() as session:
        return list(session.query(StoredInterval).order_by(StoredInterval.started_at))


def finish(database: Database, lease: Lease, *, at_hours: float, share: float = 0.5) -> None:
    """One epoch at half of the FLOPs, and the end."""
    with database.session() as session:
        session.add(
            Epoch(
                job_id=lease.job_id,
                number=1,
                attempt=1,
                started_at=START,
                finished_at=START + at_hours * HOUR,
                rho_asked=share,
                reason="",
                intensity_estimated=False,
                flops=share * 1e15,
                full_flops=1e15,
            )
        )
    with database.session() as session:
        progress.succeed(session, lease, at=START + at_hours * HOUR, artifacts=[], evaluation={})


def test_an_interval_across_a_boundary_is_stored_in_two_pieces(database: Database, settings: Settings) -> None:
    put(database, [reading(0, 100), reading(1, 400)])
    job_id, lease = running(database)
    meter(database, lease, 59.5, 60.5, 2.0, settings)
    pieces = intervals(database)
    assert [(p.cpu_kwh, p.intensity_gco2e_per_kwh, p.emissions_gco2e) for p in pieces] == [(1, 100, 100), (1, 400, 400)]
    job = read_job(database, job_id)
    assert (job.energy_kwh, job.emissions_gco2e) == (2.0, 500.0)


def test_a_provisional_price_settles_when_the_source_has_measured(database: Database, settings: Settings) -> None:
    put(database, [reading(0, 100, estimated=True)])
    job_id, lease = running(database)
    meter(database, lease, 10, 11, 2.0, settings)
    settle_prices(database, settings, at=START + HOUR)
    assert read_job(database, job_id).emissions_gco2e == 200
    assert not intervals(database)[0].settled
    put(database, [reading(0, 130)])
    settle_prices(database, settings, at=START + 2 * HOUR)
    [interval] = intervals(database)
    assert interval.settled
    assert not interval.intensity_estimated
    assert read_job(database, job_id).emissions_gco2e == 260


def test_a_price_without_a_measurement_becomes_final_as_an_estimate(database: Database, settings: Settings) -> None:
    put(database, [reading(0, 100, estimated=True)])
    _, lease = running(database)
    meter(database, lease, 10, 11, 2.0, settings)
    settle_prices(database, settings, at=START + settings.settle_after_hours * HOUR)
    assert not intervals(database)[0].settled
    settle_prices(database, settings, at=START + (settings.settle_after_hours + 1) * HOUR)
    [interval] = intervals(database)
    assert interval.settled
    assert interval.intensity_estimated


def test_energy_without_any_intensity_waits_for_its_price(database: Database, settings: Settings) -> None:
    job_id, lease = running(database)
    meter(database, lease, 10, 11, 2.0, settings)
    assert intervals(database)[0].emissions_gco2e is None
    job = read_job(database, job_id)
    assert (job.energy_kwh, job.emissions_gco2e) == (2.0, 0.0)
    put(database, [reading(0, 150)])
    settle_prices(database, settings, at=START + HOUR)
    assert read_job(database, job_id).emissions_gco2e == 300


def test_the_fallback_chain_prices_a_gap_and_says_so(database: Database, settings: Settings) -> None:
    put(database, [reading(-24, 120)])
    _, lease = running(database)
    meter(database, lease, 10, 11, 2.0, settings)
    [interval] = intervals(database)
    assert interval.intensity_source == "yesterday (test)"
    assert interval.intensity_estimated
    assert interval.emissions_gco2e == 240


def test_a_marginal_reading_never_prices_a_job_that_goes_by_the_average(database: Database, settings: Settings) -> None:
    put(database, [reading(0, 900, signal="marginal")])
    job_id, lease = running(database)
    meter(database, lease, 10, 11, 2.0, settings)
    settle_prices(database, settings, at=START + HOUR)
    [interval] = intervals(database)
    assert interval.intensity_source == "static"
    assert read_job(database, job_id).emissions_gco2e == pytest.approx(2 * 56, rel=0.05)


def test_pue_multiplies_emissions_and_leaves_the_energy(database: Database, settings: Settings) -> None:
    put(database, [reading(0, 100)])
    job_id, lease = running(database)
    meter(database, lease, 10, 11, 2.0, settings.model_copy(update={"site": Site(zone="FR", pue=1.5)}))
    settle_prices(database, settings, at=START + HOUR)
    job = read_job(database, job_id)
    assert (job.energy_kwh, job.emissions_gco2e) == (2.0, 300.0)


def test_an_ended_job_has_its_counterfactuals(database: Database, settings: Settings) -> None:
    put(database, [reading(0, 300), reading(1, 300), reading(2, 100), reading(3, 100)])
    job_id, lease = running(database)
    # It was ready at START, and waited for the two clean hours.
    for minute in range(120, 180):
        meter(database, lease, minute, minute + 1, 1 / 60, settings)
    finish(database, lease, at_hours=3)
    settle_prices(database, settings, at=START + 4 * HOUR)
    store_counterfactuals(database, settings, at=START + 4 * HOUR)
    job: Job = read_job(database, job_id)
    assert job.counterfactuals is not None
    found = job.counterfactuals
    assert job.emissions_gco2e == pytest.approx(100)
    # Twice the FLOPs from the start on: two hours at 300; the same FLOPs: one; the cleanest hour: 100.
    assert found["full_now"]["emissions_gco2e"] == pytest.approx(600)
    assert found["constant_now"]["emissions_gco2e"] == pytest.approx(300)
    assert found["oracle"]["emissions_gco2e"] == pytest.approx(100)
    assert found["less_work_saving"] == pytest.approx(0.5)
    # Its policy has no gate: it waited for a worker.
    assert found["moved_in_time_saving"] == 0
    assert found["queueing_saving"] == pytest.approx(1 / 3)
    assert all(found[name]["assumption"] and found[name]["estimated"] for name in ("full_now", "constant_now"))
    assert job.settled_at == START + 4 * HOUR
    assert events(database, job_id)[-1].type == "emissions.settled"


def test_the_account_is_made_again_once_the_price_is_final(database: Database, settings: Settings) -> None:
    put(database, [reading(0, 300, estimated=True), reading(1, 300, estimated=True)])
    job_id, lease = running(database)
    meter(database, lease, 0, 1, 1.0, settings)
    finish(database, lease, at_hours=0.5)
    store_counterfactuals(database, settings, at=START + HOUR)
    job = read_job(database, job_id)
    assert job.counterfactuals is not None
    assert job.settled_at is None
    assert job.counterfactuals["constant_now"]["emissions_gco2e"] == pytest.approx(300)
    put(database, [reading(0, 200), reading(1, 200)])
    settle_prices(database, settings, at=START + 2 * HOUR)
    store_counterfactuals(database, settings, at=START + 2 * HOUR)
    job = read_job(database, job_id)
    assert job.settled_at == START + 2 * HOUR
    assert job.counterfactuals is not None
    assert job.counterfactuals["constant_now"]["emissions_gco2e"] == pytest.approx(200)


def test_codecarbons_total_is_stored_and_a_difference_above_5_percent_is_an_event(
    database: Database, settings: Settings
) -> None:
    put(database, [reading(0, 100)])
    job_id, lease = running(database)
    meter(database, lease, 10, 11, 2.0, settings)
    with database.session() as session:
        progress.add_tracker_total(session, lease, at=START, tracker_kwh=2.05)
    assert read_job(database, job_id).tracker_kwh == 2.05
    assert [event.type for event in events(database, job_id)].count("energy.differs") == 0
    with database.session() as session:
        progress.add_tracker_total(session, lease, at=START, tracker_kwh=2.5)
    warning = events(database, job_id)[-1]
    assert warning.type == "energy.differs"
    assert "-20.0%" in warning.data["reason"]


def test_a_worker_that_lost_its_job_prices_nothing(database: Database, settings: Settings) -> None:
    from store.lifecycle.leases import LeaseLost

    _, lease = running(database)
    with pytest.raises(LeaseLost):
        meter(database, Lease(lease.job_id, "another", 1), 10, 11, 2.0, settings)
    with database.session() as session:
        assert JobRepository(session).get(lease.job_id) is not None
    assert intervals(database) == []
