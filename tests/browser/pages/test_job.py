"""The page of a job in a real browser: actions by keyboard, state kept over polls and reloads, and older rows."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import insert

from store.lifecycle.actions import request_action
from store.lifecycle.status import Action, JobStatus
from store.repositories.jobs import JobRepository
from store.tables import EnergyInterval, Epoch, Event, Job
from tests.browser.accessible import check_accessible
from tests.browser.conftest import Dashboard, SignIn
from tests.browser.keyboard import tab_to
from tests.browser.stage import stage_dataset, stage_grid, stage_job
from tests.browser.watch import monitor_of

NOW = datetime.now(UTC)
LARGEST_BYTES = 60_000


@pytest.fixture
def dataset(dashboard: Dashboard) -> str:
    return stage_dataset(dashboard.database, dashboard.settings, now=NOW)


def staged(dashboard: Dashboard, dataset: str, status: JobStatus, **columns: Any) -> str:
    return stage_job(dashboard.database, dashboard.settings, dataset, status, now=NOW, **columns)


def open_job(page: Page, job_id: str) -> None:
    page.goto(f"/dashboard/jobs/{job_id}")
    page.wait_for_load_state("networkidle")


def focused(page: Page) -> str:
    found: str = page.evaluate("document.activeElement.id")
    return found


def status_of(page: Page) -> Any:
    return page.locator("h1 .status")


def announcement(page: Page) -> Any:
    return page.locator("#announcement")


def test_a_job_is_paused_and_resumed_by_keyboard_alone(page: Page, dashboard: Dashboard, dataset: str) -> None:
    open_job(page, staged(dashboard, dataset, JobStatus.QUEUED))

    tab_to(page, "#action-pause")
    page.keyboard.press("Enter")

    expect(status_of(page)).to_have_text("paused")
    expect(announcement(page)).to_have_text("The job is paused: paused by ops")
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    assert focused(page) == "action-cancel", "the focused button is gone: another action has the focus"

    page.keyboard.press("Tab")
    assert focused(page) == "action-resume"
    page.keyboard.press("Space")

    expect(status_of(page)).to_have_text("queued")
    expect(announcement(page)).to_have_text("The job is queued: resumed by ops")


def test_cancelling_is_confirmed_and_done_by_keyboard_alone(page: Page, dashboard: Dashboard, dataset: str) -> None:
    job_id = staged(dashboard, dataset, JobStatus.RUNNING, epochs_done=1)
    open_job(page, job_id)

    tab_to(page, "#action-cancel")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog", name="Cancel this job?")).to_be_visible()
    assert focused(page) == "confirm-no", "the harmless answer has the focus"
    check_accessible(page)
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert focused(page) == "action-cancel"
    expect(status_of(page)).to_have_text("running")

    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(status_of(page)).to_have_text("cancelling")
    expect(announcement(page)).to_have_text("The job is cancelling: asked by ops to stop")
    with dashboard.database.session() as session:
        assert session.get_one(Job, job_id).control == "cancel"
    assert focused(page) == "actions", "no action is left, and the focus stays in their place"


def test_a_refused_action_shows_its_reason(page: Page, dashboard: Dashboard, dataset: str) -> None:
    job_id = staged(dashboard, dataset, JobStatus.FAILED, epochs_done=1)
    open_job(page, job_id)
    with dashboard.database.session() as session:
        session.get_one(Job, job_id).files_removed_at = NOW
    monitor_of(page).expect("409")

    page.get_by_role("button", name="Retry").click()
    page.get_by_role("button", name="Retry the job").click()

    expect(page.get_by_role("alert")).to_contain_text(f"cannot retry {job_id}: its files were removed")
    expect(status_of(page)).to_have_text("failed")


def test_polls_and_reloads_keep_the_focus_and_unfolded_details(page: Page, dashboard: Dashboard, dataset: str) -> None:
    job_id = staged(dashboard, dataset, JobStatus.RUNNING, epochs_done=3)
    open_job(page, job_id)
    page.locator("#details-policy summary").click()
    page.locator("#action-cancel").focus()

    with dashboard.database.session() as session:
        job = JobRepository(session).lock(job_id)
        assert job is not None
        request_action(session, job, Action.PAUSE, by="alice", at=NOW)
        job.priority = 7

    expect(status_of(page)).to_have_text("pausing")
    expect(page.get_by_role("button", name="Pause")).to_have_count(0)
    expect(page.locator("#submission")).to_contain_text("7")
    assert focused(page) == "action-cancel"
    expect(page.locator("#details-policy")).to_have_attribute("open", "")
    assert page.locator("#details-hyperparameters").get_attribute("open") is None

    page.evaluate("scrollTo(0, 700)")
    page.reload()
    expect(page.locator("#details-policy")).to_have_attribute("open", "")
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(500)  # until the charts have their height
    assert page.evaluate("scrollY") == pytest.approx(700, abs=2)


def test_older_events_are_fetched_and_none_is_lost_when_new_ones_come(
    page: Page, dashboard: Dashboard, dataset: str
) -> None:
    job_id = staged(dashboard, dataset, JobStatus.RUNNING, epochs_done=1)
    _add_events(dashboard, job_id, 110)
    open_job(page, job_id)
    rows = page.locator("[data-growing=events] tr[data-row]")
    expect(rows).to_have_count(50)

    page.get_by_role("link", name="Older events").focus()
    page.keyboard.press("Enter")
    expect(rows).to_have_count(100)
    expect(announcement(page)).to_have_text("50 older events")

    _add_events(dashboard, job_id, 2)
    expect(rows).to_have_count(102)
    page.get_by_role("link", name="Older events").click()
    expect(rows).to_have_count(115)
    expect(page.get_by_role("link", name="Older events")).to_have_count(0)
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "History"

    ids = [int(found) for found in page.locator("[data-growing=events] tr[data-row]").evaluate_all(_ROWS)]
    assert ids == sorted(set(ids), reverse=True)
    expect(rows.last).to_contain_text("Submitted")


_ROWS = "(rows) => rows.map((row) => row.dataset.row)"


def test_a_long_job_loads_quickly_and_shows_its_older_epochs_when_asked(
    page: Page, dashboard: Dashboard, dataset: str
) -> None:
    job_id = staged(dashboard, dataset, JobStatus.RUNNING, epochs=90, epochs_done=0, steps_an_epoch=2)
    _add_epochs(dashboard, job_id, 75)
    _add_events(dashboard, job_id, 60)
    page.goto(f"/dashboard/jobs/{job_id}")
    rows = page.locator("[data-growing=epochs] tr[data-row]")
    expect(rows).to_have_count(50)
    expect(rows.first).to_contain_text("75")

    size = page.evaluate("fetch(location.href).then((answer) => answer.text()).then((text) => new Blob([text]).size)")
    assert size < LARGEST_BYTES, f"the page has {size} bytes"

    page.get_by_role("link", name="Older epochs").click()
    expect(rows).to_have_count(75)
    assert page.locator("[data-growing=epochs] tr[data-row]").evaluate_all(_ROWS) == [str(n) for n in range(75, 0, -1)]
    expect(page.get_by_role("link", name="Older epochs")).to_have_count(0)


def test_a_checksum_is_copied_in_full(page: Page, dashboard: Dashboard, dataset: str) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    open_job(page, staged(dashboard, dataset, JobStatus.SUCCEEDED, epochs=2, epochs_done=2))

    page.get_by_role("button", name="Copy the SHA-256 of model.safetensors").click()

    expect(announcement(page)).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == "ab" * 32


def test_a_job_that_is_over_shows_predicted_beside_metered_figures(
    page: Page, dashboard: Dashboard, dataset: str
) -> None:
    stage_grid(dashboard.database, now=NOW, days=2)
    yesterday = NOW - timedelta(days=1)
    work: dict[str, Any] = {"epochs": 2, "epochs_done": 2, "estimate": {"full_flops": 2e15, "training_rows": 3}}
    stage_job(dashboard.database, dashboard.settings, dataset, JobStatus.SUCCEEDED, now=yesterday, **work)
    open_job(page, staged(dashboard, dataset, JobStatus.SUCCEEDED, **work))

    table = page.get_by_role("region", name="Expected and metered")
    for name in ("Time, h", "Energy, kWh", "Emissions, gCO2e"):
        expect(table.get_by_role("rowheader", name=name)).to_be_visible()
    expect(page.get_by_text("by the 2 newest epochs of its model on NVIDIA H100")).to_be_visible()
    check_accessible(page)


def test_another_users_job_is_not_found_on_a_page_with_a_way_on(
    sign_in: SignIn, dashboard: Dashboard, dataset: str
) -> None:
    job_id = staged(dashboard, dataset, JobStatus.QUEUED)
    bob = sign_in("bob", "user")
    monitor_of(bob).expect("404")

    answer = bob.goto(f"/dashboard/jobs/{job_id}")

    assert answer is not None
    assert answer.status == 404
    expect(bob.get_by_role("heading", name="Not Found")).to_be_visible()
    expect(bob.get_by_text(f"there is no job '{job_id}'")).to_be_visible()
    check_accessible(bob)
    bob.get_by_role("link", name="To the jobs").click()
    expect(bob.get_by_role("heading", name="Jobs", level=1)).to_be_visible()


def _add_events(dashboard: Dashboard, job_id: str, count: int) -> None:
    with dashboard.database.session() as session:
        for number in range(count):
            data = {"epoch": number, "rho": 0.7, "reason": "250.3 gCO2e/kWh is between clean and dirty"}
            session.add(Event(job_id=job_id, at=NOW, type="epoch.started", data=data))
        job = JobRepository(session).lock(job_id)
        assert job is not None
        JobRepository(session).increment_revision(job)


def _add_epochs(dashboard: Dashboard, job_id: str, count: int) -> None:
    """Add epochs with a value in every column, the last one running."""
    with dashboard.database.session() as session:
        session.query(Epoch).filter_by(job_id=job_id).delete()
        epochs = [
            {
                "job_id": job_id,
                "number": number,
                "attempt": 1,
                "started_at": NOW + timedelta(minutes=number),
                "finished_at": NOW + timedelta(minutes=number + 1),
                "rho_asked": 0.8346,
                "rho_reached": 0.8246,
                "reason": "182.7 gCO2e/kWh (energy-charts, 12 min old) is between clean and dirty: ρ 0.835",
                "intensity_gco2e_per_kwh": 182.7,
                "intensity_source": "energy-charts",
                "intensity_step": "stale",
                "intensity_age_seconds": 720.0,
                "intensity_estimated": True,
                "tensors_selected": 103,
                "tensors_total": 110,
                "train_loss": 1.638,
                "eval_loss": 1.738,
            }
            for number in range(1, count + 1)
        ]
        session.execute(insert(Epoch), epochs)
        metered = [
            {
                "job_id": job_id,
                "epoch": number,
                "attempt": 1,
                "started_at": NOW + timedelta(minutes=number),
                "finished_at": NOW + timedelta(minutes=number + 1),
                "cpu_kwh": 0.01,
                "gpu_kwh": 0.19456,
                "ram_kwh": 0.0,
                "method": {"cpu": "TDP estimate", "gpu": "NVML", "ram": "capacity estimate"},
                "intensity_gco2e_per_kwh": 182.7,
                "intensity_source": "energy-charts",
                "intensity_estimated": True,
                "emissions_gco2e": 33.2,
            }
            for number in range(1, count + 1)
        ]
        session.execute(insert(EnergyInterval), metered)
        session.get_one(Job, job_id).epochs_done = count - 1
