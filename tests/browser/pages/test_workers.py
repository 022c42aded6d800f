"""`/dashboard/workers` in a real browser: the processes and their jobs, as they change."""

from datetime import UTC, datetime, timedelta

from playwright.sync_api import Page, expect

from runtime.site import Site
from store.lifecycle.status import JobStatus
from store.repositories.workers import WorkerRepository
from store.tables import Job, Worker
from tests.browser.accessible import check_accessible
from tests.browser.conftest import Dashboard, SignIn
from tests.browser.pictures import take_pictures
from tests.browser.stage import stage_dataset, stage_job, stage_workers


def test_without_a_worker_the_page_says_how_to_start_one(page: Page) -> None:
    page.goto("/dashboard/workers")

    expect(page.get_by_text("python -m worker train")).to_be_visible()
    expect(page.get_by_role("table")).to_have_count(0)
    check_accessible(page)


def test_each_process_is_shown_with_its_job_and_changes_appear(page: Page, dashboard: Dashboard) -> None:
    now = datetime.now(UTC)
    dataset = stage_dataset(dashboard.database, dashboard.settings, now=now)
    job = stage_job(dashboard.database, dashboard.settings, dataset, JobStatus.RUNNING, now=now, epochs_done=2)
    stage_workers(dashboard.database, now=now, busy_with=job)
    with dashboard.database.session() as session:
        WorkerRepository(session).record_heartbeat(
            "worker-c", at=now - timedelta(minutes=10), site=Site(zone="DE"), device="cpu"
        )

    page.goto("/dashboard/workers")

    busy = page.get_by_role("row", name="worker-a")
    expect(busy).to_contain_text("busy")
    expect(busy).to_contain_text("FRPUE 1.2")
    expect(busy).to_contain_text("epoch 2 of 8")
    expect(busy.get_by_role("link", name=job)).to_have_attribute("href", f"/dashboard/jobs/{job}")
    expect(page.get_by_role("row", name="worker-b")).to_contain_text("idle")
    expect(page.get_by_role("row", name="worker-c")).to_contain_text("lost")
    expect(page.get_by_role("row", name="worker-c")).to_contain_text("no heartbeat since then")
    expect(page.get_by_role("row", name="scheduler-a")).to_contain_text("schedules")
    check_accessible(page)
    take_pictures(page, "workers-busy")

    with page.expect_response("**/dashboard/workers") as polled:
        pass
    assert polled.value.request.headers.get("accept") == "text/html"
    assert page.request.get("/dashboard/workers", headers={"If-None-Match": polled.value.headers["etag"]}).status == 304

    with dashboard.database.session() as session:
        row = session.get_one(Job, job)
        row.epochs_done, row.revision = 3, row.revision + 1
    expect(page.get_by_role("row", name="worker-a")).to_contain_text("epoch 3 of 8", timeout=10_000)
    with dashboard.database.session() as session:
        session.delete(session.get_one(Worker, "worker-b"))
    expect(page.get_by_role("row", name="worker-b")).to_have_count(0, timeout=10_000)


def test_another_users_job_is_not_shown(sign_in: SignIn, dashboard: Dashboard) -> None:
    now = datetime.now(UTC)
    dataset = stage_dataset(dashboard.database, dashboard.settings, now=now, owner="bob")
    job = stage_job(dashboard.database, dashboard.settings, dataset, JobStatus.RUNNING, now=now, owner="bob")
    stage_workers(dashboard.database, now=now, busy_with=job)
    page = sign_in("alice", "user")

    page.goto("/dashboard/workers")

    expect(page.get_by_role("row", name="worker-a")).to_contain_text("another user's")
    assert job not in page.content()
