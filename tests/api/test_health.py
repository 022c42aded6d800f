"""`/livez` and `/readyz`: readiness names what is missing."""

import socket
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.health.readiness import Readiness
from api.main import create_app
from greencore.clock import utc_now
from migrations.upgrade import downgrade, expected_revision
from runtime.settings import Settings
from runtime.site import Site
from store.database import Database
from store.lifecycle.status import JobStatus
from store.repositories.workers import WorkerRepository
from store.tables import Job, Worker
from tests.keys import bearer


def get_response(settings: Settings, path: str, *, key: str | None = None) -> Any:
    with TestClient(create_app(settings), headers=bearer(key) if key else None) as client:
        return client.get(path)


def test_a_service_with_everything_it_needs_is_ready(settings: Settings) -> None:
    database = Database(settings.database_url)
    with database.session() as session:
        for role in ("scheduler", "prepare"):
            WorkerRepository(session).record_heartbeat(f"{role}_1", role=role)
    database.dispose()

    assert get_response(settings, "/readyz").json() == {"status": "ok", "warnings": []}


@pytest.mark.parametrize(
    ("setting", "url", "part"),
    [
        ("redis_url", "redis://127.0.0.1:1/0", "redis"),
        ("database_url", "postgresql://unknown@127.0.0.1:1/none", "database"),
    ],
)
def test_a_server_that_does_not_answer_is_named(settings: Settings, setting: str, url: str, part: str) -> None:
    broken = settings.model_copy(update={setting: url})

    response = get_response(broken, "/readyz")

    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert [error["field"] for error in response.json()["errors"]] == [part]


def test_a_database_that_was_not_migrated_is_named_with_what_is_needed(settings: Settings) -> None:
    downgrade(settings.database_url, "base")

    response = get_response(settings, "/readyz")

    assert response.status_code == 503
    assert expected_revision() in response.json()["errors"][0]["message"]


def test_a_process_is_alive_without_any_other_service(settings: Settings) -> None:
    alone = settings.model_copy(
        update={"redis_url": "redis://127.0.0.1:1/0", "database_url": "postgresql://unknown@127.0.0.1:1/none"}
    )

    assert get_response(alone, "/livez").status_code == 200


def test_a_request_that_needs_the_database_says_when_it_is_down(settings: Settings, operator_key: str) -> None:
    broken = settings.model_copy(update={"database_url": "postgresql://unknown@127.0.0.1:1/none"})

    response = get_response(broken, "/jobs", key=operator_key)

    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0


def warnings(client: TestClient) -> dict[str, str]:
    answer = client.get("/readyz")
    assert answer.status_code == 200, answer.text
    return {warning["part"]: warning["message"] for warning in answer.json()["warnings"]}


def test_faults_that_keep_jobs_waiting_are_warnings_and_leave_the_api_ready(
    database: Database, settings: Settings, job_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.health.readiness.CACHE_SECONDS", 0.0)
    catalogue = tmp_path / "catalogue.toml"
    catalogue.write_text("[m]\nsource = '.'\nlicence = 'none'\n")
    lacking = settings.model_copy(update={"catalogue": catalogue, "data_dir": tmp_path / "file" / "var"})
    (tmp_path / "file").write_text("no folder can be made in this")
    with database.session() as session:
        job = session.get_one(Job, job_id)
        job.status, job.zone_asked = JobStatus.QUEUED, "FR"
    with TestClient(create_app(lacking)) as client:
        catalogue.write_text("")
        found = warnings(client)
        assert set(found) == {"scheduler", "prepare_worker", "training_worker", "data_folder", "catalogue"}
        assert "1 in FR" in found["training_worker"]
        assert not any(str(tmp_path) in message for message in found.values())

        with database.session() as session:
            for role in ("scheduler", "prepare"):
                WorkerRepository(session).record_heartbeat(f"{role}_1", role=role)
            WorkerRepository(session).record_heartbeat("worker_1", site=Site(zone="DE"))
        assert set(warnings(client)) == {"training_worker", "data_folder", "catalogue"}

        with database.session() as session:
            WorkerRepository(session).record_heartbeat("worker_2", site=Site(zone="FR"))
            long_ago = utc_now() - timedelta(hours=1)
            session.get_one(Worker, "prepare_1").last_seen_at = long_ago
        assert set(warnings(client)) == {"prepare_worker", "data_folder", "catalogue"}


@pytest.mark.fault(number=19)
@pytest.mark.parametrize("missing", ["scheduler", "prepare"])
def test_a_service_that_can_schedule_no_job_is_degraded(
    settings: Settings, database: Database, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.health.readiness.CACHE_SECONDS", 0.0)
    with TestClient(create_app(settings)) as client:
        for role in ("scheduler", "prepare"):
            with database.session() as session:
                WorkerRepository(session).record_heartbeat(f"{role}_1", role=role)
        assert client.get("/readyz").json()["status"] == "ok"
        with database.session() as session:
            session.get_one(Worker, f"{missing}_1").last_seen_at = utc_now() - timedelta(hours=1)

        answer = client.get("/readyz")

    assert answer.status_code == 200
    assert answer.json()["status"] == "degraded"
    assert missing in answer.json()["warnings"][0]["part"]


def test_a_check_of_a_hanging_server_times_out(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        begun = time.monotonic()
        response = get_response(settings.model_copy(update={"redis_url": url}), "/readyz")

    assert response.status_code == 503
    assert time.monotonic() - begun < 5


def test_concurrent_probes_share_one_report(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[object] = []
    seen = Readiness._catalogue_faults

    def check_readiness(readiness: Readiness) -> Mapping[str, str]:
        looked.append(readiness)
        return seen(readiness)

    monkeypatch.setattr(Readiness, "_catalogue_faults", check_readiness)
    with TestClient(create_app(settings)) as client, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.get("/readyz").status_code, range(16)))

    assert answers == [200] * 16
    assert len(looked) == 1
