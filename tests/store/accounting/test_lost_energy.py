"""Energy that an attempt used and did not store is estimated, marked and priced once, however the attempt ends."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, update

from greencore.carbon import PricedInterval, Reading
from greencore.energy import EnergyInterval as Metered
from greencore.energy import UnreportedPeriod, is_estimate
from greencore.energy.interval import JOULES_PER_KWH
from runtime.settings import Settings
from scheduler.reclaim import reclaim_lost_jobs
from scheduler.settlement import settle_prices
from store.accounting import metering
from store.database import Database
from store.intensity.readings import GridRepository
from store.lifecycle import progress
from store.lifecycle.leases import Lease, claim, renew
from store.lifecycle.status import JobStatus
from store.lifecycle.transitions import transition
from store.repositories.jobs import JobRepository
from store.tables import EnergyInterval, EnergyTotal, Epoch, Event, Job, MeteredAttempt
from tests.scheduler.stage import add_job, backdate_lease

pytestmark = pytest.mark.fault(number=14)

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
ASKED_FIRST = {JobStatus.CANCELLED: JobStatus.CANCELLING, JobStatus.PAUSED: JobStatus.PAUSING}


def running(database: Database, *, device: str = "cpu", assumed_power_w: float | None = None) -> Lease:
    job_id = add_job(database)
    with database.session() as session:
        job = JobRepository(session).lock(job_id)
        assert job is not None
        job.zone = job.zone or "X"
        job.signal = "average"
        lease = claim(
            session,
            job_id,
            worker_id="w",
            device=device,
            at=NOON,
            lease_seconds=60,
            pue=1.5,
            assumed_power_w=assumed_power_w,
        )
    assert lease is not None
    return lease


def store(database: Database, lease: Lease, start: datetime, seconds: float, *, watts: float = 100.0) -> None:
    kwh = watts * seconds / JOULES_PER_KWH
    interval = Metered(
        start=start,
        end=start + timedelta(seconds=seconds),
        cpu_kwh=kwh * 0.6,
        gpu_kwh=kwh * 0.3,
        ram_kwh=kwh * 0.1,
        cpu_method="RAPL",
        gpu_method="NVML energy counter",
        ram_method="capacity estimate",
    )
    with database.session() as session:
        metering.store_energy(session, lease, 0, interval, price=unpriced)


def unpriced(part: Metered) -> list[PricedInterval]:
    return [
        PricedInterval(
            start=part.start,
            end=part.end,
            energy_kwh=part.energy_kwh,
            intensity_gco2e_per_kwh=None,
            emissions_gco2e=None,
            covered_share=0.0,
            estimated=True,
            sources=(),
            pue=1.5,
        )
    ]


def show_life(database: Database, lease: Lease, since: datetime, seconds: float) -> None:
    with database.session() as session:
        renew(session, lease, lease_seconds=60, unstored=UnreportedPeriod(since, seconds))


def lose(database: Database, lease: Lease, settings: Settings) -> None:
    backdate_lease(database, lease.job_id)
    reclaim_lost_jobs(database, settings, at=NOON + timedelta(hours=1))


def lost(database: Database, lease: Lease) -> Sequence[EnergyInterval]:
    query = select(EnergyInterval).where(EnergyInterval.job_id == lease.job_id, EnergyInterval.lost)
    with database.session() as session:
        return session.scalars(query.order_by(EnergyInterval.started_at)).all()


def watts(intervals: Sequence[EnergyInterval]) -> float:
    seconds = sum((one.finished_at - one.started_at).total_seconds() for one in intervals)
    return sum(one.energy_kwh for one in intervals) * JOULES_PER_KWH / seconds


def test_a_lost_attempt_is_billed_to_its_last_heartbeat_by_its_own_mean_power(
    database: Database, settings: Settings
) -> None:
    lease = running(database)
    store(database, lease, NOON, 59, watts=80)
    store(database, lease, NOON + timedelta(seconds=59), 59, watts=120)
    show_life(database, lease, NOON + timedelta(seconds=118), 47.0)
    lose(database, lease, settings)
    (stretch,) = lost(database, lease)
    assert (stretch.started_at, stretch.finished_at) == (NOON + timedelta(seconds=118), NOON + timedelta(seconds=165))
    assert watts([stretch]) == pytest.approx(100)
    assert stretch.pue == 1.5
    assert stretch.cpu_kwh == pytest.approx(stretch.energy_kwh * 0.6)
    assert all(is_estimate(method) for method in stretch.method.values())
    with database.session() as session:
        job = session.get_one(Job, lease.job_id)
        assert job.energy_kwh * JOULES_PER_KWH == pytest.approx(100 * (118 + 47))
        totals = session.scalars(select(EnergyTotal.kwh).where(EnergyTotal.zone == job.zone)).all()
        assert sum(totals) == pytest.approx(job.energy_kwh)
        event = session.scalars(select(Event).where(Event.job_id == job.id, Event.type == "energy.lost")).one()
    assert event.data["seconds"] == 47


@pytest.mark.parametrize(
    ("device", "assumed_w", "expected_w"), [("cpu", None, 60), ("NVIDIA H100", None, 500), ("NVIDIA H100", 321.0, 321)]
)
def test_an_attempt_that_stored_nothing_is_billed_by_its_devices_assumed_power(
    database: Database, settings: Settings, device: str, assumed_w: float | None, expected_w: float
) -> None:
    lease = running(database, device=device, assumed_power_w=assumed_w)
    show_life(database, lease, NOON, 150.0)
    lose(database, lease, settings)
    stretches = lost(database, lease)
    assert watts(stretches) == pytest.approx(expected_w)
    assert stretches[0].started_at == NOON
    assert stretches[-1].finished_at == NOON + timedelta(seconds=150)
    assert all(one.finished_at - one.started_at <= timedelta(seconds=60) for one in stretches)
    assert all("assumed power" in method for one in stretches for method in one.method.values())


def test_energy_stored_after_the_last_heartbeat_is_not_billed_twice(database: Database, settings: Settings) -> None:
    lease = running(database)
    show_life(database, lease, NOON, 50.0)
    store(database, lease, NOON, 59)
    lose(database, lease, settings)
    assert lost(database, lease) == []

    lease = running(database)
    show_life(database, lease, NOON, 100.0)
    store(database, lease, NOON, 59)
    lose(database, lease, settings)
    (rest,) = lost(database, lease)
    assert (rest.started_at, rest.finished_at) == (NOON + timedelta(seconds=59), NOON + timedelta(seconds=100))


def test_a_stretch_in_an_epoch_that_was_not_finished_belongs_to_it(database: Database, settings: Settings) -> None:
    lease = running(database)
    with database.session() as session:
        for number, finished_at in ((1, NOON), (2, None)):
            session.add(
                Epoch(
                    job_id=lease.job_id,
                    number=number,
                    attempt=1,
                    started_at=NOON,
                    finished_at=finished_at,
                    rho_asked=1.0,
                    reason="r",
                    intensity_estimated=False,
                )
            )
    show_life(database, lease, NOON, 30.0)
    lose(database, lease, settings)
    assert [stretch.epoch for stretch in lost(database, lease)] == [2]


@pytest.mark.parametrize(
    "end", [JobStatus.QUEUED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.PAUSED, JobStatus.SUCCEEDED]
)
def test_every_end_without_a_closed_meter_is_billed_and_none_with_one(database: Database, end: JobStatus) -> None:
    for closed in (False, True):
        lease = running(database)
        show_life(database, lease, NOON, 30.0)
        with database.session() as session:
            if closed:
                metering.close_meter(session, lease, at=NOON, tracker_kwh=None)
            job = JobRepository(session).lock(lease.job_id)
            assert job is not None
            if end in ASKED_FIRST:
                transition(session, job, ASKED_FIRST[end], at=NOON)
            transition(session, job, end, at=NOON)
        assert len(lost(database, lease)) == (0 if closed else 1)


def test_a_terminated_job_is_billed_to_its_last_heartbeat(database: Database) -> None:
    lease = running(database)
    with database.session() as session:
        job = JobRepository(session).lock(lease.job_id)
        assert job is not None
        transition(session, job, JobStatus.CANCELLING, at=NOON)
    show_life(database, lease, NOON, 20.0)
    with database.session() as session:
        progress.cancel_killed_job(session, lease, at=NOON, after_seconds=5)
    assert len(lost(database, lease)) == 1


def test_each_of_two_lost_attempts_is_billed_once(database: Database, settings: Settings) -> None:
    first = running(database)
    show_life(database, first, NOON, 30.0)
    lose(database, first, settings)
    with database.session() as session:
        second = claim(session, first.job_id, worker_id="w", device="cpu", at=NOON, lease_seconds=60)
    assert second is not None
    show_life(database, second, NOON + timedelta(hours=1), 20.0)
    lose(database, second, settings)
    assert [(one.attempt, (one.finished_at - one.started_at).total_seconds()) for one in lost(database, first)] == [
        (1, 30),
        (2, 20),
    ]


def test_a_lost_stretch_is_priced_like_any_other_energy(database: Database, settings: Settings) -> None:
    lease = running(database)
    with database.session() as session:
        zone = session.get_one(Job, lease.job_id).zone
        assert zone is not None
        reading = Reading(
            zone=zone,
            start=NOON - timedelta(hours=1),
            end=NOON + timedelta(hours=1),
            gco2e_per_kwh=200.0,
            source="test",
            fetched_at=NOON,
        )
        GridRepository(session).put([reading])
    show_life(database, lease, NOON, 36.0)
    lose(database, lease, settings)
    settle_prices(database, settings, at=NOON + timedelta(hours=2))
    (stretch,) = lost(database, lease)
    assert stretch.emissions_gco2e == pytest.approx(60 * 36 / JOULES_PER_KWH * 1.5 * 200)
    with database.session() as session:
        assert session.get_one(Job, lease.job_id).emissions_gco2e == pytest.approx(stretch.emissions_gco2e)
        basis = JobRepository(session).emissions_basis([lease.job_id])[lease.job_id]
    assert basis.lost_kwh == pytest.approx(stretch.energy_kwh)


def test_an_attempt_from_before_the_metering_tables_ends_without_an_estimate(
    database: Database, settings: Settings
) -> None:
    lease = running(database)
    with database.session() as session:
        session.execute(update(MeteredAttempt).values(ended_at=NOON))
    lose(database, lease, settings)
    assert lost(database, lease) == []
