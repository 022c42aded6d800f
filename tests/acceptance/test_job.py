"""A job from submission to its result, on a real pretrained model and with real processes throughout."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from runtime.settings import Settings
from tests.acceptance.conftest import Service

MODEL = "SmolLM2-135M-Instruct"
POLICY = {
    "kind": "steps",
    "steps": [{"up_to": 150, "rho": 1.0}, {"up_to": 300, "rho": 0.7}, {"rho": 0.5}],
}
ROWS = "\n".join(
    json.dumps({"prompt": f"Colour of box {number}:", "completion": f" box {number} is green"}) for number in range(10)
)


@pytest.fixture
def settings(settings: Settings, pretrained: Path) -> Settings:
    """Reuse the model that was converted once."""
    settings.models_dir.mkdir(parents=True)
    (settings.models_dir / MODEL).symlink_to(pretrained)
    return settings


def test_a_job_is_trained_under_its_policy_and_its_result_can_be_downloaded(
    service: Service, pretrained: Path, tmp_path: Path
) -> None:
    dataset = service.upload(ROWS)
    job_id = service.submit(
        model=MODEL,
        dataset=dataset,
        policy=POLICY,
        hyperparameters={
            "epochs": 2,
            "learning_rate": 1e-4,
            "eval_share": 0.2,
            "max_new_tokens": 8,
            "sample_prompt": "Colour of box 77:",
        },
    )
    assert service.job(job_id)["status"] == "validating"  # accepted, though nothing else runs yet

    for command in (["scheduler"], ["worker", "prepare"], ["worker", "train"]):
        service.start(*command)
    job = service.wait_for(job_id, "succeeded")

    types = service.event_types(job_id)
    milestones = ["job.submitted", "job.queued", "job.dispatched", "job.running", "training.started"]
    epochs = ["epoch.started", "epoch.finished"] * 2
    # Prices become final in the scheduler's own time, perhaps before this reads the events.
    assert [kind for kind in types if kind != "emissions.settled"] == [*milestones, *epochs, "job.succeeded"]

    rows = service.get(f"/jobs/{job_id}/epochs")["data"]
    by_number = sorted(rows, key=lambda row: int(row["number"]))
    for row in by_number:
        intensity, rho = row["intensity"]["gco2e_per_kwh"], row["rho_asked"]
        assert rho == (1.0 if intensity <= 150 else 0.7 if intensity <= 300 else 0.5)
        assert rho - 0.02 < row["rho_reached"] <= rho
    with service.database.engine.connect() as connection:
        metered = connection.exec_driver_sql(
            "SELECT sum(cpu_kwh + gpu_kwh + ram_kwh), sum(emissions_gco2e), count(*) FROM energy_intervals"
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
    base = dict(AutoModelForCausalLM.from_pretrained(pretrained).named_parameters())
    changed = {name for name, p in tuned.named_parameters() if not torch.equal(p, base[name])}
    assert changed

    jobs = service.settings.data_dir / "jobs"
    assert [path for path in (jobs, *jobs.rglob("*")) if path.stat().st_mode & 0o077] == []

    selection = service.get(f"/jobs/{job_id}/selection")
    names = [tensor["name"] for tensor in selection["tensors"]]
    assert set(names) == set(base)
    assert changed <= {names[index] for epoch in selection["data"] for index in epoch["trained"]}
    for epoch in selection["data"]:
        assert (epoch["importance"] is None) == (epoch["rho_asked"] == 1.0)
    series = service.get(f"/jobs/{job_id}/series")
    assert series["loss"]["step"] == list(range(1, job["progress"]["steps"] + 1))
    assert series["energy"]["energy_kwh"][-1] == pytest.approx(job["energy_kwh"], rel=1e-4)

    # The model's ρ floor has been measured: a lower ρ is refused at submission.
    answer = service.client.post(
        "/jobs",
        json={
            "model": MODEL,
            "dataset": dataset,
            "policy": {"kind": "steps", "steps": [{"up_to": 150, "rho": 1.0}, {"rho": 0.2}]},
        },
    )
    assert answer.status_code == 422
    [error] = answer.json()["errors"]
    assert error["field"] == "policy.steps[1].rho"
    assert str(round(service.get("/models")["data"][0]["rho_floor"], 2)) in error["message"]
