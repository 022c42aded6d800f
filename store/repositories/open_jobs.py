"""Counts open jobs by status, up to a limit."""

from collections.abc import Mapping

from sqlalchemy import text
from sqlalchemy.orm import Session

from store.lifecycle.status import FINAL, JobStatus

MAX_COUNT = 1000
OPEN_STATUSES = tuple(status for status in JobStatus if status not in FINAL)
# Ordered as an index and filtered by arrays, so that PostgreSQL reads no more of that index than is counted: see
# `store.repositories.jobs`.
COUNT_ALL_QUERY = text("""
    SELECT status, (SELECT count(*) FROM (
        SELECT FROM jobs WHERE jobs.status = ANY(ARRAY[asked.status]) ORDER BY jobs.status, jobs.id LIMIT :limit
    ) AS met) FROM unnest(CAST(:statuses AS varchar[])) AS asked (status)
""")
COUNT_OF_OWNER_QUERY = text("""
    SELECT status, (SELECT count(*) FROM (
        SELECT FROM jobs
        WHERE jobs.owner = ANY(ARRAY[CAST(:owner AS varchar)]) AND jobs.status = ANY(ARRAY[asked.status])
        ORDER BY jobs.owner, jobs.status, jobs.id LIMIT :limit
    ) AS met) FROM unnest(CAST(:statuses AS varchar[])) AS asked (status)
""")


def count_open_jobs(session: Session, *, owner: str | None, most: int = MAX_COUNT) -> Mapping[JobStatus, int]:
    """Return the number of open jobs of an owner, or of all, by status in lifecycle order; `most` + 1 means more.

    Statuses without jobs are left out.
    """
    asked = {"statuses": [status.value for status in OPEN_STATUSES], "limit": most + 1}
    query = COUNT_ALL_QUERY if owner is None else COUNT_OF_OWNER_QUERY.bindparams(owner=owner)
    counted = {row.status: row[1] for row in session.execute(query, asked)}
    return {status: counted[status.value] for status in OPEN_STATUSES if counted[status.value]}
