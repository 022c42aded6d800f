"""`/dashboard/submit` in a real browser: a form that estimates a job, and submits it once."""

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect
from sqlalchemy import func, select

from greencore.settings.hyperparameters import Hyperparameters
from store.database import Database
from store.lifecycle.status import JobStatus
from store.repositories.jobs import JobRepository
from store.tables import Artifact, Job
from tests.browser.accessible import check_accessible
from tests.browser.conftest import Dashboard, SignIn
from tests.browser.keyboard import tab_to, type_over
from tests.browser.pages.conftest import MODEL, REFUSED, estimate, measure
from tests.browser.pictures import take_pictures
from tests.browser.stage import stage_dataset, stage_job
from tests.browser.watch import monitor_of
from tests.stand_in_settings import StandIn


def jobs(database: Database) -> int:
    with database.session() as session:
        return session.scalar(select(func.count()).select_from(Job)) or 0


def submitted(page: Page, database: Database) -> Any:
    """The job whose page the browser is led to."""
    page.wait_for_url("**/dashboard/jobs/job_*")
    with database.session() as session:
        job = JobRepository(session).get(page.url.rsplit("/", 1)[1])
        assert job is not None
        session.expunge(job)
        return job


def test_the_form_is_completed_and_submitted_by_keyboard_alone(page: Page, dashboard: Dashboard, dataset: str) -> None:
    page.goto("/dashboard/submit")
    tab_to(page, "#dataset")
    page.keyboard.type("sums")
    tab_to(page, "#file")
    tab_to(page, "#policy")
    page.keyboard.type("night")
    tab_to(page, "#zone")
    page.keyboard.type("GB")
    tab_to(page, "[data-hours='12']")
    page.keyboard.press("Space")
    tab_to(page, "#resources-gpus")
    page.keyboard.type("2")
    tab_to(page, "#hyperparameters-epochs")
    type_over(page, "5")
    tab_to(page, "details:has([aria-label='Run']) > summary")
    page.keyboard.press("Enter")
    tab_to(page, "#hyperparameters-seed")
    tab_to(page, "#add-metadata")
    page.keyboard.press("Enter")
    page.keyboard.type("by")
    page.keyboard.press("Tab")
    page.keyboard.type("hand")
    tab_to(page, "[aria-label='Remove pair 1']")
    expect(estimate(page)).to_contain_text("Best window")
    tab_to(page, "button.main")
    page.keyboard.press("Enter")

    job = submitted(page, dashboard.database)
    assert (job.dataset_id, job.policy_name, job.zone_asked, job.epochs) == (dataset, "night-shift", "GB", 5)
    assert job.labels == {"by": "hand"}
    assert (job.gpus_asked, job.gpus) == (2, 2)
    assert job.deadline is not None


def test_the_estimate_is_beside_the_form_and_the_job_is_as_entered(
    page: Page, dashboard: Dashboard, dataset: str
) -> None:
    page.goto("/dashboard/submit")
    expect(page.locator("#model-hint")).to_contain_text("134,515,008 parameters in 272 tensors; ρ at least 0.35")
    page.get_by_label("Dataset", exact=True).select_option(dataset)
    page.get_by_label("Zone").select_option("DE")
    expect(page.locator("#zone-intensity .intensity")).to_contain_text("gCO2e/kWh")
    page.get_by_label("Policy").select_option("night-shift")
    expect(page.locator("#policy-hint")).to_contain_text("waits for the best window")
    page.get_by_role("button", name="+24 h").click()
    page.get_by_role("button", name="Add a pair").click()
    page.get_by_label("Key of pair 1").fill("team")
    page.get_by_label("Value of pair 1").fill("speech")

    shown = estimate(page)
    for text in ("Now", "Best window", "gCO2e", "kWh", "Meets the deadline", "yes", "assumed", "saves"):
        expect(shown).to_contain_text(text)
    shown.get_by_text("Basis of the estimate").click()
    expect(shown.locator(".basis")).to_contain_text("DE, requested: now")
    check_accessible(page)
    take_pictures(page, "submit-estimated")

    page.get_by_role("button", name="Submit").click()
    job = submitted(page, dashboard.database)
    assert (job.model, job.dataset_id, job.zone_asked, job.policy_name) == (MODEL, dataset, "DE", "night-shift")
    assert job.labels == {"team": "speech"}
    assert abs(job.deadline - datetime.now(UTC) - timedelta(hours=24)) < timedelta(minutes=2)
    assert job.hyperparameters["epochs"] == 3


def test_a_double_click_and_a_retry_make_one_job(page: Page, dashboard: Dashboard, dataset: str) -> None:
    page.goto("/dashboard/submit")
    page.get_by_label("Dataset", exact=True).select_option(dataset)

    # The first answer is lost: the job is stored, and the browser does not know.
    monitor_of(page).expect("ERR_CONNECTION_RESET")

    def lose(route: Any) -> None:
        route.fetch()
        route.abort("connectionreset")

    page.route("**/jobs", lose, times=1)
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("alert")).to_contain_text("cannot be reached")
    assert jobs(dashboard.database) == 1

    page.reload()
    expect(page.get_by_label("Dataset", exact=True)).to_have_value(dataset)
    page.get_by_role("button", name="Submit").dblclick()
    submitted(page, dashboard.database)
    assert jobs(dashboard.database) == 1

    # The next submission makes another job, though its values are the same.
    page.goto("/dashboard/submit")
    page.get_by_label("Dataset", exact=True).select_option(dataset)
    page.get_by_role("button", name="Submit").click()
    submitted(page, dashboard.database)
    assert jobs(dashboard.database) == 2


def test_each_error_is_shown_at_its_field(page: Page, dashboard: Dashboard, dataset: str) -> None:
    monitor_of(page).expect(REFUSED)
    page.goto("/dashboard/submit")

    page.get_by_role("button", name="Submit").click()
    expect(page.locator("#dataset-error")).to_have_text("choose a dataset")
    expect(page.get_by_label("Dataset", exact=True)).to_be_focused()

    page.get_by_label("Method").select_option("greentrainer")
    page.get_by_label("Dataset", exact=True).select_option(dataset)
    expect(page.locator("#dataset-error")).to_be_hidden()
    expect(estimate(page)).to_contain_text("gCO2e")
    page.get_by_label("Epochs").fill("0")
    page.get_by_label("Learning rate").fill("fast")
    page.get_by_label("Policy").select_option("{}")
    page.get_by_label("As JSON").fill('{"kind": "constant", "rho": 7}')
    expect(page.locator("#hyperparameters-epochs-error")).to_contain_text("greater than or equal to 1")
    expect(page.get_by_label("Epochs")).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#hyperparameters-learning_rate-error")).to_contain_text("valid number")
    page.get_by_label("Epochs").fill("2")
    page.get_by_label("Learning rate").fill("1e-4")
    expect(page.locator("#policy-error")).to_contain_text("rho: ")
    expect(page.locator("#hyperparameters-epochs-error")).to_be_hidden()
    page.get_by_label("As JSON").fill('{"kind": "constant", "rho": 0.1}')
    expect(page.locator("#policy-error")).to_contain_text("needs at least 0.35")
    check_accessible(page)

    page.get_by_label("As JSON").fill('{"kind": ')
    page.get_by_role("button", name="Submit").click()
    expect(page.locator("#policy-error")).to_contain_text("not JSON")
    expect(page.get_by_label("As JSON")).to_be_focused()
    assert jobs(dashboard.database) == 0


def test_settings_of_every_kind_are_sent_as_their_schema_has_them(
    page: Page, dashboard: Dashboard, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.dashboard.submit.Hyperparameters", StandIn)
    monitor_of(page).expect(REFUSED)
    page.goto("/dashboard/submit")
    sent: list[Any] = []

    def refuse(route: Route) -> None:
        sent.append(json.loads(route.request.post_data or "{}")["hyperparameters"])
        errors = [{"field": "hyperparameters.probe.rank", "message": "too large"}]
        errors += [{"field": "hyperparameters.probe.targets[1]", "message": "matches no tensor"}]
        errors += [{"field": "hyperparameters.stopping", "message": "cannot be had"}]
        route.fulfill(status=422, json={"title": "?", "status": 422, "detail": "?", "errors": errors})

    page.route("**/jobs/estimate", refuse)
    page.get_by_label("Dataset", exact=True).select_option(dataset)
    expect(page.get_by_text("A probe")).to_be_hidden()
    page.get_by_label("Method").select_option("lora")
    for group in ("Batches", "Quality", "A probe", "Stopping"):
        page.locator("summary").get_by_text(group, exact=True).click()
    probe = page.get_by_role("group", name="A probe")
    check_accessible(page)
    page.get_by_label("Size").fill("auto")
    page.get_by_label("Packing").select_option("off")
    page.get_by_label("Marks").fill("loss, rouge")
    expect(probe.get_by_label("Rank")).to_have_attribute("placeholder", "8")
    probe.get_by_label("Rank").fill("16")
    probe.get_by_label("Targets").fill("q,v")
    probe.get_by_label("Scaled").select_option("on")
    page.get_by_role("group", name="Stopping").get_by_label("Rank").fill("3")

    expect(page.locator("#hyperparameters-probe-rank-error")).to_have_text("too large")
    expect(page.locator("#hyperparameters-probe-targets-error")).to_have_text("[1]: matches no tensor")
    expect(page.locator("#hyperparameters-stopping-error")).to_have_text("cannot be had")
    expect(probe.get_by_label("Rank")).to_have_attribute("aria-invalid", "true")
    check_accessible(page)
    expected = {
        "size": "auto",
        "packing": False,
        "marks": ["loss", "rouge"],
        "probe": {"rank": 16, "targets": ["q", "v"], "scaled": True},
        "stopping": {"rank": 3},
    }
    assert sent[-1] == expected

    # Settings of a group are sent with its method alone.
    page.get_by_label("Method").select_option("full")
    expect(probe).to_be_hidden()
    with page.expect_response("**/jobs/estimate"):
        pass
    assert sent[-1] == {name: value for name, value in expected.items() if name != "probe"}


def test_quick_changes_request_one_estimate(page: Page, dashboard: Dashboard, dataset: str) -> None:
    page.goto("/dashboard/submit")
    page.get_by_label("Dataset", exact=True).select_option(dataset)
    expect(estimate(page)).to_contain_text("gCO2e")
    asked = monitor_of(page).requests
    before = len([request for request in asked if request.url.endswith("/jobs/estimate")])

    page.get_by_label("Epochs").press_sequentially("0", delay=30)
    for epochs in ("11", "12", "13"):
        page.get_by_label("Epochs").fill(epochs)
    with page.expect_response("**/jobs/estimate"):
        pass
    time.sleep(0.6)

    since = [request for request in asked if request.url.endswith("/jobs/estimate")][before:]
    assert [json.loads(request.post_data or "{}")["hyperparameters"]["epochs"] for request in since] == [13]


def test_values_survive_a_reload_and_start_over_clears_them(page: Page, dashboard: Dashboard, dataset: str) -> None:
    page.goto("/dashboard/submit")
    page.get_by_label("Dataset", exact=True).select_option(dataset)
    page.get_by_label("Epochs").fill("7")
    page.locator("summary").get_by_text("Run", exact=True).click()
    page.get_by_label("Seed").fill("42")
    page.get_by_label("Policy").select_option("{}")
    page.get_by_label("As JSON").fill('{"kind": "constant", "rho": 0.8')
    page.get_by_role("button", name="Add a pair").click()
    page.get_by_label("Key of pair 1").fill("team")

    page.reload()

    expect(page.get_by_label("Dataset", exact=True)).to_have_value(dataset)
    expect(page.get_by_label("Epochs")).to_have_value("7")
    expect(page.get_by_label("Seed")).to_have_value("42")
    expect(page.get_by_label("As JSON")).to_have_value('{"kind": "constant", "rho": 0.8')
    expect(page.get_by_label("Key of pair 1")).to_have_value("team")

    page.get_by_role("button", name="Start over").click()
    page.reload()
    expect(page.get_by_label("Epochs")).to_have_value("3")
    expect(page.get_by_label("Key of pair 1")).to_have_count(0)


def test_a_copy_of_a_job_can_be_submitted(page: Page, dashboard: Dashboard, dataset: str) -> None:
    first = stage_job(
        dashboard.database,
        dashboard.settings,
        dataset,
        JobStatus.CANCELLED,
        now=datetime.now(UTC),
        priority=7,
        zone_asked=None,
        hyperparameters=Hyperparameters(epochs=8, learning_rate=1e-4).model_dump(mode="json"),
    )

    page.goto(f"/dashboard/submit?from={first}")
    expect(page.locator("details.group[open]")).to_have_count(0)  # their settings are the defaults
    expect(page.get_by_label("Policy")).to_have_value("follow-the-grid")
    expect(page.get_by_label("Epochs")).to_have_value("8")
    expect(page.get_by_label("Learning rate")).to_have_value("0.0001")
    expect(page.get_by_label("Key of pair 1")).to_have_value("team")
    page.get_by_role("button", name="Submit").click()

    job = submitted(page, dashboard.database)
    assert job.id != first
    assert (job.priority, job.zone_asked, job.labels) == (7, None, {"team": "speech"})
    assert (job.policy_name, job.hyperparameters["epochs"]) == ("follow-the-grid", 8)


def test_a_copy_keeps_a_prompt_of_several_lines(page: Page, dashboard: Dashboard, dataset: str) -> None:
    prompt = "Translate:\n  cheese\n\nTo French:\n"
    given = Hyperparameters(sample_prompt=prompt).model_dump(mode="json")
    now = datetime.now(UTC)
    first = stage_job(
        dashboard.database, dashboard.settings, dataset, JobStatus.CANCELLED, now=now, hyperparameters=given
    )

    page.goto(f"/dashboard/submit?from={first}")
    expect(page.get_by_label("Sample prompt")).to_have_value(prompt)
    page.get_by_role("button", name="Submit").click()

    assert submitted(page, dashboard.database).hyperparameters["sample_prompt"] == prompt


def test_a_model_gets_its_estimate_once_it_is_measured(page: Page, dashboard: Dashboard) -> None:
    now = datetime.now(UTC)
    dataset = stage_dataset(dashboard.database, dashboard.settings, now=now)
    page.goto("/dashboard/submit")
    page.get_by_label("Dataset", exact=True).select_option(dataset)
    expect(estimate(page)).to_contain_text("is being measured")

    measure(dashboard.database)
    expect(estimate(page)).to_contain_text("gCO2e", timeout=10_000)
    expect(page.locator("#model-hint")).to_contain_text("134,515,008 parameters")


def test_a_user_can_choose_only_their_own_datasets(sign_in: SignIn, dashboard: Dashboard, dataset: str) -> None:
    now = datetime.now(UTC)
    own = stage_dataset(dashboard.database, dashboard.settings, now=now, owner="alice")
    page = sign_in("alice", "user")
    page.goto(f"/dashboard/submit?dataset={dataset}")

    values = page.locator("#dataset option").evaluate_all("options => options.map((option) => option.value)")
    assert values == ["", own]
    foreign = stage_job(dashboard.database, dashboard.settings, dataset, JobStatus.CANCELLED, now=now)
    assert page.request.get(f"/dashboard/submit?from={foreign}").status == 404


def test_a_finished_job_is_trained_further_with_settings_of_its_method(
    page: Page, dashboard: Dashboard, dataset: str
) -> None:
    base = stage_job(dashboard.database, dashboard.settings, dataset, JobStatus.SUCCEEDED, now=datetime.now(UTC))
    with dashboard.database.session() as session:
        session.merge(Artifact(job_id=base, name="config.json", bytes=2, sha256="0", created_at=datetime.now(UTC)))
    page.goto(f"/dashboard/jobs/{base}")
    page.get_by_role("link", name="Train further").click()
    expect(page.locator("#model")).to_have_value(base)
    page.get_by_label("Dataset", exact=True).select_option(dataset)
    expect(estimate(page)).to_contain_text("Now")
    page.get_by_label("Method").select_option("greentrainer")
    page.locator("summary", has_text="Adaptive backpropagation").click()
    page.locator("[name='hyperparameters.adaptive.never_train']").fill("*.embed_tokens.*, lm_head.*")
    page.locator("button.main").click()

    job = submitted(page, dashboard.database)
    assert (job.model, job.base_job_id) == (MODEL, base)
    assert job.hyperparameters["adaptive"]["never_train"] == ["*.embed_tokens.*", "lm_head.*"]
    expect(page.get_by_role("link", name=base)).to_be_visible()


def test_a_method_left_open_is_chosen_in_the_estimate_and_copied_as_it_was_asked_for(
    page: Page, dashboard: Dashboard, dataset: str
) -> None:
    page.goto("/dashboard/submit")
    page.get_by_label("Dataset", exact=True).select_option(dataset)
    expect(page.get_by_label("Method")).to_have_value("auto")
    expect(page.locator("#method-hint")).to_contain_text("chosen as the job is prepared")
    expect(page.get_by_text("Adaptive backpropagation", exact=True)).to_be_hidden()
    page.locator("summary").get_by_text("LoRA", exact=True).click()
    page.locator("[name='hyperparameters.lora.rank']").fill("4")
    page.get_by_label("Learning rate", exact=True).fill("2e-05")  # the default, and yet asked for
    expect(estimate(page)).to_contain_text("is chosen: a budget of 1.8 epochs of full fine-tuning (3 at ρ = 0.6)")
    page.locator("button.main").click()
    job = submitted(page, dashboard.database)
    assert (job.method_asked, job.hyperparameters_asked) == ("auto", {"lora": {"rank": 4}, "learning_rate": 2e-05})

    with dashboard.database.session() as session:
        jobs = JobRepository(session)
        locked = jobs.lock(job.id)
        assert locked is not None
        chosen = Hyperparameters(max_steps=7, epochs=None).model_dump(mode="json")
        jobs.set_method(locked, "full", hyperparameters=chosen, reason="it learned most", at=datetime.now(UTC))
    page.reload()
    expect(page.get_by_text("full, for auto")).to_be_visible()
    page.get_by_role("link", name="Submit a copy").click()
    expect(page.get_by_label("Method")).to_have_value("auto")
    expect(page.get_by_label("Epochs")).to_have_value("3")
    expect(page.locator("[name='hyperparameters.lora.rank']")).to_have_value("4")
