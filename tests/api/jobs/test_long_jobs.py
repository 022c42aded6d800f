"""A job of two weeks: each route responds with a part of its data, without reading all of it."""

import re
import time

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient
from sqlalchemy import text

from store.database import Database
from tests.api.conftest import NOW

EPOCHS, TENSORS, EVENTS, INTERVALS, STEPS = 1000, 300, 10_000, 20_000, 50_000
SLOWEST_SECONDS = 5.0
LARGEST_BYTES = 8 * 2**20
LONG = (
    "INSERT INTO epochs (job_id, number, attempt, started_at, finished_at, rho_asked, rho_reached, reason, "
    "intensity_estimated, tensors_selected, tensors_total, selection) "
    "SELECT :job, n, 1, :now, :now, 0.6, 0.59, 'the policy is constant', false, :tensors, :tensors, "
    "(SELECT jsonb_object_agg('model.layers.' || k || '.self_attn.q_proj.weight', k) "
    "FROM generate_series(1, :tensors) k) "
    "FROM generate_series(1, :epochs) n",
    "INSERT INTO events (job_id, at, type, data) "
    "SELECT :job, :now, 'epoch.finished', jsonb_build_object('epoch', n) FROM generate_series(1, :events) n",
    "INSERT INTO energy_intervals (job_id, epoch, attempt, started_at, finished_at, cpu_kwh, gpu_kwh, ram_kwh, method, "
    "intensity_gco2e_per_kwh, intensity_source, intensity_estimated, pue, emissions_gco2e, settled, lost, zone, "
    "evaluation) "
    "SELECT :job, 1 + n * :epochs / (:intervals + 1), 1, :now + n * interval '1 minute', "
    "CAST(:now AS timestamptz) + (n + 1) * interval '1 minute', 0.001, 0.002, 0.0005, "
    "'{\"cpu\": \"RAPL\"}', 200, 'uk', false, 1.0, 0.7, true, false, 'GB', false FROM generate_series(1, :intervals) n",
    "INSERT INTO steps (job_id, number, at, loss) "
    "SELECT :job, n, CAST(:now AS timestamptz) + n * interval '6 seconds', 1.0 / n FROM generate_series(1, :steps) n",
    "INSERT INTO tensors (job_id, position, name, parameters, t_dw_flops, t_dy_flops) "
    "SELECT :job, n, 'model.layers.' || n || '.self_attn.q_proj.weight', 100, 200, 200 "
    "FROM generate_series(1, :tensors) n",
    "INSERT INTO checkpoints (job_id, name, attempt, step, epochs_done, bytes, created_at, best) "
    "SELECT :job, 'step-' || n, 1, n, n, 9, :now, false FROM generate_series(1, 3) n",
    "UPDATE jobs SET status = 'running', epochs = :epochs, epochs_done = :epochs - 1, started_at = :now "
    "WHERE id = :job",
    "ANALYZE",
)


@pytest.fixture
def long_job_id(job_id: str, database: Database) -> str:
    numbers = {"epochs": EPOCHS, "tensors": TENSORS, "events": EVENTS, "intervals": INTERVALS, "steps": STEPS}
    with database.engine.begin() as connection:
        for statement in LONG:
            connection.execute(text(statement), {"job": job_id, "now": NOW, **numbers})
    return job_id


def test_every_route_of_a_long_job_responds_quickly_and_in_pages(
    app: FastAPI, client: TestClient, long_job_id: str
) -> None:
    found = [str(route.path) for route in iter_route_contexts(app.routes) if "GET" in (route.methods or ())]
    paths = [path.replace("{job_id}", long_job_id) for path in found if "{job_id}" in path and "{name" not in path]
    assert len(paths) >= 8
    for path in ["/jobs", *paths]:
        began = time.monotonic()
        answer = client.get(path)
        seconds = time.monotonic() - began

        assert answer.status_code == 200, f"{path}: {answer.text}"
        assert seconds < SLOWEST_SECONDS, f"{path} took {seconds:.1f} s"
        assert len(answer.content) < LARGEST_BYTES, f"{path} is of {len(answer.content)} bytes"


def test_epochs_are_read_page_by_page_with_their_own_costs(client: TestClient, long_job_id: str) -> None:
    seen: list[int] = []
    kwh = 0.0
    more = True
    while more:
        page = client.get(f"/jobs/{long_job_id}/epochs", params={"after": seen[-1] if seen else 0}).json()
        assert len(page["data"]) <= 200
        seen += [epoch["number"] for epoch in page["data"]]
        kwh += sum(epoch["energy"]["total_kwh"] for epoch in page["data"])
        more = page["has_more"]

    assert seen == list(range(1, EPOCHS + 1))
    assert kwh == pytest.approx(INTERVALS * 0.0035)
    assert page["data"][-1]["energy"]["methods"] == {"cpu": "RAPL"}
    assert page["data"][-1]["emissions_gco2e"] == pytest.approx(0.7 * INTERVALS / EPOCHS, rel=0.1)

    markup = client.get(f"/dashboard/jobs/{long_job_id}").text

    shown = [int(number) for number in re.findall(r'<th scope="row" class="figure">(\d+)</th>', markup)]
    assert shown == list(range(EPOCHS, EPOCHS - 50, -1))
