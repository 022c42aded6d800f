"""The jobs page in a real browser: its rows, filter and pages, and the cost of polling it."""

import re
from datetime import UTC, datetime

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from greencore.carbon import Basis, Reading
from store.database import Database
from store.intensity.readings import GridRepository
from store.lifecycle.status import JobStatus
from store.lifecycle.transitions import transition
from store.repositories.jobs import JobRepository
from store.tables import Job
from tests.browser.accessible import check_accessible
from tests.browser.conftest import Dashboard, SignIn
from tests.browser.measures import seconds_to_last_row
from tests.browser.stage import hour_before, stage_all, stage_dataset, stage_job, stage_many
from tests.browser.watch import monitor_of

RENEW = "() => import('/static/js/live.js').then((live) => live.renew())"


@pytest.fixture
def ids(dashboard: Dashboard) -> dict[str, str]:
    return stage_all(dashboard.database, dashboard.settings)


@pytest.fixture
def few(dashboard: Dashboard) -> dict[str, str]:
    """Three unfinished jobs, ids by status; faster to stage than `ids`."""
    now = datetime.now(UTC)
    dataset = stage_dataset(dashboard.database, dashboard.settings, now=now)
    staged = {JobStatus.QUEUED: "GB", JobStatus.DEFERRED: "DE", JobStatus.RUNNING: "GB"}
    return {
        status.value: stage_job(dashboard.database, dashboard.settings, dataset, status, now=now, zone=zone)
        for status, zone in staged.items()
    }


def rows(page: Page) -> Locator:
    return page.locator("tr[data-job]")


def row(page: Page, job_id: str) -> Locator:
    return page.locator(f'tr[data-job="{job_id}"]')


def answers(page: Page) -> list[int]:
    """Status of each answer on the wire; grows. The page itself gets the cached answer instead of a 304."""
    seen: list[int] = []
    session = page.context.new_cdp_session(page)
    session.on("Network.responseReceivedExtraInfo", lambda answer: seen.append(answer["statusCode"]))
    session.send("Network.enable")
    return seen


def move(database: Database, job_id: str, status: JobStatus) -> None:
    """Move a job to a status, as a worker or its owner does."""
    with database.session() as session:
        job = JobRepository(session).lock(job_id)
        assert job is not None
        transition(session, job, status, at=datetime.now(UTC))


def test_a_row_shows_a_jobs_status_end_and_savings(page: Page, ids: dict[str, str]) -> None:
    page.goto("/")

    running = row(page, ids["running"])
    for text in ("running", "epoch 5 of 8", "gCO2e/kWh", "provisional", "team=speech"):
        expect(running).to_contain_text(text)
    for column in ("End", "Emissions", "Saved by less work", "Saved by moving in time"):
        expect(page.get_by_role("columnheader", name=column)).to_contain_text("est.")
    expect(running.get_by_role("img", name=re.compile(r"loss from 3\.\d+ to 1\.\d+"))).to_be_visible()
    expect(running.locator(".end")).to_have_text(re.compile(r"\d+ \w+ \d\d:\d\d\s+.*\d\d:\d\d – .*\d\d:\d\d"))
    expect(row(page, ids["succeeded"]).get_by_role("cell")).to_have_count(10)
    expect(row(page, ids["succeeded"]).locator("[data-label='Saved by less work, est.']")).to_contain_text("%")
    expect(row(page, ids["succeeded"]).locator("[data-label='Saved by moving in time, est.']")).to_contain_text("%")
    expect(row(page, ids["succeeded"])).not_to_contain_text("gCO2e/kWh")
    expect(row(page, ids["deferred"])).to_contain_text("gate closed, expected to open")
    expect(row(page, ids["failed"])).to_contain_text("try a smaller batch_size")
    check_accessible(page)


def test_a_filter_is_applied_at_once_written_into_the_url_and_undone_by_the_back_button(
    page: Page, ids: dict[str, str]
) -> None:
    page.goto("/")
    page.get_by_label("Status", exact=True).focus()
    page.get_by_label("Status", exact=True).select_option("running")

    expect(rows(page)).to_have_count(1)
    expect(page).to_have_url(re.compile(r"/\?status=running$"))
    expect(page.get_by_label("Status", exact=True)).to_be_focused()
    expect(page.locator("#announcement")).to_have_text("1 job shown")
    page.go_back()
    expect(page.get_by_label("Status", exact=True)).to_have_value("")
    expect(rows(page)).to_have_count(len(ids))
    page.go_forward()
    expect(page.get_by_label("Status", exact=True)).to_have_value("running")
    expect(rows(page)).to_have_count(1)

    page.get_by_label("Metadata", exact=True).fill("team=vision")
    page.get_by_role("button", name="Filter").click()
    expect(page.get_by_text("No job matches all of")).to_be_visible()
    check_accessible(page)
    page.get_by_role("link", name="Do not filter by team=vision").click()
    expect(rows(page)).to_have_count(1)
    page.get_by_label("Metadata", exact=True).fill("team=speech")
    page.get_by_label("Metadata", exact=True).press("Enter")
    expect(page).to_have_url(re.compile(r"\?status=running&metadata%5Bteam%5D=speech$"))
    expect(page.get_by_role("link", name="Do not filter by team=speech")).to_be_visible()
    expect(rows(page)).to_have_count(1)

    page.go_back()
    expect(page.get_by_role("link", name="Do not filter by team=speech")).to_have_count(0)
    expect(page.get_by_label("Status", exact=True)).to_have_value("running")
    page.get_by_role("link", name="Clear").click()
    expect(rows(page)).to_have_count(len(ids))
    expect(page.get_by_label("Status", exact=True)).to_have_value("")
    page.get_by_role("link", name="1 paused").click()
    expect(rows(page)).to_have_count(1)
    page.go_back()
    expect(rows(page)).to_have_count(len(ids))


def test_jobs_are_filtered_by_name_model_and_owner(page: Page, few: dict[str, str], dashboard: Dashboard) -> None:
    with dashboard.database.session() as session:
        session.get_one(Job, few["deferred"]).name = "Tickets, 3rd try"
        session.get_one(Job, few["deferred"]).owner = "alice"
    page.goto("/")
    page.get_by_label("Name", exact=True).fill("Tickets, 3rd try")
    page.get_by_label("Name", exact=True).press("Enter")
    expect(rows(page)).to_have_count(1)
    expect(rows(page)).to_contain_text("Tickets, 3rd try")
    page.get_by_label("Owner", exact=True).fill("ops")
    page.get_by_label("Model", exact=True).select_option("SmolLM2-135M-Instruct")
    expect(page.get_by_text("No job matches all of")).to_be_visible()
    check_accessible(page)
    page.get_by_role("link", name="Do not filter by owner ops").click()
    expect(rows(page)).to_have_count(1)
    expect(page).to_have_url(re.compile(r"\?name=Tickets%2C\+3rd\+try&model=SmolLM2-135M-Instruct$"))
    page.go_back()
    expect(page.get_by_label("Owner", exact=True)).to_have_value("ops")


def test_an_invalid_filter_shows_its_error(page: Page, few: dict[str, str]) -> None:
    monitor_of(page).expect("422")
    page.goto("/")
    asked = len(monitor_of(page).requests)
    page.get_by_label("Metadata", exact=True).fill("speech")
    page.get_by_label("Metadata", exact=True).press("Enter")
    expect(page.get_by_text("Expected key=value")).to_be_visible()
    expect(page.get_by_label("Metadata", exact=True)).to_be_focused()
    assert not [request for request in monitor_of(page).requests[asked:] if "speech" in request.url]

    for address, message in (
        ("/?status=done", "there is no 'done': expected validating, queued"),
        ("/?metadata=speech", "given 'speech': expected key=value"),
        ("/?zone=%00", "the character NUL"),
    ):
        answer = page.goto(address)
        assert answer is not None
        assert (answer.status, answer.headers["content-type"]) == (422, "text/html; charset=utf-8")
        expect(page.get_by_role("alert").filter(has_text=message)).to_be_visible()
    check_accessible(page)
    page.get_by_role("link", name="Show all jobs").click()
    expect(rows(page)).to_have_count(len(few))

    page.goto("/?zone=Atlantis")
    expect(page.get_by_text("Atlantis is not a zone of this service")).to_be_visible()
    expect(page.get_by_text("No job matches all of")).to_be_visible()


def test_without_scripts_the_form_filters_too(page: Page, browser: Browser, few: dict[str, str]) -> None:
    state = page.context.storage_state()
    context = browser.new_context(base_url=page.url, storage_state=state, java_script_enabled=False)
    plain = context.new_page()
    plain.goto("/")
    plain.get_by_label("Zone", exact=True).select_option("DE")
    plain.get_by_label("Metadata", exact=True).fill("team=speech")
    plain.get_by_role("button", name="Filter").click()

    assert plain.url.endswith("/?zone=DE&metadata%5Bteam%5D=speech")
    assert rows(plain).evaluate_all("(rows) => rows.map((row) => row.dataset.job)") == [few["deferred"]]
    plain.get_by_label("Status", exact=True).select_option("running")
    plain.get_by_role("button", name="Filter").click()
    assert plain.url.endswith("/?status=running&zone=DE&metadata%5Bteam%5D=speech")
    assert rows(plain).count() == 0
    context.close()


def test_a_poll_without_changes_is_a_304_and_changes_nothing(
    page: Page, ids: dict[str, str], dashboard: Dashboard
) -> None:
    page.goto("/?metadata[team]=speech")
    answered = answers(page)
    page.evaluate(
        "() => { window.changes = 0; new MutationObserver((seen) => (window.changes += seen.length))"
        ".observe(document.getElementById('main'), {subtree: true, childList: true, characterData: true}); }"
    )
    for _ in range(3):
        with page.expect_response(re.compile(r"metadata")):
            page.evaluate(RENEW)
    with page.expect_response(re.compile(r"metadata")) as polled:  # and by itself, within three seconds
        pass
    polled.value.finished()

    assert len(answered) >= 4
    assert set(answered) == {304}
    assert polled.value.request.sizes()["responseBodySize"] == 0
    assert page.evaluate("window.changes") == 0

    start = hour_before(datetime.now(UTC))
    with dashboard.database.session() as session:
        zone = GridRepository(session).newest_reading("GB", Basis(), at=datetime.now(UTC))
        assert zone is not None
        cleaner = Reading(zone="GB", start=zone.start, end=zone.end, gco2e_per_kwh=33.0, source="uk", fetched_at=start)
        GridRepository(session).put([cleaner])
    page.evaluate(RENEW)
    expect(row(page, ids["running"])).to_contain_text("33 gCO2e/kWh very clean")
    assert page.evaluate("window.changes") > 0


def test_a_change_is_announced_once_and_leaves_the_focus_where_it_was(
    page: Page, few: dict[str, str], dashboard: Dashboard
) -> None:
    page.goto("/")
    page.evaluate(
        "() => { window.said = []; new MutationObserver(() => { const text = "
        "document.getElementById('announcement').textContent; if (text) window.said.push(text); })"
        ".observe(document.getElementById('announcement'), {childList: true}); }"
    )
    link = row(page, few["queued"]).get_by_role("link")
    link.focus()
    with dashboard.database.session() as session:
        session.get_one(Job, few["running"]).loss = 1.2345
    page.evaluate(RENEW)
    expect(row(page, few["running"])).to_contain_text("1.234")
    expect(link).to_be_focused()
    assert page.evaluate("window.said") == []

    move(dashboard.database, few["running"], JobStatus.PAUSING)
    page.evaluate(RENEW)
    expect(row(page, few["running"])).to_contain_text("pausing")
    expect(link).to_be_focused()
    expect(page.locator("#announcement")).to_have_text(f"Job ending in {few['running'][-8:]} is pausing")
    page.get_by_role("region", name="Jobs").focus()
    dataset = stage_dataset(dashboard.database, dashboard.settings, now=datetime.now(UTC))
    stage_job(dashboard.database, dashboard.settings, dataset, JobStatus.QUEUED, now=datetime.now(UTC))
    page.evaluate(RENEW)
    expect(rows(page)).to_have_count(len(few) + 1)
    expect(page.get_by_role("link", name="2 queued")).to_be_visible()
    expect(page.get_by_role("region", name="Jobs")).to_be_focused()
    assert page.evaluate("window.said.length") == 1


def test_an_empty_list_leads_to_the_form_and_users_see_their_own_jobs_only(
    sign_in: SignIn, dashboard: Dashboard
) -> None:
    alice = sign_in("alice", "user")
    expect(alice.get_by_text("No jobs yet")).to_be_visible()
    check_accessible(alice)
    stage_all(dashboard.database, dashboard.settings)
    alice.goto("/")
    expect(alice.get_by_text("no job under way")).to_be_visible()
    expect(alice.get_by_role("link", name="Submit the first job")).to_have_attribute("href", "/dashboard/submit")


def test_with_10_000_jobs_stored_the_page_loads_within_a_second_and_pages_keep_the_filter(
    page: Page, ids: dict[str, str], dashboard: Dashboard
) -> None:
    stage_many(dashboard.database, 10_000)

    for address in ("/", "/?status=succeeded&zone=GB&metadata[team]=speech"):
        # The best of three: other tests run beside this one.
        assert min(seconds_to_last_row(page, address) for _ in range(3)) < 1.0
        assert rows(page).count() == 50

    page.get_by_role("link", name="Older jobs").click()
    expect(page).to_have_url(re.compile(r"status=succeeded&zone=GB&metadata%5Bteam%5D=speech&after=job_0\w+$"))
    expect(rows(page)).to_have_count(50)
    expect(page.get_by_text("50 older jobs")).to_be_visible()
    page.get_by_role("link", name="Newest jobs").click()
    expect(row(page, ids["succeeded"])).to_be_visible()
    page.goto("/?status=succeeded&after=job_0")
    expect(page.get_by_text("No job of these is older.")).to_be_visible()
