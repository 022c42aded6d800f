"""Figures of an estimate, compared with hand-computed ones and with a measured run."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from greencore.clock import HOUR
from runtime.site import Site
from store.database import Database
from store.repositories.workers import WorkerRepository
from tests.api.conftest import MODEL, NOW
from tests.api.jobs.estimate.staged import (
    DEFER,
    PACE,
    UNEVALUATED,
    store_epochs,
    store_intensities,
    store_measured_job,
    store_prepared_job,
)


def test_estimates_of_now_and_of_the_best_window_match_a_manual_calculation(
    estimate: Any, database: Database, dataset_id: str, measured: None, worker: None
) -> None:
    """Two epochs of 1 h at 100 W. Now: 300 and 300 gCO2e/kWh; from 15:00 on 100 and 200."""
    store_measured_job(database, dataset_id, [1.0, 1.0, 1.0])
    store_intensities(database, [300, 300, 300, 100, 200, *[300] * 19])

    found = estimate(
        hyperparameters={"epochs": 2, **UNEVALUATED}, policy={"kind": "constant", "rho": 1.0, "gate": DEFER}
    ).json()

    now, best = found["now"], found["best"]
    assert now["starts_at"] == NOW.isoformat().replace("+00:00", "Z")
    assert best["starts_at"] == (NOW + 3 * HOUR).isoformat().replace("+00:00", "Z")
    startup = 1 / 60
    for run in (now, best):
        assert run["hours"]["expected"] == pytest.approx(2 + startup)
        assert run["energy_kwh"]["expected"] == pytest.approx(0.2 + 0.1 * startup)
        assert run["flops"]["expected"] == pytest.approx(2 * PACE["flops"])
    assert now["emissions_gco2e"]["expected"] == pytest.approx((0.2 + 0.1 * startup) * 300)
    assert best["emissions_gco2e"]["expected"] == pytest.approx((0.2 + 0.1 * startup) * 150)
    assert found["saving"]["share"] == pytest.approx(0.5)
    assert best["why"] == "the best window begins then"
    assert found["work"]["basis"] == "a job with the same model and rows that was prepared"
    assert (found["pace"]["assumed"], found["pace"]["device"]) == (False, "cpu")
    assert found["pace"]["basis"] == "recent epochs of its model on this device"
    assert found["place"]["step"] == "fresh"
    assert found["notes"] == []


def test_rho_of_each_epoch_follows_the_intensity_expected_then(
    estimate: Any, database: Database, dataset_id: str, measured: None, worker: None
) -> None:
    """The first epoch at 50 gCO2e/kWh has ρ = 1 and takes an hour; the second at 450 has ρ = 0.4."""
    store_epochs(database, store_prepared_job(database, dataset_id, hours=1.0), [1.0])
    store_intensities(database, [50, *[450] * 23])
    linear = {"kind": "linear", "clean": 100, "dirty": 400, "rho_max": 1.0, "rho_min": 0.4}

    now = estimate(policy=linear).json()["now"]

    assert now["rho"] == pytest.approx(0.7)
    assert now["gco2e_per_kwh"] == pytest.approx((50 * 1 + 450 * 0.4) / 1.4)


def test_pue_is_in_the_emissions_and_not_in_the_energy(
    estimate: Any, client: TestClient, database: Database, dataset_id: str, measured: None
) -> None:
    store_intensities(database, [300] * 24)
    plain = estimate().json()["now"]
    with database.session() as session:
        WorkerRepository(session).record_heartbeat("worker_1", site=Site(zone="FR", pue=1.5), device="cpu", at=NOW)
    assert estimate().json()["pue"] == 1.5
    dear = estimate().json()["now"]
    assert dear["energy_kwh"] == plain["energy_kwh"]
    assert dear["emissions_gco2e"]["expected"] == pytest.approx(1.5 * plain["emissions_gco2e"]["expected"])


def test_a_gate_that_pauses_computes_in_the_cleanest_hours(
    estimate: Any, database: Database, dataset_id: str, measured: None, worker: None
) -> None:
    store_measured_job(database, dataset_id, [1.0])
    store_intensities(database, [300, 100, 300, 300, 100, *[300] * 19])
    gate = {"mode": "pause", "max_delay_hours": 12}

    found = estimate(
        hyperparameters={"epochs": 2, **UNEVALUATED}, policy={"kind": "constant", "rho": 1.0, "gate": gate}
    ).json()

    assert found["best"]["gco2e_per_kwh"] == pytest.approx(100)
    assert found["best"]["hours"]["expected"] == pytest.approx(2 + 1 / 60)


def test_a_deadline_bounds_the_window(
    estimate: Any, database: Database, dataset_id: str, measured: None, worker: None
) -> None:
    store_measured_job(database, dataset_id, [1.0])
    store_intensities(database, [300, 300, 200, 200, 300, 50, 50, *[300] * 17])

    found = estimate(hyperparameters={"epochs": 2, **UNEVALUATED}, deadline=(NOW + 4.5 * HOUR).isoformat()).json()
    assert found["best"]["gco2e_per_kwh"] == pytest.approx(200)
    assert found["best"]["meets_deadline"] is True
    assert "starts at once" in found["notes"][0]

    late = estimate(hyperparameters={"epochs": 2, **UNEVALUATED}, deadline=(NOW + HOUR).isoformat()).json()
    assert (late["now"]["meets_deadline"], late["best"]["meets_deadline"]) == (False, False)
    assert late["best"]["starts_at"] == late["now"]["starts_at"]


def test_a_measured_run_is_within_the_bounds_of_its_estimate(
    estimate: Any, database: Database, dataset_id: str, measured: None, worker: None
) -> None:
    """Three earlier epochs that differed by a tenth predict how long the next two take."""
    store_measured_job(database, dataset_id, [0.95, 1.0, 1.08], outside_hours=0.2)
    store_intensities(database, [250] * 24)

    now = estimate(hyperparameters={"epochs": 2, **UNEVALUATED}).json()["now"]

    measured_hours = 1.06 + 0.93 + 0.22
    assert now["hours"]["low"] < measured_hours < now["hours"]["high"]
    assert now["hours"]["high"] / now["hours"]["low"] < 2.5
    kwh = measured_hours * PACE["kwh"]
    assert now["energy_kwh"]["low"] < kwh < now["energy_kwh"]["high"]
    assert now["emissions_gco2e"]["low"] < kwh * 260 < now["emissions_gco2e"]["high"]


def test_an_infeasible_budget_is_refused_and_the_estimate_names_the_smallest_feasible_one(
    estimate: Any, client: TestClient, database: Database, dataset_id: str, measured: None, worker: None
) -> None:
    """Two epochs at ρ = 0.5 and 300 gCO2e/kWh: 0.1 kWh, 30 gCO2e."""
    store_measured_job(database, dataset_id, [1.0, 1.0, 1.0])
    store_intensities(database, [300] * 24)
    body = {"model": MODEL, "dataset": dataset_id, "zone": "FR", "hyperparameters": {"epochs": 2, **UNEVALUATED}}

    def budget(gco2e: float) -> dict[str, Any]:
        return {"kind": "budget", "budget_gco2e": gco2e, "rho_max": 1.0, "rho_min": 0.5}

    told = estimate(policy=budget(10), hyperparameters=body["hyperparameters"]).json()["budget"]
    assert (told["smallest_gco2e"], told["can_be_kept"]) == (pytest.approx(30), False)
    assert estimate(policy=budget(29), hyperparameters=body["hyperparameters"]).json()["budget"]["can_be_kept"] is None
    assert estimate(policy=budget(60), hyperparameters=body["hyperparameters"]).json()["budget"]["can_be_kept"] is True

    refused = client.post("/jobs", json={**body, "policy": budget(10)})
    assert refused.status_code == 422
    [error] = refused.json()["errors"]
    assert error["field"] == "policy.budget_gco2e"
    assert "given 10: the smallest that can be kept is 30" in error["message"]
    assert client.post("/jobs", json={**body, "policy": budget(29)}).status_code == 201
    # Rows that no job has tokenised as this one does are not certain.
    other = {"epochs": 2, "max_length": 64}
    assert client.post("/jobs", json={**body, "policy": budget(10), "hyperparameters": other}).status_code == 201
