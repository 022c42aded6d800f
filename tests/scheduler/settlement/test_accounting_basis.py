"""One accounting basis per job: direct and life-cycle figures are never compared, added or exchanged."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from greencore.carbon import Basis, Reading
from greencore.carbon.series import EmissionFactors
from greencore.clock import HOUR
from greencore.policy import decide_rho, parse_policy
from planning.placement import choose_zone
from runtime.settings import Settings
from scheduler import Scheduler
from scheduler.settlement import settle_prices
from store.database import Database
from store.intensity.readings import GridRepository, get_job_basis
from store.repositories.jobs import get_job_policy
from store.tables import EnergyInterval, Job
from tests.carbon_provider_server import ManualClock
from tests.scheduler.stage import START, add_job, add_worker, claim_as_worker, read_job, write_trace
from worker.training.policy_context import build_policy_context

pytestmark = pytest.mark.fault(number=16)

DIRECT: EmissionFactors = "direct"


def reading(zone: str, value: float, factors: EmissionFactors, hour: float = 0.0, **fields: Any) -> Reading:
    given: dict[str, Any] = {
        "zone": zone,
        "start": START + hour * HOUR,
        "end": START + (hour + 1) * HOUR,
        "gco2e_per_kwh": value,
        "source": "uk" if factors == "direct" else "electricity-maps",
        "emission_factors": factors,
        "fetched_at": START,
    }
    return Reading(**(given | fields))


def put(database: Database, *readings: Reading) -> None:
    with database.session() as session:
        GridRepository(session).put(readings)


@pytest.fixture
def settings(empty_broker: Settings, tmp_path: Path) -> Settings:
    """GB's own figures are direct and low, FR's and PL's are of the life cycle."""
    zones = {
        "GB": f"{write_trace(tmp_path, [20.0] * 400, name='gb')}?emission_factors=direct&static=GBR",
        "FR": write_trace(tmp_path, [56.0] * 400, name="fr"),
        "PL": write_trace(tmp_path, [660.0] * 400, name="pl"),
    }
    return empty_broker.model_copy(update={"zones": zones})


def test_a_zone_is_not_preferred_because_its_figures_are_direct(
    scheduler: Scheduler, database: Database, clock: ManualClock
) -> None:
    for number, zone in enumerate(("GB", "FR", "PL")):
        add_worker(database, zone, name=f"worker_{number}")
    job_id = add_job(database)
    scheduler.tick()
    job = read_job(database, job_id)
    assert (job.zone, job.signal, job.emission_factors) == ("FR", "average", "lifecycle")
    assert job.reason is not None
    assert "the lowest of 2 zones; not compared, on another basis: GB (average, direct)" in job.reason


def test_zones_that_all_have_direct_figures_are_compared(database: Database) -> None:
    put(database, reading("GB", 100.0, "direct"), reading("IE", 90.0, "direct"))
    bases = {"GB": Basis("average", DIRECT), "IE": Basis("average", DIRECT), "US": Basis("marginal", DIRECT)}
    with database.session() as session:
        found = choose_zone(session, list(bases), bases, None, 1, at=START + HOUR / 2)
    assert found is not None
    assert found.zone == "IE"
    assert "not compared, on another basis: US (marginal, direct)" in found.reason


def test_a_job_keeps_the_basis_on_which_it_was_placed_first(scheduler: Scheduler, database: Database) -> None:
    add_worker(database, "FR")
    in_uk = add_job(database, signal="average", emission_factors="direct")
    scheduler.tick()
    job = read_job(database, in_uk)
    assert (job.dispatched_at, job.emission_factors) == (None, "direct")
    assert job.reason == "waits for a worker of a zone with an average intensity with direct factors: none is alive"
    add_worker(database, "GB", name="worker_2")
    scheduler.tick()
    assert read_job(database, in_uk).zone == "GB"


def test_direct_energy_without_a_reading_stays_unpriced_and_says_why(
    settings: Settings, database: Database, clock: ManualClock
) -> None:
    job_id = add_job(database, zone="GB", signal="average", emission_factors="direct")
    clock.advance(hours=500)
    with database.session() as session:
        job = session.get_one(Job, job_id)
        series = GridRepository(session).series_with_fallback(
            "GB", get_job_basis(job), clock(), clock() + HOUR, settings
        )
        assert len(series) == 0
        known = build_policy_context(session, job, get_job_policy(job), settings, epochs_left=1, at=clock())
    assert (known.reading, known.step) == (None, None)
    steps = parse_policy({"kind": "steps", "steps": [{"rho": 0.5}]})
    why = "no yearly mean is used: yearly means are average, life cycle, and are not mixed with figures"
    assert f"no intensity reading ({why} that are average, direct)" in decide_rho(steps, known).reason


def test_life_cycle_energy_without_a_reading_has_the_yearly_mean(
    settings: Settings, database: Database, clock: ManualClock
) -> None:
    job_id = add_job(database, zone="GB", signal="average", emission_factors="lifecycle")
    with database.session() as session:
        series = GridRepository(session).series_with_fallback(
            "GB",
            get_job_basis(session.get_one(Job, job_id)),
            clock(),
            clock() + HOUR,
            settings,
        )
    assert [(one.source, one.emission_factors) for one in series] == [("static (GBR)", "lifecycle")]


def test_a_zone_whose_source_has_changed_keeps_both_kinds_apart(settings: Settings, database: Database) -> None:
    direct = [reading("GB", 100.0, "direct", hour) for hour in range(3)]
    lifecycle = [reading("GB", 150.0, "lifecycle", hour, fetched_at=START + 9 * HOUR) for hour in range(3, 6)]
    put(database, *direct, *lifecycle)
    span = START, START + 6 * HOUR
    with database.session() as session:
        grid = GridRepository(session)
        assert grid.newest_basis("GB") == Basis("average", "lifecycle")
        assert [one.gco2e_per_kwh for one in grid.readings_between("GB", Basis(), *span)] == [150.0] * 3
        old = grid.readings_between("GB", Basis("average", DIRECT), *span)
        assert [one.gco2e_per_kwh for one in old] == [100.0] * 3
        for basis, values in ((Basis("average", "direct"), {100.0}), (Basis("average", "lifecycle"), {150.0})):
            known = grid.load_snapshot("GB", basis, *span)
            assert {one.gco2e_per_kwh for one in known.readings} == values
        newest = grid.newest_reading("GB", Basis("average", DIRECT), at=START + 9 * HOUR)
        assert newest is not None
        assert newest.start == START + 2 * HOUR


def test_a_direct_job_is_settled_by_direct_readings_alone(settings: Settings, database: Database) -> None:
    """Though the zone's newer readings, of another source, cover the same time."""
    job_id = add_job(database, zone="GB", signal="average", emission_factors="direct")
    claim_as_worker(database, job_id, at=START)
    with database.session() as session:
        session.add(
            EnergyInterval(
                job_id=job_id,
                epoch=1,
                attempt=1,
                started_at=START,
                finished_at=START + timedelta(minutes=1),
                cpu_kwh=1.0,
                gpu_kwh=0.0,
                ram_kwh=0.0,
                method={},
                zone="GB",
                intensity_estimated=True,
            )
        )
        session.get_one(Job, job_id).energy_kwh = 1.0
    put(database, reading("GB", 150.0, "lifecycle"))
    settle_prices(database, settings, at=START + 2 * HOUR)
    assert read_job(database, job_id).emissions_gco2e == 0
    put(database, reading("GB", 100.0, "direct", fetched_at=START + HOUR))
    settle_prices(database, settings, at=START + 2 * HOUR)
    assert read_job(database, job_id).emissions_gco2e == pytest.approx(100.0)
