"""Each cause of a saving is shown with its share in the API, the pages and the terminal."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from cli.remote.watch_view import Snapshot, format_summary
from greentune.models import Job
from store.database import Database
from store.repositories.jobs import JobRepository

pytestmark = pytest.mark.fault(number=13)

LINES = {
    "less_work_saving": 0.375,
    "moved_in_time_saving": 0.04,
    "queueing_saving": 0.11,
    "owner_pause_saving": -0.02,
    "lost_work_saving": -0.625,
}


def store_savings(database: Database, job_id: str, **savings: float) -> None:
    """Store these savings for a job whose emissions are accounted for."""
    with database.session() as session:
        job = JobRepository(session).lock(job_id)
        assert job is not None
        assert job.counterfactuals is not None
        kept = {name: value for name, value in job.counterfactuals.items() if not name.endswith("_saving")}
        job.counterfactuals = {**kept, **savings}


def get_job(client: TestClient, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"/jobs/{job_id}").json()
    return found


def test_the_five_savings_are_returned_and_add_up_to_the_total(settled_job_id: str, client: TestClient) -> None:
    job = get_job(client, settled_job_id)
    full = job["counterfactuals"]["full_now"]["emissions_gco2e"]
    assert sum(job[name] for name in LINES) == pytest.approx((full - job["emissions_gco2e"]) / full)


def test_page_and_command_line_show_each_saving(settled_job_id: str, client: TestClient, database: Database) -> None:
    store_savings(database, settled_job_id, **LINES)
    markup = client.get(f"/dashboard/jobs/{settled_job_id}").text
    for words, share in (
        ("Less work", "37.5 %"),
        ("Moved in time", "4.0 %"),
        ("Waiting for a worker", "11.0 %"),
        ("Paused by its owner", "−2.0 %"),
        ("Work done twice", "−62.5 %"),
    ):
        assert f'<th scope="row">{words}</th><td class="figure">{share}</td>' in markup
    assert "Work done twice: −62.5 %" in markup

    shown = format_summary(Snapshot(Job.model_validate(get_job(client, settled_job_id)), None, None))
    [line] = [line for line in shown if line.startswith("saved")]
    for part in ("37.5 % by less work", "4.0 % by moving it in time", "−62.5 % by work done twice"):
        assert part in line


def test_counterfactuals_stored_by_an_earlier_version_are_readable(
    settled_job_id: str, client: TestClient, database: Database
) -> None:
    store_savings(database, settled_job_id, less_work_saving=0.42, moved_in_time_saving=0.1)
    job = get_job(client, settled_job_id)
    assert [job[name] for name in LINES] == [0.42, 0.1, None, None, None]
    markup = client.get(f"/dashboard/jobs/{settled_job_id}").text
    assert '<th scope="row">Moved in time</th><td class="figure">10.0 %</td>' in markup
    assert "Work done twice" not in markup
