"""Newest reading of each of many zones."""

from datetime import timedelta

from greencore.carbon import Reading, Signal
from greencore.clock import HOUR
from store.database import Database
from store.intensity.readings import GridRepository
from tests.scheduler.stage import START


def reading(zone: str, hours: int, gco2e: float, *, signal: Signal = "average", fetched: int = 0) -> Reading:
    return Reading(
        zone=zone,
        start=START + hours * HOUR,
        end=START + (hours + 1) * HOUR,
        gco2e_per_kwh=gco2e,
        source="uk",
        signal=signal,
        fetched_at=START + timedelta(minutes=fetched),
    )


def newest(database: Database, *zones: str) -> dict[str, float]:
    with database.session() as session:
        found = GridRepository(session).newest_readings(zones, at=START)
        return {zone: reading.gco2e_per_kwh for zone, reading in found.items()}


def test_each_zone_has_its_newest_reading_that_has_begun(database: Database) -> None:
    with database.session() as session:
        GridRepository(session).put([reading("GB", hours, 100 + hours) for hours in (-2, -1, 1)])
        GridRepository(session).put([reading("FR", 0, 50), reading("DE", 0, 400)])

    assert newest(database, "GB", "FR", "XX") == {"GB": 99, "FR": 50}
    assert newest(database) == {}


def test_of_two_signals_the_one_that_was_fetched_last_counts(database: Database) -> None:
    with database.session() as session:
        GridRepository(session).put(
            [reading("GB", 0, 100, fetched=0), reading("GB", -1, 700, signal="marginal", fetched=5)]
        )
        GridRepository(session).put(
            [reading("FR", 0, 50, fetched=5), reading("FR", 0, 300, signal="marginal", fetched=0)]
        )

    assert newest(database, "GB", "FR") == {"GB": 700, "FR": 50}
