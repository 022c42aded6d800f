"""`POST /policies/simulate`: backtest of a policy with its basis, within limits."""

import math
import threading
import time
from datetime import datetime
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.policies import simulation
from greencore.carbon import IntensitySeries, Reading
from greencore.clock import HOUR
from greencore.policy import backtest, parse_policy
from store.database import Database
from store.intensity.readings import GridRepository

DAYS = 20
PAUSE = {"kind": "constant", "rho": 1.0, "gate": {"mode": "pause", "min_saving": 0.0}}
RUN = {"policy": PAUSE, "work_hours": 4, "epochs": 4, "deadline_hours": 24}


def intensity(hour: int) -> float:
    """Return the intensity of an hour of a day that is cleanest at its twelfth."""
    return 200 + 100 * math.cos(2 * math.pi * hour / 24)


def error_fields(response: Any) -> list[str]:
    """Return the fields that a refusal names."""
    assert response.status_code == 422, response.text
    assert response.headers["content-type"] == "application/problem+json"
    return [error["field"] for error in response.json()["errors"]]


def readings(now: datetime, hours: int = DAYS * 24, **fields: Any) -> list[Reading]:
    """Return readings of the last `hours` hours."""
    begin = now - hours * HOUR
    defaults = {"zone": "FR", "source": "uk", "estimated": False, "fetched_at": now}
    return [
        Reading(
            start=begin + index * HOUR,
            end=begin + (index + 1) * HOUR,
            gco2e_per_kwh=intensity(index),
            **{**defaults, **fields},
        )
        for index in range(hours)
    ]


def uploads(now: datetime, hours: int = DAYS * 24) -> list[dict[str, Any]]:
    """Return the same readings as a request contains them."""
    return [
        {"start": reading.start.isoformat(), "gco2e_per_kwh": reading.gco2e_per_kwh} for reading in readings(now, hours)
    ]


@pytest.fixture
def french_history(database: Database, now: datetime) -> list[Reading]:
    """Store twenty days of FR, of which the last two are estimates."""
    history = readings(now)
    history[-48:] = readings(now, 48, estimated=True)
    with database.session() as session:
        GridRepository(session).put(history)
    return history


def test_a_simulation_on_stored_readings_equals_the_backtest(
    client: TestClient, french_history: list[Reading], now: datetime
) -> None:
    answer = client.post("/policies/simulate", json={**RUN, "zone": "FR"})

    assert answer.status_code == 200, answer.text
    found = answer.json()
    expected = backtest(
        parse_policy(PAUSE),
        IntensitySeries(french_history),
        start=None,
        work_hours=4,
        epochs=4,
        deadline_hours=24,
    )
    for figure in ("emissions_g", "baseline_g", "constant_g", "oracle_g", "oracle_share", "moved_in_time_saving"):
        assert found[figure] == pytest.approx(getattr(expected, figure)), figure
    assert found["moved_in_time_saving"] > 0.2
    assert found["less_work_saving"] == 0
    assert (found["work_share"], found["epochs_run"], found["on_time_share"]) == (1, 4, 1)
    assert found["starts"] == DAYS * 24 - 24 + 1
    assert (found["finish"], found["decisions"]) == (None, [])
    spread = found["spread"]["emissions_g"]
    assert spread["p05"] <= spread["p50"] <= spread["p95"]
    basis = found["basis"]
    assert basis["estimated"] is True
    assert (basis["zone"], basis["sources"], basis["signal"]) == ("FR", ["uk"], "average")
    assert (basis["readings"], basis["estimated_readings"], basis["covered_share"]) == (480, 48, 1)
    assert datetime.fromisoformat(basis["from"]) == now - DAYS * 24 * HOUR
    assert datetime.fromisoformat(basis["to"]) == now
    assert basis["forecast"] == "own"
    assert any("our own forecast" in assumption for assumption in basis["assumptions"])
    assert any("300 W" in assumption for assumption in basis["assumptions"])


@pytest.mark.usefixtures("french_history")
def test_a_simulation_of_one_start_lists_its_decisions(client: TestClient, now: datetime) -> None:
    start = now - 5 * 24 * HOUR

    found = client.post(
        "/policies/simulate", json={**RUN, "zone": "FR", "start": start.isoformat(), "forecast": "perfect"}
    ).json()

    assert (found["starts"], found["spread"]) == (1, None)
    assert found["oracle_share"] == pytest.approx(1, abs=0.02)
    decisions = found["decisions"]
    assert [decision["rho"] for decision in decisions if decision["action"] == "epoch"] == [1.0] * 4
    assert decisions[-1]["action"] == "finish"
    assert decisions[-1]["time"] == found["finish"]
    assert all(decision["reason"] for decision in decisions)
    assert start < datetime.fromisoformat(found["finish"]) <= start + 24 * HOUR
    # Readings a year back from the window's end, not from now.
    assert datetime.fromisoformat(found["basis"]["to"]) == start + 25 * HOUR


def test_uploaded_readings_give_the_same_result_as_stored_ones(
    client: TestClient, french_history: list[Reading], now: datetime
) -> None:
    stored = client.post("/policies/simulate", json={**RUN, "zone": "FR"}).json()
    uploaded = client.post("/policies/simulate", json={**RUN, "series": uploads(now)}).json()

    assert uploaded["emissions_g"] == pytest.approx(stored["emissions_g"])
    assert (uploaded["basis"]["zone"], uploaded["basis"]["sources"]) == (None, ["uploaded"])
    assert uploaded["basis"]["covered_share"] == 1


def test_a_stored_policy_is_simulated_by_its_name(client: TestClient, now: datetime) -> None:
    client.post("/policies", json={"name": "half", "policy": {"kind": "constant", "rho": 0.5}})

    found = client.post("/policies/simulate", json={**RUN, "policy": "half", "series": uploads(now)}).json()

    assert found["work_share"] == pytest.approx(0.5)
    assert found["moved_in_time_saving"] == 0
    assert found["less_work_saving"] == pytest.approx(0.5, abs=0.1)


def test_a_gap_in_uploaded_readings_is_not_covered(client: TestClient, now: datetime) -> None:
    series = uploads(now)
    del series[100:148]

    found = client.post("/policies/simulate", json={**RUN, "series": series}).json()

    assert found["basis"]["covered_share"] == pytest.approx(0.9)


def test_readings_of_changing_spacing_cover_all_of_their_time(client: TestClient, now: datetime) -> None:
    series = uploads(now)
    half = [
        {"start": (now + part * HOUR / 2).isoformat(), "gco2e_per_kwh": 200.0} for part in range(2 * len(series) + 2)
    ]

    found = client.post("/policies/simulate", json={**RUN, "series": [*series, *half]}).json()

    assert found["basis"]["covered_share"] == 1


def test_the_requested_signal_of_a_zone_is_simulated(
    client: TestClient, database: Database, french_history: list[Reading], now: datetime
) -> None:
    with database.session() as session:
        GridRepository(session).put(readings(now, 100, signal="marginal", source="watttime", fetched_at=now - HOUR))

    found = client.post("/policies/simulate", json={**RUN, "zone": "FR", "signal": "marginal"}).json()

    assert (found["basis"]["signal"], found["basis"]["sources"]) == ("marginal", ["watttime"])
    assert found["basis"]["readings"] == 100


@pytest.mark.usefixtures("french_history")
def test_the_requested_range_of_stored_readings_is_simulated(client: TestClient, now: datetime) -> None:
    span = {"from": (now - 72 * HOUR).isoformat(), "to": (now - 24 * HOUR).isoformat()}

    basis = client.post("/policies/simulate", json={**RUN, "zone": "FR", **span}).json()["basis"]

    assert datetime.fromisoformat(basis["from"]) == now - 72 * HOUR
    assert datetime.fromisoformat(basis["to"]) == now - 24 * HOUR


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"policy": {"kind": "quota"}}, "policy.kind"),
        ({"policy": "unknown"}, "policy"),
        ({"policy": {**PAUSE, "gate": {"mode": "wait"}}}, "policy.gate.mode"),
        ({"work_hours": 0}, "work_hours"),
        ({"work_hours": "long"}, "work_hours"),
        ({"epochs": 0}, "epochs"),
        ({"deadline_hours": -1}, "deadline_hours"),
        ({"forecast": "tarot"}, "forecast"),
        ({"power_w": 0}, "power_w"),
        ({"idle_power_w": -1}, "idle_power_w"),
        ({"start": "2026-11-20T00:00:00"}, "start"),
        ({"start": "2026-11-23T00:00:00Z"}, "start"),
        ({"start": "2020-01-01T00:00:00Z"}, "zone"),
        ({"start": "2020-01-01T00:00:00Z", "from": "2020-01-01T00:00:00Z", "to": "2026-11-23T00:00:00Z"}, "start"),
        ({"from": "2026-11-23T00:00:00Z", "to": "2026-11-22T00:00:00Z"}, "from"),
        ({"zone": "XX"}, "zone"),
        ({"zone": "DE"}, "zone"),
        ({"zone": None}, "zone"),
        ({"signal": "marginal"}, "zone"),
        ({"series": []}, "zone"),
        ({"colour": "green"}, "colour"),
        ({"deadline_hours": 1000}, "zone"),
    ],
)
@pytest.mark.usefixtures("french_history")
def test_an_invalid_field_is_refused_by_name(client: TestClient, changed: dict[str, Any], field: str) -> None:
    response = client.post("/policies/simulate", json={**RUN, "zone": "FR", **changed})

    assert error_fields(response) == [field]


@pytest.mark.parametrize(
    ("index", "changed", "field"),
    [
        (3, {"start": "yesterday"}, "series[3].start"),
        (3, {"start": "2026-11-20T00:00:00"}, "series[3].start"),
        (3, {"start": "2020-01-01T00:00:00Z"}, "series[3].start"),
        (3, {"gco2e_per_kwh": -1}, "series[3].gco2e_per_kwh"),
        (3, {"gco2e_per_kwh": 1e9}, "series[3].gco2e_per_kwh"),
        (3, {"gco2e_per_kwh": None}, "series[3].gco2e_per_kwh"),
        (3, {"signal": "marginal"}, "series[3].signal"),
        (3, {"end": "2020-01-01T00:00:00Z"}, "series[3].end"),
        (2, {"end": "2026-11-23T11:00:00Z"}, "series[3].start"),
        (3, {"colour": "green"}, "series[3].colour"),
    ],
)
def test_an_invalid_uploaded_reading_is_named_by_its_index(
    client: TestClient, now: datetime, index: int, changed: dict[str, Any], field: str
) -> None:
    series = uploads(now)
    series[index].update(changed)

    assert error_fields(client.post("/policies/simulate", json={**RUN, "series": series})) == [field]


@pytest.mark.parametrize(
    ("series", "field"),
    [
        ([], "series"),
        ("hourly", "series"),
        ([17], "series[0]"),
        ([{"start": "2026-11-20T00:00:00Z", "gco2e_per_kwh": 5}], "series[0].end"),
        ([{"start": f"{year}-11-20T00:00:00Z", "gco2e_per_kwh": 5} for year in (2020, 2026)], "series"),
    ],
)
def test_uploaded_readings_that_form_no_series_are_refused(client: TestClient, series: Any, field: str) -> None:
    assert error_fields(client.post("/policies/simulate", json={**RUN, "series": series})) == [field]


def test_a_zone_without_enough_history_is_refused_with_its_range(
    client: TestClient, database: Database, now: datetime
) -> None:
    with database.session() as session:
        GridRepository(session).put(readings(now, 10))

    response = client.post("/policies/simulate", json={**RUN, "zone": "FR"})

    assert error_fields(response) == ["zone"]
    assert "10 h" in response.json()["detail"]
    assert "24 h" in response.json()["detail"]


def test_readings_that_cover_too_little_of_their_time_are_refused(
    client: TestClient, database: Database, now: datetime
) -> None:
    with database.session() as session:
        GridRepository(session).put(readings(now)[::3])

    response = client.post("/policies/simulate", json={**RUN, "zone": "FR"})

    assert error_fields(response) == ["zone"]
    assert "cover 33%" in response.json()["detail"]


def test_a_simulation_above_the_effort_limit_is_refused_with_an_alternative(client: TestClient, now: datetime) -> None:
    five_minutes = [
        {"start": (now + index * HOUR / 12).isoformat(), "gco2e_per_kwh": 100 + index % 7}
        for index in range(12 * 24 * 90)
    ]
    run = {**RUN, "work_hours": 50, "deadline_hours": 168, "series": five_minutes}

    response = client.post("/policies/simulate", json=run)

    assert error_fields(response) == ["start"]
    assert "give one start" in response.json()["detail"]
    start = now + 60 * 24 * HOUR
    assert client.post("/policies/simulate", json={**run, "start": start.isoformat()}).status_code == 200


def test_more_readings_than_a_year_of_five_minutes_are_refused(client: TestClient) -> None:
    response = client.post("/policies/simulate", json={**RUN, "series": [0] * 110_001})

    assert error_fields(response) == ["series"]
    assert "110,000" in response.json()["detail"]


def test_other_requests_are_served_during_simulations_and_a_third_is_refused(
    client: TestClient, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, go_on = threading.Semaphore(0), threading.Event()

    def slow(*arguments: Any, **named: Any) -> Any:
        running.release()
        go_on.wait(20)
        return backtest(*arguments, **named)

    monkeypatch.setattr(simulation, "backtest", slow)
    body = {**RUN, "series": uploads(now)}
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda: answers.append(client.post("/policies/simulate", json=body).status_code))
        for _ in range(simulation.MAX_CONCURRENT_SIMULATIONS)
    ]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert running.acquire(timeout=20)

    began = time.monotonic()
    assert client.get("/livez").status_code == 200
    third = client.post("/policies/simulate", json=body)
    assert time.monotonic() - began < 10
    go_on.set()
    for thread in threads:
        thread.join()

    assert third.status_code == 503
    assert int(third.headers["retry-after"]) > 0
    assert answers == [200, 200]
    assert client.post("/policies/simulate", json=body).status_code == 200
