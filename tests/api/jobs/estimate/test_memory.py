"""The memory of an estimate: the peak of a similar prepared job, or the least that it takes, beside a live device's."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import event

from planning.compute_costs import RowCosts
from runtime.site import Site
from store.database import Database
from store.lifecycle.status import JobStatus
from store.repositories.models import ModelRepository
from store.repositories.workers import WorkerRepository
from store.tables import Dataset, Job
from tests.api.conftest import MODEL, NOW

STEP = {
    "precision": "bf16",
    "weights": 2 * 10**9,
    "gradients": 2 * 10**9,
    "optimizer_state": 8 * 10**9,
    "passes": 13 * 10**9,
    "step": 3 * 10**9,
    "measured_gradients": 2 * 10**9,
    "rows": 4,
    "tokens": 512,
    "several": False,
}
ESTIMATE = {
    "full_flops": 1e12,
    "training_rows": 1,
    "logits": "learned",
    "training_examples": 32,
    "tokens_per_epoch": 16,
    "steps": 1,
    "gradient_checkpointing": False,
    "peak_memory_bytes": 23 * 10**9,
    "step_memory": STEP,
}
WEIGHTS = 10**9  # of the model, which is not the one of the traced step


@pytest.fixture
def estimate(client: TestClient, database: Database, dataset_id: str) -> Callable[..., Any]:
    """Estimate a job in the zone of a small and a large device, after another was prepared; return the answer."""
    with database.session() as session:
        workers = WorkerRepository(session)
        for name, size in (("small", 16), ("large", 80)):
            workers.record_heartbeat(
                name,
                site=Site(zone="FR"),
                device="NVIDIA H100",
                memory_bytes=size * 10**9,
                computes_bf16=True,
            )
        workers.record_heartbeat("elsewhere", site=Site(zone="ES"), memory_bytes=10**12)
        workers.record_heartbeat("prepares", role="prepare", memory_bytes=10**12)
        session.get_one(Dataset, dataset_id).rows = 32
        costs = RowCosts((2e8, 0.0), (6e8, 0.0), {"full": 1.0}).to_json()
        ModelRepository(session).put(MODEL, parameters=WEIGHTS, tensors=100, rho_floor=0.35, costs=costs, at=NOW)
        session.add(prepared_job("job_prepared", dataset_id))

    def send(
        rho: float = 0.5,
        *,
        method: str = "greentrainer",
        zone: str | None = "FR",
        gpus: int = 1,
        **hyperparameters: Any,
    ) -> Any:
        policy = {"kind": "constant", "rho": rho}
        body = {"model": MODEL, "dataset": dataset_id, "zone": zone, "policy": policy, "method": method}
        body["resources"] = {"gpus": gpus}
        return client.post("/jobs/estimate", json={**body, "hyperparameters": hyperparameters})

    return send


def prepared_job(job_id: str, dataset_id: str) -> Job:
    return Job(
        id=job_id,
        status=JobStatus.SUCCEEDED,
        model=MODEL,
        dataset_id=dataset_id,
        method="greentrainer",
        policy={"kind": "constant", "rho": 0.5},
        priority=0,
        hyperparameters={"epochs": 1, "max_length": 512},
        labels={},
        created_at=NOW,
        epochs=1,
        estimate=ESTIMATE,
    )


def read_memory(answer: Any) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()["memory"]


def test_the_peak_is_that_of_a_job_with_the_same_settings(estimate: Callable[..., Any]) -> None:
    found = read_memory(estimate(epochs=7))
    assert (found["peak_bytes"], found["device_bytes"]) == (23 * 10**9, 80 * 10**9)
    assert found["least_bytes"] == 2 * WEIGHTS
    assert found["basis"] == "the traced step of a prepared job with this model and method"


@pytest.mark.parametrize(
    ("changed", "peak"),
    [
        ({"micro_batch_size": 1}, 2 + 8 + 13 / 4 + 4),  # the second micro-batch finds the gradients, in float32
        ({"batch_size": 2}, 2 + 8 + 13 / 2),
        ({"max_length": 1024}, 2 + 8 + 13 * 2),
        ({"optimizer": "sgd"}, 2 + 4 + 13),
        ({"optimizer": "sgd", "momentum": 0.0}, 2 + 0 + 13),
    ],
)
def test_the_peak_of_a_similar_job_follows_from_its_settings(
    estimate: Callable[..., Any], changed: dict[str, Any], peak: float
) -> None:
    assert read_memory(estimate(**changed))["peak_bytes"] == pytest.approx(peak * 10**9, abs=1)


@pytest.mark.parametrize(("setting", "end"), [("auto", ", unless recomputed blocks make it fit"), (False, "")])
def test_a_peak_that_no_live_device_holds_is_noted(estimate: Callable[..., Any], setting: Any, end: str) -> None:
    note = f"its steps are predicted not to fit any live device: its preparation refuses it then{end}"
    assert note not in estimate(gradient_checkpointing=setting).json()["notes"]
    answer = estimate(gradient_checkpointing=setting, batch_size=32)
    assert read_memory(answer)["peak_bytes"] == (2 + 8 + 13 * 32 // 4) * 10**9
    assert note in answer.json()["notes"]


@pytest.mark.parametrize(
    "changed",
    [
        {"rho": 0.6},
        {"method": "full"},
        {"precision": "fp32"},
        {"gradient_checkpointing": True},
        {"max_length": 2048},
        {"attention": "eager"},
    ],
)
def test_without_a_similar_job_the_least_is_told(estimate: Callable[..., Any], changed: dict[str, Any]) -> None:
    found = read_memory(estimate(**changed))
    each = 16 if changed.get("method") == "full" else 4 if changed.get("precision") == "fp32" else 2
    assert (found["peak_bytes"], found["least_bytes"]) == (None, each * WEIGHTS)
    assert "as the job is prepared" in found["basis"]


def test_a_job_on_several_gpus_is_predicted_and_refused_by_one_of_its_processes(
    estimate: Callable[..., Any], database: Database
) -> None:
    with database.session() as session:
        WorkerRepository(session).record_heartbeat(
            "large", site=Site(zone="FR"), device="NVIDIA H100", memory_bytes=80 * 10**9, computes_bf16=True, gpus=8
        )
        ModelRepository(session).put(MODEL, parameters=12 * WEIGHTS, tensors=100, rho_floor=0.35, at=NOW)
        prepared = session.get_one(Job, "job_prepared")
        prepared.gpus, prepared.hyperparameters = 4, {**prepared.hyperparameters, "batch_size": 16}
    error = estimate(method="full").json()["errors"][0]["message"]
    assert error.endswith("with the method lora or resources.gpus 4 they would take less")
    refused = estimate(method="full", gpus=2).json()["errors"][0]["message"]
    assert "alone take in each of 2 processes 96 of 80 GB" in refused
    assert refused.endswith("with the method lora or resources.gpus 4 they would take less")
    # Each of 4 processes computes 2 of 8 rows, with gradients of one micro-batch, in bfloat16.
    found = read_memory(estimate(gpus=4, batch_size=8, micro_batch_size=2))
    assert found["peak_bytes"] == 16.5 * 10**9


def test_a_job_whose_step_could_not_be_traced_predicts_no_other(
    estimate: Callable[..., Any], database: Database
) -> None:
    with database.session() as session:
        session.get_one(Job, "job_prepared").estimate = {**ESTIMATE, "peak_memory_bytes": None, "step_memory": None}
    assert read_memory(estimate())["peak_bytes"] is None


def test_a_job_that_fits_no_live_device_is_refused_with_the_figure_and_what_would_fit(
    estimate: Callable[..., Any], client: TestClient, database: Database, dataset_id: str
) -> None:
    with database.session() as session:
        ModelRepository(session).put(MODEL, parameters=6 * WEIGHTS, tensors=100, rho_floor=0.35, at=NOW)
    refused = estimate(method="full")
    assert refused.status_code == 422
    [error] = refused.json()["errors"]
    assert error["field"] == "model"
    assert error["message"].endswith(
        "its weights, gradients and optimiser state alone take 96 of 80 GB on the largest device of a live worker "
        "(NVIDIA H100): with the method lora or optimizer adafactor they would take less"
    )
    body = {"model": MODEL, "dataset": dataset_id, "zone": "FR", "method": "full"}
    assert client.post("/jobs", json=body).json()["errors"] == [error]
    for fitting in (
        {"method": "lora"},
        {"rho": 0.5},
        {"method": "full", "optimizer": "adafactor"},
        {"method": "full", "zone": None},  # the worker elsewhere has a terabyte
        {"method": "full", "zone": "GB"},  # no worker is alive there, and one may come
    ):
        assert estimate(**fitting).status_code == 200, fitting
    with database.session() as session:  # a worker of an earlier version, whose memory is not known
        WorkerRepository(session).record_heartbeat("old", site=Site(zone="FR"))
    assert estimate(method="full").status_code == 200


def test_a_processor_is_no_device_of_a_job_with_flash_attention(
    estimate: Callable[..., Any], database: Database
) -> None:
    with database.session() as session:
        WorkerRepository(session).record_heartbeat(
            "processor", site=Site(zone="FR"), memory_bytes=256 * 10**9, computes_bf16=True
        )
        ModelRepository(session).put(MODEL, parameters=6 * WEIGHTS, tensors=100, rho_floor=0.35, at=NOW)
    sizes = [read_memory(estimate(attention=one))["device_bytes"] for one in ("sdpa", "flash")]
    assert sizes == [256 * 10**9, 80 * 10**9]
    assert estimate(method="full", attention="sdpa").status_code == 200
    refused = estimate(method="full", attention="flash")
    assert [error["field"] for error in refused.json()["errors"]] == ["model"]
    assert "96 of 80 GB on the largest device of a live worker (NVIDIA H100)" in refused.text


def test_the_number_of_queries_depends_neither_on_devices_nor_on_prepared_jobs(
    estimate: Callable[..., Any], client: TestClient, database: Database, dataset_id: str
) -> None:
    def count_statements() -> int:
        statements: list[str] = []
        engine = client.app.state.context.database.engine  # type: ignore[attr-defined]

        def record_statement(*call: Any) -> None:
            statements.append(call[2])

        event.listen(engine, "before_cursor_execute", record_statement)
        found = read_memory(estimate(gradient_checkpointing=False, max_length=2048))  # rows that none is similar to
        event.remove(engine, "before_cursor_execute", record_statement)
        assert found["peak_bytes"] is None
        assert not any("step_memory" in one and "jobs.traceparent" in one for one in statements)  # not whole rows
        return len(statements)

    count_statements()  # the key's own note is written now and then
    before = count_statements()
    with database.session() as session:
        for size in range(20, 70, 10):
            WorkerRepository(session).record_heartbeat(
                f"gpu {size}", site=Site(zone="FR"), device="GPU", memory_bytes=size * 10**9, computes_bf16=True
            )
        for number in range(5):
            session.add(prepared_job(f"job_{number}", dataset_id))
    assert count_statements() == before


@pytest.mark.parametrize(("setting", "workers"), [("auto", 2), (False, 1)])
def test_a_device_too_small_for_the_peak_counts_only_where_blocks_may_recompute(
    estimate: Callable[..., Any], setting: Any, workers: int
) -> None:
    """The peak of the similar job, 23 GB, exceeds the 16 GB of the small device."""
    assert estimate(gradient_checkpointing=setting).json()["place"]["live_workers"] == workers


def test_workers_tell_their_memory_and_arithmetic(estimate: Callable[..., Any], client: TestClient) -> None:
    listed = {
        worker["id"]: (worker["memory_bytes"], worker["computes_bf16"])
        for worker in client.get("/workers").json()["data"]
    }
    assert listed == {
        "small": (16 * 10**9, True),
        "large": (80 * 10**9, True),
        "elsewhere": (10**12, None),
        "prepares": (None, None),
    }
