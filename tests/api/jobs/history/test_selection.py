"""The tensors that each epoch trained, with importance and cost; and the checkpoints."""

from datetime import UTC, datetime
from typing import Any

from fastapi.testclient import TestClient

from store.database import Database
from store.lifecycle import progress
from store.lifecycle.leases import Lease, claim
from store.lifecycle.status import JobStatus
from store.lifecycle.transitions import transition
from store.tables import Checkpoint, Epoch, Job, Tensor

START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
NAMES = ["lm_head.weight", "model.layers.1.mlp.down_proj.weight", "model.layers.0.mlp.down_proj.weight"]


def claim_job(database: Database, job_id: str) -> Lease:
    """Claim a job for a worker, and return its lease."""
    with database.session() as session:
        transition(session, session.get_one(Job, job_id, with_for_update=True), JobStatus.QUEUED, at=START)
    with database.session() as session:
        lease = claim(session, job_id, worker_id="w", device="cpu", at=START, lease_seconds=60)
    assert lease is not None
    return lease


def store_epoch(database: Database, job_id: str, number: int, **columns: Any) -> None:
    with database.session() as session:
        session.add(
            Epoch(
                job_id=job_id,
                number=number,
                attempt=1,
                started_at=START,
                rho_asked=0.5,
                reason="",
                intensity_estimated=False,
                **columns,
            )
        )


def test_every_tensor_has_its_location_its_cost_and_its_importance_in_every_epoch(
    client: TestClient, job_id: str, database: Database
) -> None:
    lease = claim_job(database, job_id)
    for _ in range(2):  # an attempt after the first finds what is there
        with database.session() as session:
            tensors = [
                Tensor(name=name, parameters=parameters, t_dw_flops=t_dw, t_dy_flops=t_dy)
                for name, parameters, t_dw, t_dy in zip(NAMES, (90, 7, 7), (900, 70, 70), (800, 60, 60), strict=True)
            ]
            progress.put_tensors(session, lease, tensors)
    store_epoch(
        database,
        job_id,
        1,
        rho_reached=0.48,
        selection={NAMES[0]: 0.5, NAMES[1]: float("nan")},
        importance=[0.5, float("nan"), None],
    )
    store_epoch(database, job_id, 2, selection=dict.fromkeys(NAMES))
    store_epoch(database, job_id, 3)  # has only begun

    shown = client.get(f"/jobs/{job_id}/selection").json()

    assert shown["tensors"][:2] == [
        {
            "name": "lm_head.weight",
            "stack": None,
            "layer": None,
            "kind": "lm_head",
            "parameters": 90,
            "t_dw_flops": 900,
            "t_dy_flops": 800,
        },
        {
            "name": "model.layers.1.mlp.down_proj.weight",
            "stack": None,
            "layer": 1,
            "kind": "mlp.down_proj",
            "parameters": 7,
            "t_dw_flops": 70,
            "t_dy_flops": 60,
        },
    ]
    assert shown["data"] == [
        {"number": 2, "rho_asked": 0.5, "rho_reached": None, "trained": [0, 1, 2], "importance": None},
        {"number": 1, "rho_asked": 0.5, "rho_reached": 0.48, "trained": [0, 1], "importance": [0.5, None, None]},
    ]
    assert shown["has_more"] is False


def test_epochs_are_shown_newest_first_and_page_by_page(client: TestClient, job_id: str, database: Database) -> None:
    for number in (1, 2, 3):
        store_epoch(database, job_id, number, selection={})

    page = client.get(f"/jobs/{job_id}/selection?limit=2").json()
    assert ([epoch["number"] for epoch in page["data"]], page["has_more"]) == ([3, 2], True)
    page = client.get(f"/jobs/{job_id}/selection?limit=2&after=2").json()
    assert ([epoch["number"] for epoch in page["data"]], page["has_more"]) == ([1], False)


def test_a_job_without_stored_tensor_costs_lists_the_tensors_of_its_epochs(
    client: TestClient, finished_job_id: str
) -> None:
    shown = client.get(f"/jobs/{finished_job_id}/selection").json()

    assert [(tensor["name"], tensor["t_dw_flops"]) for tensor in shown["tensors"]] == [
        ("norm.weight", None),
        ("lm_head.weight", None),
    ]
    assert shown["data"][0]["trained"] == [0, 1]
    assert shown["data"][0]["importance"] == [0.25, 0.5]


def test_an_unchanged_selection_is_not_sent_again(client: TestClient, finished_job_id: str) -> None:
    path = f"/jobs/{finished_job_id}/selection"
    held = {"If-None-Match": client.get(path).headers["etag"]}

    assert client.get(path, headers=held).status_code == 304
    assert client.get(f"{path}?limit=1", headers=held).status_code == 200


def test_the_checkpoint_that_a_worker_would_resume_from_is_listed_first(
    client: TestClient, job_id: str, database: Database
) -> None:
    with database.session() as session:
        for step in (20, 30):
            session.add(
                Checkpoint(
                    job_id=job_id,
                    name=f"checkpoint-{step}-1",
                    attempt=1,
                    step=step,
                    epochs_done=step // 10,
                    bytes=1000,
                    created_at=START,
                )
            )

    checkpoints = client.get(f"/jobs/{job_id}/checkpoints").json()

    assert checkpoints["has_more"] is False
    assert [checkpoint["step"] for checkpoint in checkpoints["data"]] == [30, 20]
    assert checkpoints["data"][0] == {
        "name": "checkpoint-30-1",
        "attempt": 1,
        "step": 30,
        "epochs_done": 3,
        "bytes": 1000,
        "created_at": "2026-11-23T12:00:00Z",
        "best": False,
    }
