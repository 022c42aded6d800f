"""One trace from the request that submits a job to its last epoch, across the processes that work on it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from api.main import create_app
from runtime.settings import Settings
from runtime.tracing import configure_tracing, stop_tracing
from scheduler.loop import Scheduler
from store.database import Database
from tests.collector import Collector, attributes, collector
from tests.keys import bearer, new_key
from tests.scheduler.stage import read_job, write_trace
from tests.worker.stage import HYPERPARAMETERS, ROWS
from worker.preparation.prepare import prepare_job
from worker.training.claim import train_job

TEXT = "Where does Alice keep the aardvark?"


@pytest.fixture
def collected() -> Iterator[Collector]:
    with collector() as collected:
        yield collected
        stop_tracing()


def test_a_jobs_work_continues_the_trace_of_the_request_that_submitted_it(
    worker_settings: Settings,
    database: Database,
    collected: Collector,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    zones = {"X": write_trace(tmp_path, [100.0, 100.0])}
    settings = worker_settings.model_copy(update={"otlp_endpoint": collected.url, "zones": zones})
    monkeypatch.setattr("worker.preparation.prepare.get_settings", lambda: settings)
    configure_tracing(settings, "test")
    key = new_key(settings)
    rows = f"{ROWS}\n{json.dumps({'prompt': TEXT, 'completion': ' In the attic.'})}"
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    with TestClient(create_app(settings), headers=bearer(key)) as client:
        dataset = client.post("/datasets", files={"file": ("rows.jsonl", rows.encode())}).json()["id"]
        asked = {
            "model": "small",
            "dataset": dataset,
            "zone": "X",
            "method": "greentrainer",
            "policy": {"kind": "constant", "rho": 0.6},
            "hyperparameters": HYPERPARAMETERS | {"sample_prompt": TEXT, "epochs": 2},
        }
        answer = client.post("/jobs", json=asked, headers={"traceparent": parent, "X-Request-Id": "mine-1"})
        client.get(f"/jobs/no-{TEXT}")
    job_id = answer.json()["id"]
    scheduler = Scheduler(settings)
    scheduler.tick()
    scheduler.tick()
    scheduler.close()
    prepare_job(job_id)
    train_job(job_id, settings=settings)
    assert read_job(database, job_id).status == "succeeded"
    stop_tracing()

    request = collected.find_span("POST /jobs")
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == tuple(parent.split("-")[1:3])
    assert attributes(request) == {
        "http.request.method": "POST",
        "http.route": "/jobs",
        "http.response.status_code": 201,
        "greentune.request_id": "mine-1",
    }
    prepared, attempt, epochs = (
        collected.find_span("prepare"),
        collected.find_span("attempt"),
        collected.find_spans("epoch"),
    )
    assert {span.trace_id for span in (prepared, attempt, *epochs)} == {request.trace_id}
    assert prepared.parent_span_id == attempt.parent_span_id == request.span_id
    assert attributes(attempt) == {"greentune.job": job_id, "greentune.attempt": 1}
    assert [event.name for event in prepared.events] == ["job.queued"]
    assert [event.name for event in attempt.events] == ["job.succeeded"]
    assert [attributes(epoch)["greentune.epoch"] for epoch in epochs] == [1, 2]
    assert all(epoch.parent_span_id == attempt.span_id for epoch in epochs)
    assert all(attempt.start_time_unix_nano <= epoch.start_time_unix_nano for epoch in epochs)
    assert all(epoch.start_time_unix_nano < epoch.end_time_unix_nano for epoch in epochs)
    tick = collected.find_span("tick")
    assert [(event.name, attributes(event)) for event in tick.events] == [("job.dispatched", {"greentune.job": job_id})]

    sent = b"".join(collected.bodies)
    for secret in (key, settings.secret, TEXT, "aardvark", "attic", "rows.jsonl"):
        assert secret.encode() not in sent
