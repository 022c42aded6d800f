"""Loss curves of many jobs for sparklines: a fixed number of index lookups per job, however long it is."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import text
from sqlalchemy.orm import Session

POINTS = 40
# Each point is one index lookup, for the first step stored at or after a number; the limit keeps PostgreSQL from
# reading all steps of the jobs instead.
LOSS_CURVES_QUERY = text("""
    SELECT jobs.id, taken.number, taken.loss
    FROM jobs, generate_series(0, :points - 1) AS point, LATERAL (
        SELECT number, loss FROM steps
        WHERE job_id = jobs.id AND number >= 1 + point * (jobs.steps_done - 1)::bigint / (:points - 1)
        ORDER BY number LIMIT 1
    ) AS taken
    WHERE jobs.id = ANY(:job_ids) AND jobs.steps_done > 1
    ORDER BY jobs.id, point
""")


def loss_curves(session: Session, job_ids: Collection[str], *, points: int = POINTS) -> Mapping[str, Sequence[float]]:
    """Return at most `points` (at least 2) losses of each job by step, evenly spread, the last included.

    Jobs with fewer than two losses are left out.
    """
    curves: dict[str, dict[int, float]] = defaultdict(dict)
    for job_id, number, loss in session.execute(LOSS_CURVES_QUERY, {"job_ids": list(job_ids), "points": points}):
        curves[job_id][number] = loss  # points of a short job may share a step
    return {job_id: list(losses.values()) for job_id, losses in curves.items() if len(losses) > 1}
