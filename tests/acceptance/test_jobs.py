"""Jobs from submission to their result, which follow the grid, by real processes that these tests share.

The real pretrained model goes the same way, through `greentune serve`, in `tests/docs/test_commands.py`.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.acceptance.conftest import Service, start_quick_service, wait_until
from tests.databases import DatabasePool

MODEL = "small"
STEPS = {"kind": "steps", "steps": [{"up_to": 150, "rho": 1.0}, {"up_to": 300, "rho": 0.7}, {"rho": 0.6}]}
ROWS = [json.dumps({"prompt": f"w{n % 60} w1 w2 " * 4, "completion": " w7 w8 w9"}) for n in range(240)]
HYPERPARAMETERS = {"eval_share": 0.02, "max_new_tokens": 4, "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def service(databases: DatabasePool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    with start_quick_service(databases, folder) as service:
        yield service


def job_of(dataset: str, policy: dict[str, Any], **hyperparameters: Any) -> dict[str, Any]:
    return {
        "model": MODEL,
        "dataset": dataset,
        "zone": "X",
        "method": "greentrainer",
        "policy": policy,
        "hyperparameters": {**HYPERPARAMETERS, **hyperparameters},
    }


def test_a_job_is_trained_under_its_policy_and_its_result_can_be_downloaded(service: Service, tmp_path: Path) -> None:
    dataset = service.upload("\n".join(ROWS[:40]))
    job_id = service.submit(**job_of(dataset, STEPS, epochs=2, eval_share=0.1, sample_prompt="w1 w2"))
    job = service.wait_for(job_id, "succeeded")

    types = service.event_types(job_id)
    milestones = ["job.submitted", "job.queued", "job.dispatched", "job.running", "training.started"]
    epochs = ["epoch.started", "epoch.finished"] * 2
    # Prices become final in the scheduler's own time, perhaps before this reads the events.
    assert [kind for kind in types if kind != "emissions.settled"] == [*milestones, *epochs, "job.succeeded"]

    rows = service.get(f"/jobs/{job_id}/epochs")["data"]
    by_number = sorted(rows, key=lambda row: int(row["number"]))
    for row in by_number:
        assert (row["intensity"]["gco2e_per_kwh"], row["rho_asked"]) == (200.0, 0.7)
        assert 0.68 < row["rho_reached"] <= 0.7
    with service.database.engine.connect() as connection:
        metered = connection.exec_driver_sql(
            "SELECT sum(cpu_kwh + gpu_kwh + ram_kwh), sum(emissions_gco2e), count(*) FROM energy_intervals"
            f" WHERE job_id = '{job_id}'"
        ).one()
    assert job["energy_kwh"] > 0
    assert job["energy_kwh"] == pytest.approx(metered[0])
    assert job["emissions_gco2e"] > 0
    assert job["emissions_gco2e"] == pytest.approx(metered[1])

    for artifact in service.get(f"/jobs/{job_id}/artifacts")["data"]:
        answer = service.client.get(f"/jobs/{job_id}/artifacts/{artifact['name']}")
        assert len(answer.content) == artifact["bytes"]
        target = tmp_path / "downloaded" / artifact["name"]
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(answer.content)
    tuned = AutoModelForCausalLM.from_pretrained(tmp_path / "downloaded")
    assert service.settings.catalogue is not None
    base_folder = service.settings.catalogue.parent / MODEL
    base = dict(AutoModelForCausalLM.from_pretrained(base_folder).named_parameters())
    changed = {name for name, p in tuned.named_parameters() if not torch.equal(p, base[name])}
    assert changed

    jobs = service.settings.data_dir / "jobs"
    assert [path for path in (jobs, *jobs.rglob("*")) if path.stat().st_mode & 0o077] == []

    selection = service.get(f"/jobs/{job_id}/selection")
    names = [tensor["name"] for tensor in selection["tensors"]]
    assert set(names) == set(base)
    assert changed <= {names[index] for epoch in selection["data"] for index in epoch["trained"]}
    assert all(epoch["importance"] is not None for epoch in selection["data"])
    series = service.get(f"/jobs/{job_id}/series")
    assert series["loss"]["step"] == list(range(1, job["progress"]["steps"] + 1))
    assert series["energy"]["energy_kwh"][-1] == pytest.approx(job["energy_kwh"], rel=1e-4)

    # The model's ρ floor has been measured: a lower ρ is refused at submission.
    too_low = {"kind": "steps", "steps": [{"up_to": 150, "rho": 1.0}, {"rho": 0.2}]}
    answer = service.client.post("/jobs", json=job_of(dataset, too_low))
    assert answer.status_code == 422
    [error] = answer.json()["errors"]
    assert error["field"] == "policy.steps[1].rho"
    [least] = re.findall(r"needs at least (\S+) to train", error["message"])
    assert float(least) == pytest.approx(service.get("/models")["data"][0]["rho_floor"], abs=1e-4)


def test_a_budget_is_refused_where_it_cannot_be_kept_and_kept_where_it_can(service: Service) -> None:
    dataset = service.upload("\n".join(ROWS[:80]))
    first = service.submit(**job_of(dataset, {"kind": "constant", "rho": 0.6}, epochs=3))
    measured = service.wait_for(first, "succeeded")
    an_epoch_gco2e = measured["emissions_gco2e"] / 3 / 0.6

    # The device's pace and the rows are measured already: the refusal comes at once.
    refused = service.client.post("/jobs", json=job_of(dataset, budget(an_epoch_gco2e / 100), epochs=8))
    assert refused.status_code == 422
    [error] = refused.json()["errors"]
    assert error["field"] == "policy.budget_gco2e"
    assert "the smallest that can be kept is" in error["message"]

    enough = 8 * 0.75 * an_epoch_gco2e
    kept = service.submit(**job_of(dataset, budget(enough), epochs=8))
    job = service.wait_for(kept, "succeeded")
    assert 0 < job["emissions_gco2e"] < enough + 1.5 * an_epoch_gco2e
    rows = service.get(f"/jobs/{kept}/epochs")["data"]
    assert all(0.4 <= row["rho_asked"] <= 1.0 for row in rows)
    assert all("of " in row["reason"] and "gCO2e remain" in row["reason"] for row in rows)
    types = service.event_types(kept)
    assert types.count("epoch.finished") == 8 or "budget.exhausted" in types


def budget(gco2e: float) -> dict[str, Any]:
    return {"kind": "budget", "budget_gco2e": gco2e, "rho_max": 1.0, "rho_min": 0.4}


def test_a_gate_pauses_a_running_job_which_resumes_from_that_step(service: Service) -> None:
    gate = {"mode": "none", "pause_above": 300.0, "resume_below": 250.0}
    dataset = service.upload("\n".join(ROWS))
    job_id = service.submit(**job_of(dataset, {"kind": "constant", "rho": 0.6, "gate": gate}, epochs=8))
    wait_until("it trains", lambda: service.job(job_id)["progress"]["steps_done"] > 0)
    service.set_intensity(400.0)
    stopped_after = service.wait_for(job_id, "deferred")["progress"]["steps_done"]
    service.set_intensity(200.0)
    job = service.wait_for(job_id, "succeeded")

    types = service.event_types(job_id)
    assert (types.count("gate.closed"), types.count("job.running")) == (1, 2)
    reasons = service.event_reasons(job_id)
    assert any("is above pause_above 300" in reason for reason in reasons)
    started = [event["data"] for event in service.events(job_id) if event["type"] == "training.started"]
    assert [data["steps_done"] for data in started] == [0, stopped_after]
    epochs = service.get(f"/jobs/{job_id}/epochs")["data"]
    assert sorted(row["number"] for row in epochs) == list(range(1, 9))
    assert all(row["finished_at"] for row in epochs)
    assert job["energy_kwh"] > 0


def test_the_method_of_a_job_that_leaves_it_open_is_chosen_trained_and_told(service: Service) -> None:
    dataset = service.upload("\n".join(ROWS[:40]))
    given = {"epochs": 1, "eval_share": 0.1}
    body = {
        "model": MODEL,
        "dataset": dataset,
        "zone": "X",
        "policy": {"kind": "constant", "rho": 0.5},
        "hyperparameters": given,
    }
    job = service.wait_for(service.submit(**body), "succeeded")
    assert (job["method"], job["method_requested"], job["hyperparameters_requested"]) == ("lora", "auto", given)
    assert job["hyperparameters"]["lora"]["targets"] == "all-linear"
    [chosen] = [event for event in service.events(job["id"]) if event["type"] == "method.chosen"]
    assert chosen["data"] == {"method": "lora", "reason": job["method_reason"]}
    steps_per_epoch, estimate = 9, job["estimate"]
    [epoch] = service.get(f"/jobs/{job['id']}/epochs")["data"]
    full_epoch = estimate["full_flops"] / estimate["steps"] * steps_per_epoch
    assert 0.5 - 1 / steps_per_epoch < epoch["flops"] / full_epoch < 0.5 * 1.1  # by the rows that come first
    card = service.client.get(f"/jobs/{job['id']}/artifacts/README.md").text
    assert "| method | `lora`, chosen for `auto` |" in card
    assert job["method_reason"] in card


def test_a_result_is_trained_further_in_stages(service: Service) -> None:
    dataset = service.upload("\n".join(ROWS[:40]))
    settings: dict[str, Any] = {"epochs": 1, "eval_share": 0.1}
    policy = {"kind": "constant", "rho": 0.7}
    adaptive = {"never_train": ["*.embed_tokens.*"], "always_train": ["model.norm.weight"]}
    first = service.submit(**job_of(dataset, policy, result="delta", adaptive=adaptive, **settings))
    unfinished = service.client.post("/jobs", json={**job_of(dataset, policy), "model": first})
    assert unfinished.status_code == 422
    assert "can be used once it has succeeded" in unfinished.json()["errors"][0]["message"]
    begun = service.wait_for(first, "succeeded")
    lora = {"rank": 4, "targets": "all-linear", "result": "adapter"}
    stage = {**job_of(dataset, policy, lora=lora, **settings), "model": first, "method": "lora"}
    predicted = service.client.post("/jobs/estimate", json=stage)
    assert predicted.status_code == 200, predicted.text
    second = service.submit(**stage)
    job = service.wait_for(second, "succeeded")
    assert (job["model"], job["base_job"]) == (MODEL, first)
    before, after = begun["evaluation"]["eval_loss"]["after"], job["evaluation"]["eval_loss"]["before"]
    assert after == pytest.approx(before, abs=1e-5)

    card = service.client.get(f"/jobs/{second}/artifacts/README.md").text
    in_all = begun["energy_kwh"] + job["energy_kwh"]
    assert f"| in all |  |  | {in_all:.4g} |" in card
    selection = service.get(f"/jobs/{first}/selection")
    names = [tensor["name"] for tensor in selection["tensors"]]
    trained = {names[index] for epoch in selection["data"] for index in epoch["trained"]}
    assert "model.norm.weight" in trained
    assert not any("embed_tokens" in name for name in trained)
