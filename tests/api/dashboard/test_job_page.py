"""The page of a job as it is served: its ETag, and pages of older rows without scripts."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from greencore.carbon import Reading
from store.database import Database
from store.intensity.readings import GridRepository
from store.lifecycle.status import JobStatus
from store.lifecycle.transitions import transition
from store.repositories.jobs import JobRepository
from tests.api.conftest import NOW

Submit = Callable[..., Any]


@pytest.fixture
def queued_job_id(job_id: str, database: Database) -> str:
    queue_job(database, job_id)
    return job_id


def queue_job(database: Database, job_id: str) -> None:
    with database.session() as session:
        job = JobRepository(session).lock(job_id)
        assert job is not None
        transition(session, job, JobStatus.QUEUED, at=NOW)


def store_reading(database: Database, gco2e_per_kwh: float) -> None:
    hour = Reading(
        zone="FR",
        start=NOW,
        end=NOW + timedelta(hours=1),
        gco2e_per_kwh=gco2e_per_kwh,
        source="uk",
        estimated=False,
        fetched_at=NOW,
    )
    with database.session() as session:
        GridRepository(session).put([hour])


def test_the_etag_changes_with_each_new_reading_of_the_jobs_zone(
    queued_job_id: str, client: TestClient, database: Database
) -> None:
    path = f"/dashboard/jobs/{queued_job_id}"
    for gco2e_per_kwh, band in ((42.0, "very clean"), (642.0, "very dirty")):
        tag = client.get(path).headers["etag"]
        store_reading(database, gco2e_per_kwh)

        answer = client.get(path, headers={"If-None-Match": tag})

        assert answer.status_code == 200
        assert band in answer.text


def test_the_etag_changes_with_the_queue_ahead_of_the_job(
    queued_job_id: str, submit: Submit, client: TestClient, database: Database
) -> None:
    path = f"/dashboard/jobs/{queued_job_id}"
    first = client.get(path)
    assert ">next<" in first.text
    assert client.get(path, headers={"If-None-Match": first.headers["etag"]}).status_code == 304
    queue_job(database, submit(zone="FR", priority=5).json()["id"])

    answer = client.get(path, headers={"If-None-Match": first.headers["etag"]})

    assert answer.status_code == 200
    assert "1 before it" in answer.text


def test_the_grid_does_not_change_the_etag_of_a_job_that_is_over(
    finished_job_id: str, client: TestClient, database: Database
) -> None:
    path = f"/dashboard/jobs/{finished_job_id}"
    tag = client.get(path).headers["etag"]
    store_reading(database, 42.0)

    assert client.get(path, headers={"If-None-Match": tag}).status_code == 304


def test_older_events_have_pages_that_link_to_the_next(job_id: str, client: TestClient, database: Database) -> None:
    with database.session() as session:
        for number in range(120):
            JobRepository(session).record(job_id, "epoch.started", at=NOW, epoch=number, rho=0.5)
    path: str | None = f"/dashboard/jobs/{job_id}"
    pages, seen = 0, 0
    while path is not None:
        markup = client.get(path).text
        pages, seen = pages + 1, seen + markup.count("<code>epoch.started</code>")
        link = markup.partition(f'href="/dashboard/jobs/{job_id}/events?after=')[2].partition('"')[0]
        path = f"/dashboard/jobs/{job_id}/events?after={link}" if link else None

    assert (pages, seen) == (3, 120)


@pytest.mark.parametrize("what", ["epochs", "events"])
def test_older_rows_of_another_users_job_are_not_found(job_id: str, bob: TestClient, what: str) -> None:
    assert bob.get(f"/dashboard/jobs/{job_id}/{what}?after=9").status_code == 404
