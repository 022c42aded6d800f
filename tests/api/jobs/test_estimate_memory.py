"""The memory of an estimate: the peak of a prepared job with the same settings, beside the largest live device."""

from typing import Any

from fastapi.testclient import TestClient

from planning.compute_costs import RowCosts
from runtime.site import Site
from store.database import Database
from store.lifecycle.status import JobStatus
from store.repositories.models import ModelRepository
from store.repositories.workers import WorkerRepository
from store.tables import Job
from tests.api.conftest import MODEL, NOW

ESTIMATE = {"full_flops": 1e12, "training_rows": 1, "tokens_per_epoch": 16, "steps": 1, "peak_memory_bytes": 23 * 10**9}


def test_the_peak_is_that_of_a_job_with_the_same_settings(
    client: TestClient, database: Database, dataset_id: str
) -> None:
    with database.session() as session:
        workers = WorkerRepository(session)
        for name, size in (("small", 16), ("large", 80)):
            site = Site(zone="FR")
            workers.record_heartbeat(
                name, site=site, device="NVIDIA H100", memory_bytes=size * 10**9, computes_bf16=True
            )
        workers.record_heartbeat("elsewhere", site=Site(zone="ES"), memory_bytes=10**12)
        workers.record_heartbeat("prepares", role="prepare", memory_bytes=10**12)
        costs = RowCosts((2e8, 0.0), (6e8, 0.0), {"full": 1.0}).to_json()
        ModelRepository(session).put(MODEL, parameters=10**8, tensors=100, rho_floor=0.35, costs=costs, at=NOW)
        session.add(
            Job(
                id="job_prepared",
                status=JobStatus.SUCCEEDED,
                model=MODEL,
                dataset_id=dataset_id,
                method="greentrainer",
                policy={"kind": "constant", "rho": 0.5},
                priority=0,
                hyperparameters={"epochs": 1, "optimizer": "sgd"},
                labels={},
                created_at=NOW,
                epochs=1,
                estimate=ESTIMATE,
            )
        )

    def memory(rho: float, **hyperparameters: Any) -> Any:
        policy = {"kind": "constant", "rho": rho}
        body = {"model": MODEL, "dataset": dataset_id, "zone": "FR", "policy": policy}
        answer = client.post("/jobs/estimate", json={**body, "hyperparameters": hyperparameters})
        assert answer.status_code == 200, answer.text
        return answer.json()["memory"]

    found = memory(0.5, optimizer="sgd", epochs=7)
    assert (found["peak_bytes"], found["device_bytes"]) == (23 * 10**9, 80 * 10**9)
    for other in (memory(0.6, optimizer="sgd"), memory(0.5), memory(0.5, optimizer="sgd", micro_batch_size=1)):
        assert (other["peak_bytes"], other["device_bytes"]) == (None, 80 * 10**9)
        assert "as the job is prepared" in other["basis"]
    bf16 = {worker["id"]: worker["computes_bf16"] for worker in client.get("/workers").json()["data"]}
    assert bf16 == {"small": True, "large": True, "elsewhere": None, "prepares": None}
    listed = {worker["id"]: worker["memory_bytes"] for worker in client.get("/workers").json()["data"]}
    assert listed == {"small": 16 * 10**9, "large": 80 * 10**9, "elsewhere": 10**12, "prepares": None}
