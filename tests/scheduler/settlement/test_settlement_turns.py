"""Settlement is shared fairly among zones and jobs, and energy that no reading covers is closed on time."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, insert, select

from greencore.carbon import Reading, Signal
from greencore.clock import HOUR
from runtime.settings import Settings
from scheduler.settlement import settle_prices, store_counterfactuals
from store.accounting.emissions import EmissionsRepository
from store.database import Database
from store.intensity.readings import GridRepository
from store.lifecycle.status import JobStatus
from store.repositories.jobs import JobRepository
from store.tables import EnergyInterval, Job
from tests.scheduler.stage import START, add_job, events, read_job

pytestmark = pytest.mark.fault(number=12)

MINUTE = timedelta(minutes=1)
UNKNOWN_ZONE = "site-7"  # no source has it, and no country is called so


def put(
    database: Database,
    zone: str,
    hour: float,
    value: float,
    *,
    hours: float = 1,
    signal: Signal = "average",
    estimated: bool = False,
) -> None:
    reading = Reading(
        zone=zone,
        start=START + hour * HOUR,
        end=START + (hour + hours) * HOUR,
        gco2e_per_kwh=value,
        source="test",
        signal=signal,
        estimated=estimated,
        fetched_at=START + hour * HOUR,
    )
    with database.session() as session:
        GridRepository(session).put([reading])


def used(
    database: Database,
    job_id: str,
    minutes: Sequence[float],
    *,
    kwh: float = 1.0,
    gco2e: float | None = None,
    pue: float = 1.0,
    length: timedelta = MINUTE,
) -> None:
    """An interval of energy from each of these minutes on, without a price or with a provisional one."""
    zone = read_job(database, job_id).zone
    rows: list[dict[str, Any]] = [
        {
            "job_id": job_id,
            "epoch": 1,
            "attempt": 1,
            "started_at": START + minute * MINUTE,
            "finished_at": START + minute * MINUTE + length,
            "cpu_kwh": kwh,
            "gpu_kwh": 0.0,
            "ram_kwh": 0.0,
            "method": {},
            "intensity_estimated": True,
            "zone": zone,
            "pue": pue,
            "emissions_gco2e": gco2e,
            "settled": False,
        }
        for minute in minutes
    ]
    with database.session() as session:
        session.execute(insert(EnergyInterval), rows)
        job = session.get_one(Job, job_id)
        job.energy_kwh += kwh * len(rows)
        job.emissions_gco2e += (gco2e or 0.0) * len(rows)


def job_in(database: Database, zone: str, signal: Signal = "average") -> str:
    return add_job(database, JobStatus.RUNNING, zone=zone, signal=signal, started_at=START)


def open_intervals(database: Database, job_id: str) -> int:
    with database.session() as session:
        query = select(func.count()).where(EnergyInterval.job_id == job_id, EnergyInterval.settled.is_(False))
        return session.scalar(query) or 0


def test_a_zone_that_never_has_readings_keeps_no_other_zone_waiting(database: Database, settings: Settings) -> None:
    silent, french = job_in(database, UNKNOWN_ZONE), job_in(database, "FR")
    used(database, silent, [minute / 2 for minute in range(2500)])
    used(database, french, [2000])
    put(database, "FR", 0, 150, hours=48)
    settle_prices(database, settings, at=START + 40 * HOUR)
    assert open_intervals(database, french) == 0
    assert read_job(database, french).emissions_gco2e == 150
    assert open_intervals(database, silent) == 2500


def test_two_signals_of_one_zone_do_not_wait_for_each_other(database: Database, settings: Settings) -> None:
    silent, measured = job_in(database, UNKNOWN_ZONE, "marginal"), job_in(database, UNKNOWN_ZONE)
    used(database, silent, [minute / 2 for minute in range(2100)])
    used(database, measured, [2000])
    put(database, UNKNOWN_ZONE, 0, 150, hours=48)
    settle_prices(database, settings, at=START + 40 * HOUR)
    assert (open_intervals(database, measured), open_intervals(database, silent)) == (0, 2100)


def test_a_job_with_much_to_settle_leaves_the_others_of_its_zone_their_turn(
    database: Database, settings: Settings
) -> None:
    long, short = job_in(database, "FR"), job_in(database, "FR")
    used(database, long, [minute / 2 for minute in range(2500)], gco2e=1.0)
    used(database, short, [2000], gco2e=1.0)
    put(database, "FR", 0, 150, hours=48)
    settle_prices(database, settings, at=START + 40 * HOUR)
    assert open_intervals(database, short) == 0
    assert 0 < open_intervals(database, long) < 2500, "the work of one round is bounded"
    settle_prices(database, settings, at=START + 40 * HOUR)
    settle_prices(database, settings, at=START + 40 * HOUR)
    assert open_intervals(database, long) == 0
    assert read_job(database, long).emissions_gco2e == pytest.approx(2500 * 150)


def test_intervals_that_readings_cover_in_part_keep_no_later_ones_of_their_job_waiting(
    database: Database, settings: Settings
) -> None:
    job_id = job_in(database, UNKNOWN_ZONE)
    # A reading of half a minute in each; nothing is known of the other half.
    used(database, job_id, range(2100), gco2e=1.0)
    with database.session() as session:
        GridRepository(session).put(
            Reading(
                zone=UNKNOWN_ZONE,
                start=START + minute * MINUTE,
                end=START + (minute + 0.5) * MINUTE,
                gco2e_per_kwh=80,
                source="test",
                fetched_at=START,
            )
            for minute in range(2100)
        )
    used(database, job_id, [2400])
    put(database, UNKNOWN_ZONE, 40, 150)
    settle_prices(database, settings, at=START + 42 * HOUR)
    assert open_intervals(database, job_id) == 2100


def test_energy_without_any_reading_is_closed_on_time_unpriced(database: Database, settings: Settings) -> None:
    job_id = job_in(database, UNKNOWN_ZONE)
    used(database, job_id, [minute / 2 for minute in range(2500)])
    settle_prices(database, settings, at=START + settings.settle_after_hours * HOUR)
    assert open_intervals(database, job_id) == 2500
    settle_prices(database, settings, at=START + (settings.settle_after_hours + 22) * HOUR)
    assert open_intervals(database, job_id) == 0
    with database.session() as session:
        priced = select(func.count()).where(EnergyInterval.emissions_gco2e.is_not(None))
        assert session.scalar(priced) == 0
        assert EmissionsRepository(session).is_settled(job_id)
        [basis] = JobRepository(session).emissions_basis([job_id]).values()
    assert basis.unpriced_kwh == pytest.approx(2500)


def test_energy_is_priced_by_the_zone_where_it_was_used(database: Database, settings: Settings) -> None:
    job_id = job_in(database, "GB")
    used(database, job_id, [0])
    with database.session() as session:
        session.get_one(Job, job_id).zone = "FR"  # where its next attempt was sent
    used(database, job_id, [1])
    put(database, "GB", 0, 250)
    put(database, "FR", 0, 50)
    settle_prices(database, settings, at=START + 2 * HOUR)
    assert open_intervals(database, job_id) == 0
    assert read_job(database, job_id).emissions_gco2e == pytest.approx(300)


def test_readings_of_other_hours_price_nothing(database: Database, settings: Settings) -> None:
    job_id = job_in(database, UNKNOWN_ZONE)
    used(database, job_id, [0])
    used(database, job_id, [9 * 60])
    put(database, UNKNOWN_ZONE, 9, 700)
    settle_prices(database, settings, at=START + (settings.settle_after_hours + 12) * HOUR)
    with database.session() as session:
        prices = session.scalars(select(EnergyInterval.emissions_gco2e).order_by(EnergyInterval.started_at)).all()
    assert prices == [None, 700]


def test_an_interval_known_in_part_is_priced_by_that_part_once_no_more_will_be_known(
    database: Database, settings: Settings
) -> None:
    job_id = job_in(database, UNKNOWN_ZONE)
    used(database, job_id, [59.5])
    put(database, UNKNOWN_ZONE, 1, 300)
    put(database, UNKNOWN_ZONE, -40, 900)
    settle_prices(database, settings, at=START + 5 * HOUR)
    assert open_intervals(database, job_id) == 1
    settle_prices(database, settings, at=START + (settings.settle_after_hours + 2) * HOUR)
    assert open_intervals(database, job_id) == 0
    assert read_job(database, job_id).emissions_gco2e == 300


def test_a_job_whose_energy_cannot_be_priced_keeps_no_other_waiting(database: Database, settings: Settings) -> None:
    broken, sound, elsewhere = job_in(database, "FR"), job_in(database, "FR"), job_in(database, "GB")
    used(database, broken, [0], pue=0.5)
    used(database, sound, [1])
    used(database, elsewhere, [2])
    put(database, "FR", 0, 150)
    put(database, "GB", 0, 250)
    settle_prices(database, settings, at=START + 2 * HOUR)
    assert [open_intervals(database, job_id) for job_id in (broken, sound, elsewhere)] == [1, 0, 0]


def test_a_price_that_no_measured_reading_confirms_is_closed_as_it_is(database: Database, settings: Settings) -> None:
    job_id = job_in(database, "FR")
    used(database, job_id, range(1200), gco2e=2.0)
    put(database, "FR", 0, 900, hours=24, estimated=True)
    settle_prices(database, settings, at=START + (settings.settle_after_hours + 21) * HOUR)
    assert open_intervals(database, job_id) == 0
    assert read_job(database, job_id).emissions_gco2e == pytest.approx(2400)


def test_a_job_closed_without_any_price_is_unpriced(database: Database, settings: Settings) -> None:
    job_id = add_job(database, JobStatus.RUNNING, zone=UNKNOWN_ZONE, signal="average", started_at=START)
    used(database, job_id, [0])
    with database.session() as session:
        job = session.get_one(Job, job_id)
        job.status, job.finished_at = JobStatus.SUCCEEDED, START + HOUR
    at = START + (settings.settle_after_hours + 1) * HOUR
    settle_prices(database, settings, at=at)
    store_counterfactuals(database, settings, at=at)
    settled = events(database, job_id)[-1]
    assert settled.type == "emissions.settled"
    assert (settled.data["emissions_gco2e"], settled.data["unpriced_kwh"]) == (None, 1.0)
    assert "no price" in (read_job(database, job_id).counterfactuals or {})["missing"]
