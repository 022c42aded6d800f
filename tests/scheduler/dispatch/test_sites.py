"""Sites of workers: which jobs run there, how they are priced, and what runs at an unknown site."""

import pytest
import redis

from greencore.carbon import Basis
from greencore.clock import HOUR
from runtime.settings import Settings
from runtime.site import UNKNOWN_ZONE
from scheduler import Scheduler
from store.database import Database
from store.intensity.readings import GridRepository
from store.lifecycle.leases import claim
from tests.carbon_provider_server import ManualClock
from tests.scheduler.stage import add_job, add_worker, backdate_lease, claim_as_worker, events, read_job

pytestmark = pytest.mark.fault(number=11)


@pytest.fixture
def settings(empty_broker: Settings) -> Settings:
    return empty_broker.model_copy(update={"zones": {"NO": "static", "FR": "static", "PL": "static"}})


def test_a_job_without_a_zone_is_not_placed_in_a_clean_one_where_the_site_is_not_known(
    scheduler: Scheduler, settings: Settings, database: Database, broker: redis.Redis, clock: ManualClock
) -> None:
    add_worker(database, UNKNOWN_ZONE)
    job_id = add_job(database)
    scheduler.tick()
    job = read_job(database, job_id)
    assert (job.zone, job.signal, job.emission_factors) == (UNKNOWN_ZONE, "average", "lifecycle")
    assert job.reason is not None
    assert "unknown: priced at the world's mean" in job.reason
    assert broker.llen(f"train.{UNKNOWN_ZONE}") == 1
    dispatched = events(database, job_id)[-1].data
    assert (dispatched["zone"], dispatched["reason"]) == (UNKNOWN_ZONE, job.reason)
    with database.session() as session:
        known = GridRepository(session).resolve_intensity(UNKNOWN_ZONE, Basis(), clock(), settings)
    assert known is not None
    assert (known.source, known.reading.gco2e_per_kwh, known.estimated) == ("site unknown", 475.0, True)


def test_the_world_mean_is_used_before_any_reading_is_stored(
    settings: Settings, database: Database, clock: ManualClock
) -> None:
    with database.session() as session:
        known = GridRepository(session).resolve_intensity(UNKNOWN_ZONE, Basis(), clock(), settings)
    assert known is not None
    assert (known.source, known.reading.gco2e_per_kwh) == ("site unknown", 475.0)


def test_a_job_that_asks_for_a_zone_never_runs_where_the_site_is_not_known(
    scheduler: Scheduler, database: Database, broker: redis.Redis, clock: ManualClock
) -> None:
    add_worker(database, UNKNOWN_ZONE)
    job_id = add_job(database, zone="NO")
    scheduler.tick()
    job = read_job(database, job_id)
    assert job.dispatched_at is None
    assert job.reason is not None
    assert "zone NO: none is alive there" in job.reason
    assert "GREENTUNE_SITE" in job.reason
    assert broker.llen(f"train.{UNKNOWN_ZONE}") == 0
    with database.session() as session:
        taken = claim(session, job_id, worker_id="w", device="cpu", at=clock(), lease_seconds=60, zone=UNKNOWN_ZONE)
    assert taken is None


@pytest.mark.parametrize("known", ["NO", "PL"])
def test_a_site_that_is_known_comes_first_however_dirty_its_grid(
    known: str, scheduler: Scheduler, database: Database
) -> None:
    add_worker(database, UNKNOWN_ZONE)
    add_worker(database, known, name="worker_2")
    job_id = add_job(database)
    scheduler.tick()
    assert read_job(database, job_id).zone == known


def test_the_site_with_a_worker_is_chosen_though_cleaner_zones_are_known(
    scheduler: Scheduler, database: Database
) -> None:
    add_worker(database, "PL")
    add_worker(database, "FR", name="worker_2")
    job_id = add_job(database)
    scheduler.tick()
    assert read_job(database, job_id).zone == "FR"


def test_a_message_that_was_sent_before_the_job_was_placed_elsewhere_is_not_taken_up(
    scheduler: Scheduler, settings: Settings, database: Database, clock: ManualClock
) -> None:
    add_worker(database, "FR")
    job_id = add_job(database)
    scheduler.tick()
    assert read_job(database, job_id).zone == "FR"
    add_worker(database, "NO", name="worker_2")
    clock.advance(seconds=settings.redispatch_seconds + 1)
    scheduler.tick()
    assert read_job(database, job_id).zone == "NO"
    with database.session() as session:
        for zone, is_taken in (("FR", False), ("NO", True)):
            lease = claim(session, job_id, worker_id=f"w-{zone}", device="cpu", at=clock(), lease_seconds=60, zone=zone)
            assert (lease is not None) is is_taken


def test_an_interrupted_job_goes_on_in_its_own_zone_as_long_as_that_has_a_worker(
    scheduler: Scheduler, database: Database, clock: ManualClock
) -> None:
    add_worker(database, "FR")
    job_id = add_job(database, hours=1)
    scheduler.tick()
    claim_as_worker(database, job_id, at=clock())
    with database.session() as session:
        session.get_one(type(read_job(database, job_id)), job_id).energy_kwh = 0.5
    add_worker(database, "NO", name="worker_2")
    backdate_lease(database, job_id)
    for _ in range(3):
        clock.advance(seconds=2 * HOUR.total_seconds())
        scheduler.tick()
    job = read_job(database, job_id)
    assert (job.lost_attempts, job.zone) == (1, "FR")
