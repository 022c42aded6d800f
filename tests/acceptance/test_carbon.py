"""Jobs that follow the grid: paused and resumed by their gate, and held to a budget, by real processes."""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from runtime.settings import Settings
from runtime.site import Site
from tests.acceptance.conftest import Service, write_small_catalogue

ROWS = "\n".join(json.dumps({"prompt": f"w{n % 60} w1 w2 " * 4, "completion": " w7 w8 w9"}) for n in range(240))
HYPERPARAMETERS = {"epochs": 8, "eval_share": 0.02, "max_new_tokens": 4, "learning_rate": 1e-3}
# Three quarters of each half minute clean, one dirty: no run of 24 epochs fits between two dirty times.
HALF_MINUTES = "datetime,gco2e_per_kwh\n" + "".join(
    f"2026-06-01T{hour:02d}:00:00Z,{value}\n" for hour, value in enumerate([200, 200, 200, 400] * 6)
)


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return settings.model_copy(update={"catalogue": write_small_catalogue(tmp_path)})


@pytest.fixture
def service(service: Service, tmp_path: Path) -> Service:
    grid = tmp_path / "minutes.csv"
    grid.write_text(HALF_MINUTES)
    zones = {"X": f"trace:{grid}?speed=480&anchor=2026-11-01T00:00:00Z"}
    service.settings = service.settings.model_copy(update={"zones": zones, "site": Site(zone="X", pue=1.5)})
    for command in (["scheduler"], ["worker", "prepare"], ["worker", "train"]):
        service.start(*command)
    return service


def job_of(dataset: str, policy: dict[str, Any], *, epochs: int) -> dict[str, Any]:
    hyperparameters = {**HYPERPARAMETERS, "epochs": epochs}
    return {"model": "small", "dataset": dataset, "zone": "X", "policy": policy, "hyperparameters": hyperparameters}


def submit(service: Service, dataset: str, policy: dict[str, Any], *, epochs: int) -> str:
    return service.submit(**job_of(dataset, policy, epochs=epochs))


def stops_by_gate(types: Sequence[str]) -> int:
    """How often the gate stopped the job; where it closes after the last step, the job goes on to its end."""
    of_job = [kind for kind in types if kind.startswith("job.") or kind == "gate.closed"]
    return sum(kind == "gate.closed" and then != "job.succeeded" for kind, then in pairwise(of_job))


def test_a_gate_pauses_a_running_job_which_resumes_from_that_step(service: Service) -> None:
    gate = {"mode": "none", "pause_above": 300.0, "resume_below": 250.0}
    dataset = service.upload(ROWS)
    job_id = submit(service, dataset, {"kind": "constant", "rho": 0.6, "gate": gate}, epochs=24)
    job = service.wait_for(job_id, "succeeded")

    types = service.event_types(job_id)
    assert stops_by_gate(types) >= 1
    assert types.count("job.running") == stops_by_gate(types) + 1
    reasons = service.event_reasons(job_id)
    assert any("is above pause_above 300" in reason for reason in reasons)
    started = [event["data"] for event in service.events(job_id) if event["type"] == "training.started"]
    steps = [data["steps_done"] for data in started]
    assert steps == sorted(steps)
    assert steps[1] > 0
    epochs = service.get(f"/jobs/{job_id}/epochs")["data"]
    assert sorted(row["number"] for row in epochs) == list(range(1, 25))
    assert all(row["finished_at"] for row in epochs)
    assert job["energy_kwh"] > 0


def test_a_budget_is_refused_where_it_cannot_be_kept_and_kept_where_it_can(service: Service) -> None:
    dataset = service.upload("\n".join(ROWS.splitlines()[:80]))
    first = submit(service, dataset, {"kind": "constant", "rho": 0.6}, epochs=3)
    measured = service.wait_for(first, "succeeded")
    an_epoch_gco2e = measured["emissions_gco2e"] / 3 / 0.6

    # The device's pace and the rows are measured already: the refusal comes at once.
    refused = service.client.post("/jobs", json=job_of(dataset, budget(an_epoch_gco2e / 100), epochs=8))
    assert refused.status_code == 422
    [error] = refused.json()["errors"]
    assert error["field"] == "policy.budget_gco2e"
    assert "the smallest that can be kept is" in error["message"]

    enough = 8 * 0.75 * an_epoch_gco2e
    kept = submit(service, dataset, budget(enough), epochs=8)
    job = service.wait_for(kept, "succeeded")
    assert 0 < job["emissions_gco2e"] < enough + 1.5 * an_epoch_gco2e
    rows = service.get(f"/jobs/{kept}/epochs")["data"]
    assert all(0.4 <= row["rho_asked"] <= 1.0 for row in rows)
    assert all("of " in row["reason"] and "gCO2e remain" in row["reason"] for row in rows)
    types = service.event_types(kept)
    assert types.count("epoch.finished") == 8 or "budget.exhausted" in types


def budget(gco2e: float) -> dict[str, Any]:
    return {"kind": "budget", "budget_gco2e": gco2e, "rho_max": 1.0, "rho_min": 0.4}
