"""A job's curves: downsampled by the server, with every peak and every gap kept."""

import math
import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import insert, text

from store.database import Database
from store.repositories.jobs import JobRepository
from store.tables import EnergyInterval, Epoch, Evaluation, Step

START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
START_MS = round(START.timestamp() * 1000)


def store_losses(database: Database, job_id: str, losses: Sequence[float]) -> None:
    """Store one step a second with these losses."""
    rows = [
        {"job_id": job_id, "number": number, "at": START + timedelta(seconds=number), "loss": loss}
        for number, loss in enumerate(losses, start=1)
    ]
    with database.session() as session:
        session.execute(insert(Step), rows)


def store_intervals(
    database: Database, job_id: str, intervals: Sequence[tuple[float, float, float, float | None]]
) -> None:
    """Store intervals, each with its start and length in seconds, its power in W and its intensity."""
    rows: list[dict[str, Any]] = []
    for start, seconds, watts, intensity in intervals:
        kwh = watts * seconds / 3.6e6
        rows.append(
            {
                "job_id": job_id,
                "epoch": 1,
                "attempt": 1,
                "started_at": START + timedelta(seconds=start),
                "finished_at": START + timedelta(seconds=start + seconds),
                "cpu_kwh": kwh,
                "gpu_kwh": 0.0,
                "ram_kwh": 0.0,
                "method": {},
                "intensity_gco2e_per_kwh": intensity,
                "intensity_estimated": False,
                "emissions_gco2e": None if intensity is None else kwh * intensity,
            }
        )
    with database.session() as session:
        session.execute(insert(EnergyInterval), rows)


def series(client: TestClient, job_id: str, **query: Any) -> Any:
    response = client.get(f"/jobs/{job_id}/series", params=query)
    assert response.status_code == 200, response.text
    return response.json()


def test_a_short_run_is_not_downsampled(client: TestClient, finished_job_id: str, database: Database) -> None:
    store_losses(database, finished_job_id, [3.0, 2.5, 2.0])

    shown = series(client, finished_job_id)

    assert shown["loss"] == {
        "step": [1, 2, 3],
        "at": [START_MS + 1000, START_MS + 2000, START_MS + 3000],
        "value": [3.0, 2.5, 2.0],
        "mean": [3.0, 2.5, 2.0],
    }
    assert shown["energy"] == {
        "start": [START_MS],
        "end": [START_MS + 30_000],
        "power_w": [72.0],
        "intensity_gco2e_per_kwh": [212.0],
        "energy_kwh": [0.0006],
        "unpriced_kwh": [0.0],
        "emissions_gco2e": [pytest.approx(0.0006 * 1.2 * 212, rel=1e-5)],
    }
    assert shown["rho"] == {"epoch": [1], "start": [START_MS], "end": [START_MS], "asked": [0.6], "reached": [0.58]}
    assert (shown["start"], shown["end"]) == ("2026-11-23T12:00:00Z", "2026-11-23T12:00:30Z")


def test_a_job_that_has_not_run_has_empty_curves(client: TestClient, job_id: str) -> None:
    shown = series(client, job_id)

    assert (shown["start"], shown["end"]) == (None, None)
    assert shown["loss"] == {"step": [], "at": [], "value": [], "mean": []}
    assert shown["energy"]["power_w"] == []


def test_the_loss_keeps_its_ends_and_the_lowest_and_highest_of_every_stretch(
    client: TestClient, job_id: str, database: Database
) -> None:
    drawn = random.Random(5)
    losses = [2 + drawn.random() for _ in range(1003)]
    store_losses(database, job_id, losses)

    shown = series(client, job_id, points=42)["loss"]

    steps = shown["step"]
    assert len(steps) <= 42
    assert steps == sorted(steps)
    assert (steps[0], steps[-1]) == (1, 1003)
    assert shown["value"] == [pytest.approx(losses[step - 1], rel=1e-5) for step in steps]
    for stretch in range(20):
        numbers = [number for number in range(1, 1004) if (number - 1) * 20 // 1003 == stretch]
        for extreme in (min, max):
            assert extreme(numbers, key=lambda number: losses[number - 1]) in steps


def test_every_kept_loss_comes_with_the_mean_of_its_stretch(
    client: TestClient, job_id: str, database: Database
) -> None:
    losses = [5.0 if number % 10 == 9 else 1.0 for number in range(400)]
    store_losses(database, job_id, losses)

    shown = series(client, job_id, points=22)["loss"]

    assert set(shown["value"]) == {1.0, 5.0}
    assert shown["mean"] == [pytest.approx(1.4)] * len(shown["step"])


def test_a_time_range_has_finer_points_and_totals_since_the_start(
    client: TestClient, job_id: str, database: Database
) -> None:
    store_losses(database, job_id, [2 + math.sin(step) for step in range(1, 36_001)])
    store_intervals(database, job_id, [(60.0 * minute, 60.0, 60.0, 100.0) for minute in range(600)])
    window = {"start": (START + timedelta(hours=1)).isoformat(), "end": (START + timedelta(minutes=62)).isoformat()}

    shown = series(client, job_id, points=60, **window)

    assert (shown["loss"]["step"][0], shown["loss"]["step"][-1]) == (3600, 3720)
    assert len(shown["loss"]["step"]) > 50
    minutes = [(start - START_MS) // 60_000 for start in shown["energy"]["start"]]
    assert minutes == [59, 60, 61, 62]
    assert shown["energy"]["energy_kwh"] == [pytest.approx((minute + 1) / 1000) for minute in minutes]


def test_a_time_range_that_ends_before_its_start_is_refused(client: TestClient, job_id: str) -> None:
    window = {"start": "2026-11-23T13:00:00Z", "end": "2026-11-23T12:00:00Z"}

    response = client.get(f"/jobs/{job_id}/series", params=window)

    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "start"


def store_evaluations(database: Database, job_id: str, losses: list[float]) -> None:
    with database.session() as session:
        for number, loss in enumerate(losses, start=1):
            at = START + timedelta(minutes=number)
            session.add(
                Evaluation(
                    job_id=job_id, step=4 * number, epoch=number / 2, at=at, loss=loss, accuracy=0.5, rouge_l=40.0
                )
            )


def test_evaluations_are_a_curve_of_their_own(client: TestClient, job_id: str, database: Database) -> None:
    store_evaluations(database, job_id, [2.5, 2.25])

    assert series(client, job_id)["evaluation"] == {
        "step": [4, 8],
        "epoch": [0.5, 1.0],
        "at": [START_MS + 60_000, START_MS + 120_000],
        "loss": [2.5, 2.25],
        "accuracy": [0.5, 0.5],
        "rouge_l": [40.0, 40.0],
    }


def test_of_many_evaluations_the_extremes_and_the_ends_are_kept(
    client: TestClient, job_id: str, database: Database
) -> None:
    losses = [2.0 + n % 7 / 100 for n in range(300)]
    losses[123], losses[200] = 0.5, 9.0
    store_evaluations(database, job_id, losses)

    shown = series(client, job_id, points=20)["evaluation"]

    assert len(shown["step"]) <= 22
    assert {0.5, 9.0} <= set(shown["loss"])
    assert (shown["step"][0], shown["step"][-1]) == (4, 1200)


def test_a_loss_that_is_not_finite_is_null_and_is_always_kept(
    client: TestClient, job_id: str, database: Database
) -> None:
    losses = [2.0] * 500
    losses[250], losses[400] = float("nan"), float("inf")
    store_losses(database, job_id, losses)

    shown = series(client, job_id, points=10)["loss"]

    by_step = dict(zip(shown["step"], shown["value"], strict=True))
    assert by_step[251] is None
    assert by_step[401] is None


def test_power_keeps_its_peaks_a_pause_stays_a_gap_and_totals_stay_exact(
    client: TestClient, job_id: str, database: Database
) -> None:
    before = [(60.0 * minute, 60.0, 900.0 if minute == 77 else 100.0, 200.0) for minute in range(200)]
    after = [(60.0 * minute, 60.0, 100.0, 5.0 if minute == 431 else None) for minute in range(400, 600)]
    store_intervals(database, job_id, [*before, *after])

    shown = series(client, job_id, points=20)["energy"]

    assert len(shown["start"]) <= 21
    assert 900.0 in shown["power_w"]
    assert 5.0 in shown["intensity_gco2e_per_kwh"]
    gaps = [(end, start) for end, start in zip(shown["end"][:-1], shown["start"][1:], strict=True) if start > end]
    assert gaps == [(START_MS + 200 * 60_000, START_MS + 400 * 60_000)], "left out intervals are no pause"
    assert (shown["start"][0], shown["end"][-1]) == (START_MS, START_MS + 600 * 60_000)
    assert shown["energy_kwh"][-1] == pytest.approx((399 * 100 + 900) / 60_000, rel=1e-5)
    assert shown["emissions_gco2e"][-1] == pytest.approx((199 * 100 + 900) / 60_000 * 200 + 100 / 60_000 * 5, rel=1e-5)
    for earlier, later in pairwise(shown["energy_kwh"]):
        assert earlier < later


def test_a_hundred_thousand_steps_are_returned_quickly_in_a_small_response(
    client: TestClient, job_id: str, database: Database
) -> None:
    with database.session() as session:
        session.execute(
            text(
                "INSERT INTO steps SELECT :job_id, n, :start + n * interval '1 second', 2 + random() "
                "FROM generate_series(1, 100000) n"
            ),
            {"job_id": job_id, "start": START},
        )
    store_intervals(database, job_id, [(60.0 * minute, 60.0, 100.0 + minute % 7, 200.0) for minute in range(1667)])
    series(client, job_id)

    started = time.perf_counter()
    response = client.get(f"/jobs/{job_id}/series", params={"points": 5000})
    seconds = time.perf_counter() - started

    assert len(response.json()["loss"]["step"]) > 4000
    assert len(response.content) < 300_000
    assert seconds < 1.5, "0.2 s on an idle machine"


def test_unchanged_series_are_not_sent_again(client: TestClient, job_id: str, database: Database) -> None:
    path = f"/jobs/{job_id}/series"
    first = client.get(path)
    held = {"If-None-Match": first.headers["etag"]}

    unchanged = client.get(path, headers=held)
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert unchanged.headers["etag"] == first.headers["etag"]
    assert client.get(path, params={"points": 99}, headers=held).status_code == 200

    with database.session() as session:
        job = JobRepository(session).lock(job_id)
        assert job is not None
        session.add(
            Epoch(
                job_id=job_id,
                number=1,
                attempt=1,
                started_at=START,
                rho_asked=0.5,
                reason="",
                intensity_estimated=False,
            )
        )
        JobRepository(session).record(job_id, "epoch.started", at=START)
    again = client.get(path, headers=held)
    assert again.status_code == 200
    assert again.json()["rho"]["asked"] == [0.5]


@pytest.mark.parametrize("points", ["9", "5001", "many"])
def test_a_number_of_points_out_of_range_is_refused(client: TestClient, job_id: str, points: str) -> None:
    response = client.get(f"/jobs/{job_id}/series", params={"points": points})

    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "points"


def test_the_series_of_another_owners_job_does_not_exist(bob: TestClient, job_id: str) -> None:
    for what in ("series", "selection", "checkpoints"):
        assert bob.get(f"/jobs/{job_id}/{what}").status_code == 404
