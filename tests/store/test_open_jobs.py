"""How many jobs are under way: counted by status, each owner's apart, and no further than somebody wants to know."""

from store.database import Database
from store.open_jobs import open_jobs
from store.status import JobStatus
from store.tables import Job
from tests.scheduler.stage import add_job


def job_at(database: Database, status: JobStatus, owner: str = "alice") -> None:
    job_id = add_job(database, owner=owner)
    with database.session() as session:
        session.get_one(Job, job_id).status = status


def test_jobs_under_way_are_counted_by_status_and_those_that_are_over_are_not(database: Database) -> None:
    for status in (JobStatus.RUNNING, JobStatus.QUEUED, JobStatus.QUEUED, JobStatus.SUCCEEDED, JobStatus.FAILED):
        job_at(database, status)

    with database.session() as session:
        assert list(open_jobs(session, owner=None).items()) == [(JobStatus.QUEUED, 2), (JobStatus.RUNNING, 1)]


def test_an_owner_is_told_of_theirs_alone(database: Database) -> None:
    job_at(database, JobStatus.RUNNING, "alice")
    job_at(database, JobStatus.RUNNING, "bob")
    job_at(database, JobStatus.DEFERRED, "bob")

    with database.session() as session:
        assert open_jobs(session, owner="alice") == {JobStatus.RUNNING: 1}
        assert open_jobs(session, owner="nobody") == {}


def test_counting_ends_where_nobody_wants_to_know_more(database: Database) -> None:
    for _ in range(5):
        job_at(database, JobStatus.QUEUED)

    with database.session() as session:
        assert open_jobs(session, owner=None, most=2) == {JobStatus.QUEUED: 3}
