"""Job lists read a page from one index, in its order, however many jobs are stored."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import event, text

from store.database import Database
from store.lifecycle.status import JobStatus
from store.repositories.jobs import JobFilter, JobRepository
from tests.scheduler.stage import add_job

JOBS = 6000
# Most have ended; one of the owners submitted the oldest half of them, and nothing since.
MANY = """
INSERT INTO jobs (id, status, owner, revision, model, dataset_id, method, method_asked, policy, zone, priority,
                  hyperparameters, metadata, created_at, attempts, lost_attempts, control, epochs, epochs_done,
                  steps_done, energy_kwh, emissions_gco2e, name)
SELECT 'job_' || lpad(to_hex(n), 32, '0'), CASE WHEN n % 500 = 0 THEN 'queued' ELSE 'succeeded' END,
       CASE WHEN n <= :jobs / 2 THEN 'left long ago' ELSE 'owner' || n % 10 END,
       1, 'm' || n % 7, dataset_id, 'full', 'full', policy, (ARRAY['FR', 'DE', 'GB', 'ES'])[n % 4 + 1], 0, '{}',
       jsonb_build_object('team', 'team' || n % 20, 'run', n::text), created_at, 0, 0, 'run', 1, 0, 0, 0, 0,
       CASE WHEN n % 3 = 0 THEN 'nightly ' || n % 9 END
FROM jobs, generate_series(1, :jobs) AS n
"""


@pytest.fixture
def many_jobs(database: Database) -> Database:
    add_job(database)
    with database.session() as session:
        session.execute(text(MANY), {"jobs": JOBS})
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE jobs"))
    return database


def plans(database: Database, which: JobFilter) -> list[dict[str, Any]]:
    """Return PostgreSQL's plans for a page of jobs, and for its revisions."""
    asked: list[tuple[str, Any]] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *rest: Any) -> None:
        asked.append((statement, parameters))

    event.listen(database.engine, "before_cursor_execute", note)
    with database.session() as session:
        JobRepository(session).page(limit=50, **which)
        JobRepository(session).revisions(limit=50, **which)
    event.remove(database.engine, "before_cursor_execute", note)
    found = []
    with database.engine.connect() as connection:
        for statement, parameters in asked:
            rows = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters).scalar_one()
            [plan] = rows if isinstance(rows, list) else json.loads(rows)
            found.append(plan["Plan"])
    assert len(found) == 2
    return found


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", []):
        yield from nodes(below)


MIDDLE = f"job_{JOBS // 2:032x}"
LISTS: list[tuple[JobFilter, str]] = [
    ({}, "pk_jobs"),
    ({"after": MIDDLE}, "pk_jobs"),
    ({"status": JobStatus.QUEUED}, "ix_jobs_status_id"),
    ({"status": JobStatus.SUCCEEDED, "after": MIDDLE}, "ix_jobs_status_id"),
    ({"status": JobStatus.FAILED}, "ix_jobs_status_id"),
    ({"zone": "DE", "after": MIDDLE}, "ix_jobs_zone_id"),
    ({"zone": "PL"}, "ix_jobs_zone_id"),
    ({"owner": "owner3", "after": MIDDLE}, "ix_jobs_owner_id"),
    ({"owner": "left long ago"}, "ix_jobs_owner_id"),
    ({"owner": "unknown"}, "ix_jobs_owner_id"),
    ({"owner": "owner0", "status": JobStatus.QUEUED}, "ix_jobs_owner_status_id"),
    ({"owner": "left long ago", "zone": "DE"}, "ix_jobs_owner_zone_id"),
    ({"model": "m3", "after": MIDDLE}, "ix_jobs_model_id"),
    ({"owner": "left long ago", "model": "m3"}, "ix_jobs_owner_model_id"),
    ({"name": "nightly 3", "after": MIDDLE}, "ix_jobs_name_id"),
    ({"name": "unknown"}, "ix_jobs_name_id"),
    ({"owner": "left long ago", "name": "nightly 6"}, "ix_jobs_owner_name_id"),
]


def test_a_page_is_read_from_an_index_in_its_order_whatever_it_is_filtered_by(many_jobs: Database) -> None:
    for which, index in LISTS:
        for plan in plans(many_jobs, which):
            [limit, scan] = nodes(plan)
            assert limit["Node Type"] == "Limit", which
            assert scan["Node Type"] in ("Index Scan", "Index Only Scan"), which
            assert scan["Index Name"] == index, which
            assert scan.get("Rows Removed by Filter", 0) == 0, which
            assert scan["Actual Rows"] <= 51, which


def test_a_label_is_looked_up_in_an_index_or_found_soon(many_jobs: Database) -> None:
    for labels in ({"run": "77"}, {"run": "none"}, {"team": "team7"}):
        for plan in plans(many_jobs, {"labels": labels}):
            for node in nodes(plan):
                assert node["Node Type"] != "Seq Scan", labels
                assert node.get("Rows Removed by Filter", 0) + node["Actual Rows"] <= JOBS / 4, labels


def test_filters_without_a_common_index_all_apply(many_jobs: Database) -> None:
    with many_jobs.session() as session:
        which = JobFilter(status=JobStatus.QUEUED, zone="FR", owner="owner0", labels={"team": "team0"})
        found = JobRepository(session).page(limit=200, **which)
        ids = [job.id for job in found.data]
        assert ids == sorted(ids, reverse=True)
        assert [int(job.labels["run"]) for job in found.data] == list(range(JOBS, JOBS // 2, -500))
        assert [job_id for job_id, _ in JobRepository(session).revisions(limit=200, **which).data] == ids
