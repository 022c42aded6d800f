"""Placement of jobs without a requested zone."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from greencore.carbon import Basis
from planning.placement import choose_zone
from runtime.settings import Settings
from scheduler import Scheduler
from store.database import Database
from tests.carbon_provider_server import ManualClock
from tests.scheduler.stage import START, add_job, add_worker, read_job, write_trace


@pytest.fixture
def scheduler(empty_broker: Settings, database: Database, clock: ManualClock, tmp_path: Path) -> Iterator[Scheduler]:
    """CLEAN_NOW is cleaner for two hours, CLEAN_LATER from then on."""
    zones = {
        "CLEAN_NOW": write_trace(tmp_path, [100.0] * 2 + [500.0] * 40, name="now"),
        "CLEAN_LATER": write_trace(tmp_path, [200.0] * 2 + [100.0] * 40, name="later"),
    }
    for zone in zones:
        add_worker(database, zone, name=f"worker_{zone}")
    with closing(Scheduler(empty_broker.model_copy(update={"zones": zones}), clock=clock)) as scheduler:
        yield scheduler


@pytest.mark.parametrize(("hours", "zone"), [(1, "CLEAN_NOW"), (8, "CLEAN_LATER"), (None, "CLEAN_NOW")])
def test_the_zone_is_the_one_that_is_cleanest_over_the_jobs_duration(
    scheduler: Scheduler, database: Database, hours: float | None, zone: str
) -> None:
    job_id = add_job(database, hours=hours)
    scheduler.tick()
    assert read_job(database, job_id).zone == zone


def test_the_reason_has_the_figures(scheduler: Scheduler, database: Database) -> None:
    add_job(database)
    scheduler.tick()
    with database.session() as session:
        found = choose_zone(
            session,
            ["CLEAN_NOW", "CLEAN_LATER"],
            {"CLEAN_NOW": Basis(), "CLEAN_LATER": Basis()},
            None,
            1,
            at=START,
        )
    assert found is not None
    assert found.reason == "100 gCO2e/kWh expected now: the lowest of 2 zones"


def test_average_and_marginal_zones_are_not_compared(scheduler: Scheduler, database: Database) -> None:
    add_job(database)
    scheduler.tick()
    with database.session() as session:
        zones = ["CLEAN_NOW", "CLEAN_LATER"]
        found = choose_zone(
            session, zones, {"CLEAN_NOW": Basis("marginal", "direct"), "CLEAN_LATER": Basis()}, None, 1, at=START
        )
        assert found is not None
        assert found.zone == "CLEAN_LATER"
        assert choose_zone(session, [], {}, None, 1, at=START) is None


def test_a_job_priced_by_the_average_signal_keeps_it(scheduler: Scheduler, database: Database) -> None:
    job_id = add_job(database, signal="marginal")
    scheduler.tick()
    job = read_job(database, job_id)
    assert job.dispatched_at is None
    assert job.reason == "waits for a worker of a zone with a marginal intensity: none is alive"
