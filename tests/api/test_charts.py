"""Curves for charts: downsampling keeps extremes, and sparklines are spread evenly over all steps."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from api.charts import LOSS_CURVES_QUERY, find_extremes, loss_curves
from store.database import Database
from tests.scheduler.stage import add_job

STEPS = 100_000
VALUES = st.lists(st.floats(allow_nan=True, allow_infinity=False, width=32), max_size=60)


def store_steps(database: Database, job_id: str, count: int, *, loss: str = "number", but: str = "false") -> None:
    """Store steps 1 to `count` of a job, with an SQL expression as loss, except those that match `but`."""
    with database.session() as session:
        session.execute(
            text(
                f"INSERT INTO steps SELECT :job_id, number, now(), {loss} FROM generate_series(1, :count) AS number "
                f"WHERE NOT ({but})"
            ),
            {"job_id": job_id, "count": count},
        )
        session.execute(text("UPDATE jobs SET steps_done = :count WHERE id = :id"), {"count": count, "id": job_id})


def curves(database: Database, *job_ids: str, points: int = 40) -> dict[str, list[float]]:
    with database.session() as session:
        return {job_id: list(losses) for job_id, losses in loss_curves(session, job_ids, points=points).items()}


def test_a_curve_is_spread_evenly_from_the_first_step_to_the_last(database: Database) -> None:
    job_id = add_job(database)
    store_steps(database, job_id, 1000)

    assert curves(database, job_id, points=4) == {job_id: [1, 334, 667, 1000]}


def test_a_short_jobs_steps_appear_once_each(database: Database) -> None:
    job_id = add_job(database)
    store_steps(database, job_id, 3)

    assert curves(database, job_id) == {job_id: [1, 2, 3]}


def test_a_missing_step_is_replaced_by_the_next_stored_one(database: Database) -> None:
    job_id = add_job(database)
    store_steps(database, job_id, 1000, but="number BETWEEN 300 AND 400 OR number = 1000")

    assert curves(database, job_id, points=4) == {job_id: [1, 401, 667]}


def test_jobs_without_two_steps_have_no_curve_and_each_job_has_its_own(database: Database) -> None:
    none, one, many, other = (add_job(database) for _ in range(4))
    store_steps(database, one, 1)
    store_steps(database, many, 2)
    store_steps(database, other, 2, loss="10 * number")

    assert curves(database, none, one, many, other) == {many: [1, 2], other: [10, 20]}
    assert curves(database) == {}


@pytest.mark.parametrize("known", [True, False], ids=["with statistics", "without statistics"])
def test_loss_curves_of_long_jobs_read_only_the_steps_drawn(database: Database, known: bool) -> None:
    job_ids = [add_job(database) for _ in range(3)]
    for job_id in job_ids:
        store_steps(database, job_id, STEPS)
    if known:
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE steps"))

    with database.session() as session:
        explained = text(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {LOSS_CURVES_QUERY.text}")
        [plan] = session.execute(explained, {"job_ids": job_ids, "points": 40}).scalar_one()

    assert rows_read(plan["Plan"], "steps") <= 3 * 40
    assert plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"] < 3 * 40 * 8
    assert [len(losses) for losses in curves(database, *job_ids).values()] == [40, 40, 40]


def rows_read(plan: dict[str, Any], table: str) -> float:
    """Return the rows of a table that a plan reads, including those it filters out."""
    met = (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"]
    here = met if plan.get("Relation Name") == table else 0
    return here + sum(rows_read(below, table) for below in plan.get("Plans", []))


@given(VALUES, st.integers(1, 20))
def test_downsampling_keeps_the_extremes_of_every_stretch(values: list[float], stretches: int) -> None:
    kept = find_extremes(np.array(values, dtype=np.float64), stretches).tolist()

    assert kept == sorted(set(kept))
    assert len(kept) <= 2 * stretches
    starts = sorted({index * len(values) // stretches for index in range(stretches)}) if values else []
    for start, end in pairwise([*starts, len(values)]):
        numbers = [value for value in values[start:end] if not math.isnan(value)]
        shown = [values[index] for index in kept if start <= index < end]
        assert (min(shown, default=None), max(shown, default=None)) == (
            min(numbers, default=None),
            max(numbers, default=None),
        )
