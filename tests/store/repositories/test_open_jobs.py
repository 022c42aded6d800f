"""Open jobs are counted by status and owner, up to a limit."""

import pytest
from sqlalchemy import text

from store.database import Database
from store.lifecycle.status import JobStatus
from store.repositories.jobs import COUNT_ALL_QUERY, COUNT_OF_OWNER_QUERY, JobRepository
from store.tables import Job
from tests.scheduler.stage import add_job


def job_at(database: Database, status: JobStatus, owner: str = "alice") -> None:
    job_id = add_job(database, owner=owner)
    with database.session() as session:
        session.get_one(Job, job_id).status = status


def test_open_jobs_are_counted_by_status_and_ended_ones_are_not(database: Database) -> None:
    for status in (JobStatus.RUNNING, JobStatus.QUEUED, JobStatus.QUEUED, JobStatus.SUCCEEDED, JobStatus.FAILED):
        job_at(database, status)

    with database.session() as session:
        assert list(JobRepository(session).count_open(owner=None).items()) == [
            (JobStatus.QUEUED, 2),
            (JobStatus.RUNNING, 1),
        ]


def test_an_owners_count_contains_only_their_jobs(database: Database) -> None:
    job_at(database, JobStatus.RUNNING, "alice")
    job_at(database, JobStatus.RUNNING, "bob")
    job_at(database, JobStatus.DEFERRED, "bob")

    with database.session() as session:
        assert JobRepository(session).count_open(owner="alice") == {JobStatus.RUNNING: 1}
        assert JobRepository(session).count_open(owner="unknown") == {}


def test_counting_ends_at_the_limit(database: Database) -> None:
    for _ in range(5):
        job_at(database, JobStatus.QUEUED)

    with database.session() as session:
        assert JobRepository(session).count_open(owner=None, most=2) == {JobStatus.QUEUED: 3}


@pytest.mark.parametrize("owner", [None, "alice"])
def test_open_jobs_are_counted_in_an_index_among_many_ended_ones(database: Database, owner: str | None) -> None:
    job_at(database, JobStatus.SUCCEEDED)
    copies = (
        "INSERT INTO jobs SELECT (jsonb_populate_record(jobs, jsonb_build_object('id', 'job_' || n))).* "
        "FROM jobs, generate_series(1, 3000) AS n"
    )
    with database.session() as session:
        session.execute(text(copies))
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE jobs"))

    query = COUNT_ALL_QUERY if owner is None else COUNT_OF_OWNER_QUERY.bindparams(owner=owner)
    explained = text(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query.text}")
    with database.session() as session:
        asked = {"statuses": ["queued", "running"], "limit": 1001} | ({"owner": owner} if owner else {})
        [plan] = session.execute(explained, asked).scalar_one()

    assert plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"] < 20
