"""ETags change with every readable change of a job, and a poll of an unchanged job costs one small query."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import event
from sqlalchemy.orm import Session

from greencore.carbon import IntensitySeries, Reading
from greencore.carbon.accounting.pricing import price_by_reading
from greencore.energy import EnergyInterval
from greencore.policy import RhoDecision
from runtime.settings import Settings
from scheduler.settlement import settle_prices, store_counterfactuals
from store.database import Database
from store.intensity.readings import GridRepository
from store.lifecycle import progress
from store.lifecycle.actions import request_action
from store.lifecycle.leases import claim, renew
from store.lifecycle.status import Action, JobStatus
from store.lifecycle.transitions import transition
from store.repositories.jobs import JobRepository
from store.tables import Job
from tests.api.conftest import NOW

READING = Reading(
    zone="FR",
    start=NOW - timedelta(hours=1),
    end=NOW + timedelta(hours=1),
    gco2e_per_kwh=200.0,
    source="uk",
    estimated=True,
    fetched_at=NOW,
)
DECISION = RhoDecision(
    rho=0.6, reason="clean", intensity_gco2e_per_kwh=200.0, source="uk", step="fresh", age_seconds=0.0, estimated=True
)
MINUTE = EnergyInterval(
    start=NOW,
    end=NOW + timedelta(seconds=60),
    cpu_kwh=0.5,
    gpu_kwh=0.0,
    ram_kwh=0.0,
    cpu_method="RAPL",
    gpu_method="none",
    ram_method="none",
)


@contextmanager
def statements(app: FastAPI) -> Iterator[list[str]]:
    """The statements of the application, without those of authentication."""
    engine, seen = app.state.context.database.engine, []

    def record_statement(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if "api_keys" not in statement:
            seen.append(statement)

    event.listen(engine, "before_cursor_execute", record_statement)
    yield seen
    event.remove(engine, "before_cursor_execute", record_statement)


def lock_job(session: Session, job_id: str) -> Job:
    job = JobRepository(session).lock(job_id)
    assert job is not None
    return job


def etag(client: TestClient, path: str) -> str:
    response = client.get(path)
    assert response.status_code == 200, response.text
    return response.headers["etag"]


def test_a_job_that_has_not_changed_is_answered_304_from_one_small_query(
    finished_job_id: str, client: TestClient, app: FastAPI
) -> None:
    path = f"/jobs/{finished_job_id}"
    first = client.get(path)
    assert first.headers["cache-control"] == "private, no-cache"

    with statements(app) as asked:
        response = client.get(path, headers={"If-None-Match": first.headers["etag"]})

    assert (response.status_code, response.content) == (304, b"")
    assert response.headers["etag"] == first.headers["etag"]
    assert response.headers["cache-control"] == "private, no-cache"
    [query] = asked
    assert " ".join(query.split()).startswith("SELECT jobs.owner, jobs.revision FROM jobs WHERE jobs.id = ")


def test_a_page_that_has_not_changed_is_answered_304_from_one_small_query(
    job_id: str, submit: Any, client: TestClient, app: FastAPI
) -> None:
    submit()
    tag = etag(client, "/jobs")
    with statements(app) as asked:
        response = client.get("/jobs", headers={"If-None-Match": tag})
    assert (response.status_code, response.content, response.headers["etag"]) == (304, b"", tag)
    [query] = asked
    assert " ".join(query.split()).startswith("SELECT jobs.id, jobs.revision FROM jobs ORDER BY jobs.id DESC LIMIT")


@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}', '"a,b" , W/{},"c"', "*"])
def test_if_none_match_with_the_current_etag_is_answered_304_in_any_form(
    job_id: str, client: TestClient, form: str
) -> None:
    for path in (f"/jobs/{job_id}", "/jobs"):
        header = form.replace("{}", etag(client, path))
        assert client.get(path, headers={"If-None-Match": header}).status_code == 304


@pytest.mark.parametrize("form", ['"other"', "", "{}x", 'x"', "**"])
def test_if_none_match_without_the_current_etag_is_answered_in_full(job_id: str, client: TestClient, form: str) -> None:
    for path in (f"/jobs/{job_id}", "/jobs"):
        header = form.replace("{}", etag(client, path).strip('"'))
        assert client.get(path, headers={"If-None-Match": header}).status_code == 200


def test_a_job_of_another_owner_is_not_found_with_any_etag(job_id: str, client: TestClient, bob: TestClient) -> None:
    tag = etag(client, f"/jobs/{job_id}")
    for held in (tag, "*"):
        assert bob.get(f"/jobs/{job_id}", headers={"If-None-Match": held}).status_code == 404


def test_the_etag_of_a_list_changes_with_each_of_its_jobs(job_id: str, submit: Any, client: TestClient) -> None:
    first = etag(client, "/jobs?limit=1")
    newer = submit().json()["id"]
    assert etag(client, f"/jobs?limit=1&after={newer}") == first
    tags = [etag(client, "/jobs"), etag(client, "/jobs?limit=1"), first]
    assert len(set(tags)) == 3
    client.post(f"/jobs/{job_id}/cancel")
    assert etag(client, "/jobs") != tags[0]
    assert etag(client, "/jobs?limit=1") == tags[1]


def test_the_etag_of_a_list_changes_when_more_jobs_follow(job_id: str, submit: Any, client: TestClient) -> None:
    submit()
    path = "/jobs?status=validating&limit=1"
    tag = etag(client, path)
    client.post(f"/jobs/{job_id}/cancel")
    assert client.get(path, headers={"If-None-Match": tag}).status_code == 200


def test_every_writer_changes_the_etag_of_what_it_changes(
    job_id: str, client: TestClient, database: Database, settings: Settings
) -> None:
    """Calls every writer of a job in turn: a changed response has another ETag."""
    path = f"/jobs/{job_id}"
    now = {"body": client.get(path).json(), "tag": etag(client, path)}

    def after(name: str, write: Callable[[Session], Any], *, changes: bool = True) -> Any:
        with database.session() as session:
            result = write(session)
        return seen(name, result, changes=changes)

    def seen(name: str, result: Any = None, *, changes: bool = True) -> Any:
        response = client.get(path)
        assert (response.json() != now["body"]) is changes, name
        assert (response.headers["etag"] != now["tag"]) is changes, name
        now.update(body=response.json(), tag=response.headers["etag"])
        return result

    def queued(session: Session) -> None:
        job = lock_job(session, job_id)
        job.estimate, job.signal = {"full_flops": 1e12}, "average"
        transition(session, job, JobStatus.QUEUED, at=NOW)

    def looked_at(session: Session) -> None:
        lock_job(session, job_id).gate = {
            "opens": True,
            "until": None,
            "reason": "open",
            "saving": 0.1,
            "forced": False,
            "deadline": NOW.isoformat(),
            "at": NOW.isoformat(),
        }

    after("queued", queued)
    after("gate", looked_at)
    lease = after("claim", lambda s: claim(s, job_id, worker_id="w", device="cpu", at=NOW, lease_seconds=60))
    after("renew", lambda s: renew(s, lease, lease_seconds=90), changes=False)
    after(
        "training",
        lambda s: progress.start_training(s, lease, at=NOW, steps=9, steps_done=0, epochs_done=0, precision="fp32"),
    )
    after("epoch", lambda s: progress.start_epoch(s, lease, 1, DECISION, at=NOW))
    after("step", lambda s: progress.report_step(s, lease, steps=9, steps_done=3, loss=2.0))
    none = replace(MINUTE, end=NOW + timedelta(seconds=1), cpu_kwh=0.0)
    after(
        "no energy",
        lambda s: progress.add_energy(s, lease, 1, none, price_by_reading(none, IntensitySeries([READING]))),
    )
    after(
        "energy",
        lambda s: progress.add_energy(s, lease, 1, MINUTE, price_by_reading(MINUTE, IntensitySeries([READING]))),
    )
    after(
        "end of epoch",
        lambda s: progress.finish_epoch(
            s,
            lease,
            1,
            at=NOW,
            measured=progress.EpochMeasurement(flops=6e11, full_flops=1e12, rho_reached=0.6),
            utility=None,
        ),
    )
    after("tracker", lambda s: progress.add_tracker_total(s, lease, at=NOW, tracker_kwh=0.5))
    after("pause", lambda s: request_action(s, lock_job(s, job_id), Action.PAUSE, by="alice", at=NOW))
    after("given back", lambda s: progress.release_job(s, lease, at=NOW))
    after("resume", lambda s: request_action(s, lock_job(s, job_id), Action.RESUME, by="alice", at=NOW))
    lease = after("claim", lambda s: claim(s, job_id, worker_id="w", device="cpu", at=NOW, lease_seconds=60))
    after("end", lambda s: progress.succeed(s, lease, at=NOW, artifacts=[], evaluation={"rows": 1}))
    store_counterfactuals(database, settings, at=NOW)
    seen("account")
    settle_prices(database, settings, at=NOW)
    seen("nothing to settle", changes=False)
    measured = replace(READING, estimated=False, fetched_at=NOW + timedelta(hours=1))
    with database.session() as session:
        GridRepository(session).put([measured])
    total = now["body"]["emissions_gco2e"]
    settle_prices(database, settings, at=NOW + timedelta(hours=1))
    seen("settled at the same price")
    assert now["body"]["emissions_gco2e"] == pytest.approx(total)
    store_counterfactuals(database, settings, at=NOW + timedelta(hours=1))
    seen("final account")
    settle_prices(database, settings, at=NOW + timedelta(hours=2))
    store_counterfactuals(database, settings, at=NOW + timedelta(hours=2))
    seen("all settled", changes=False)


def test_energy_whose_price_is_pending_does_not_change_the_etag(
    job_id: str, client: TestClient, database: Database, settings: Settings
) -> None:
    with database.session() as session:
        job = lock_job(session, job_id)
        job.zone, job.signal = "nowhere", "average"
        transition(session, job, JobStatus.QUEUED, at=NOW)
    with database.session() as session:
        lease = claim(session, job_id, worker_id="w", device="cpu", at=NOW, lease_seconds=60)
        assert lease is not None
        unpriced = [
            replace(piece, emissions_gco2e=None) for piece in price_by_reading(MINUTE, IntensitySeries([READING]))
        ]
        progress.add_energy(session, lease, 1, MINUTE, unpriced)
    tag = etag(client, f"/jobs/{job_id}")
    settle_prices(database, settings, at=NOW + timedelta(minutes=5))
    assert etag(client, f"/jobs/{job_id}") == tag


def test_the_number_of_queries_does_not_depend_on_the_number_of_jobs(
    finished_job_id: str, submit: Any, client: TestClient, app: FastAPI
) -> None:
    with statements(app) as one:
        client.get("/jobs?limit=1")
    for _ in range(4):
        submit()
    with statements(app) as five:
        assert len(client.get("/jobs").json()["data"]) == 5
    assert len(one) == len(five) == 3
