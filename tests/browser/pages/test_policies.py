"""The policies and their editor: an edit's effect is shown before it is saved, and no version is overwritten unseen."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.sync_api import Page, Response, expect
from sqlalchemy import delete

from api.figures import format_number, format_percent
from api.policies import simulation
from greencore.policy import parse_policy
from store.repositories.policies import PolicyRepository
from store.tables import IntensityReading, Policy
from tests.browser.accessible import check_accessible
from tests.browser.conftest import PATIENCE_MS, Dashboard, SignIn
from tests.browser.keyboard import tab_to, type_over
from tests.browser.pictures import take_pictures
from tests.browser.stage import stage_grid, stage_policies
from tests.browser.watch import monitor_of

POLICIES = "/dashboard/policies"
EDITOR = f"{POLICIES}/follow-the-grid"
LINEAR = {"kind": "linear", "clean": 100, "dirty": 400, "rho_max": 1.0, "rho_min": 0.4}
CURVE = f"{POLICIES}/curve"
SIMULATE = "/policies/simulate"


@pytest.fixture(autouse=True)
def staged(dashboard: Dashboard) -> None:
    now = datetime.now(UTC)
    stage_grid(dashboard.database, now=now)
    stage_policies(dashboard.database, now=now)


def latest(dashboard: Dashboard, name: str = "follow-the-grid") -> Policy:
    with dashboard.database.session() as session:
        found = PolicyRepository(session).latest(name)
        assert found is not None
        return found


def store(dashboard: Dashboard, body: dict[str, Any], name: str = "follow-the-grid") -> None:
    """Store a version as another operator would meanwhile."""
    with dashboard.database.session() as session:
        policy = parse_policy(body).to_json()
        PolicyRepository(session).add_version(name, policy, at=datetime.now(UTC) + timedelta(seconds=1))


def open_editor(page: Page, path: str = EDITOR) -> None:
    page.goto(path)
    expect(page.locator(".compared")).to_be_visible()


def compared(page: Page) -> dict[str, list[str]]:
    """Cells of each row in the backtest's table, without the spread below a figure."""
    rows = page.locator(".compared tbody tr").all()
    return {
        row.locator("th").inner_text(): [cell.inner_text().split("\n")[0] for cell in row.locator("td").all()]
        for row in rows
    }


def asked(response: Response) -> Any:
    return json.loads(response.request.post_data or "{}")


def answers(path: str, **policy: Any) -> Callable[[Response], bool]:
    """Return a test for the response to a call about a policy with such fields."""

    def is_it(response: Response) -> bool:
        return response.url.endswith(path) and policy.items() <= asked(response)["policy"].items()

    return is_it


def test_an_edit_by_keyboard_changes_curve_and_backtest_before_it_is_saved(page: Page, dashboard: Dashboard) -> None:
    open_editor(page)
    before = compared(page)

    tab_to(page, "#field-rho_min")
    with page.expect_response(answers(SIMULATE, rho_min=0.8)) as simulated:
        type_over(page, "0.8")
    answer = simulated.value.json()
    expect(page.locator(".compared thead")).to_contain_text("edited")

    again = page.request.post(SIMULATE, data=asked(simulated.value), headers={"Origin": dashboard.url}).json()
    assert again == answer
    after = compared(page)
    remains, less = "What remains under the policy, gCO2e", "− saved by less work"
    assert after[remains][:2] == [before[remains][0], format_number(answer["emissions_g"])]
    assert after[less][:2] == [before[less][0], format_percent(answer["less_work_saving"])]
    assert after[remains][0] != after[remains][1]
    assert after[remains][2].startswith("+")

    tab_to(page, "#curve-table summary")
    page.keyboard.press("Enter")
    expect(page.locator("#curve-table tr", has_text="400 (fairly dirty)")).to_contain_text("0.40.8")
    assert latest(dashboard).version == 1
    check_accessible(page)


def test_saving_makes_the_next_version(page: Page, dashboard: Dashboard) -> None:
    open_editor(page)
    page.get_by_label("rho_min", exact=True).fill("0.5")

    page.get_by_role("button", name="Save as version 2").click()

    expect(page.locator("#version")).to_contain_text("version 2")
    assert (latest(dashboard).version, latest(dashboard).body["rho_min"]) == (2, 0.5)
    expect(page.locator(".compared thead")).to_have_text("version 2")
    expect(page.get_by_role("button", name="Save as version 3")).to_have_attribute("aria-disabled", "true")
    page.get_by_role("button", name="Save as version 3").press("Enter")
    assert latest(dashboard).version == 2, "nothing has changed, so there is nothing to save"


def test_an_error_is_shown_at_its_field_and_the_last_valid_picture_stays(page: Page, dashboard: Dashboard) -> None:
    monitor_of(page).expect("422")
    open_editor(page)
    before = compared(page)

    page.get_by_label("rho_min", exact=True).fill("1.2")

    fault = page.locator('[data-fault="rho_min"]')
    expect(fault).to_be_visible()
    expect(fault).to_contain_text("less than or equal to 1")
    expect(page.get_by_label("rho_min", exact=True)).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#stale")).to_contain_text("This policy has faults")
    assert compared(page) == before
    page.get_by_role("button", name="Save as version 2").click()
    expect(page.locator("#refusal")).to_contain_text("Nothing is saved")
    assert latest(dashboard).version == 1

    page.get_by_label("rho_min", exact=True).fill("0.6")
    expect(fault).to_be_hidden()
    expect(page.locator("#stale")).to_be_hidden()

    page.get_by_label("work_hours", exact=True).fill("-1")

    fault = page.locator('[data-fault="work_hours"]')
    expect(fault).to_be_visible()
    expect(fault).to_contain_text("greater than 0")
    expect(page.locator("#stale")).to_contain_text("The run has faults")


def test_a_version_that_another_operator_saved_meanwhile_is_not_overwritten(page: Page, dashboard: Dashboard) -> None:
    monitor_of(page).expect("412")
    open_editor(page)
    page.get_by_label("rho_min", exact=True).fill("0.5")
    store(dashboard, {**LINEAR, "rho_min": 0.7})

    page.get_by_role("button", name="Save as version 2").click()

    expect(page.locator("#refusal")).to_contain_text("version 2 has been stored since you began from version 1")
    assert latest(dashboard).body["rho_min"] == 0.7
    page.get_by_role("button", name="Keep mine, and compare it with version 2").click()
    expect(page.locator(".compared thead")).to_contain_text("version 2")
    page.get_by_role("button", name="Save as version 3").click()
    expect(page.locator("#version")).to_contain_text("version 3")
    assert (latest(dashboard).version, latest(dashboard).body["rho_min"]) == (3, 0.5)


def test_a_policy_that_another_operator_deleted_is_saved_again_only_on_request(
    page: Page, dashboard: Dashboard
) -> None:
    monitor_of(page).expect("412")
    monitor_of(page).expect("404")
    open_editor(page)
    page.get_by_label("rho_min", exact=True).fill("0.5")
    with dashboard.database.session() as session:
        PolicyRepository(session).delete("follow-the-grid")

    page.get_by_role("button", name="Save as version 2").click()

    expect(page.locator("#refusal")).to_contain_text("follow-the-grid has been deleted since you began from version 1")
    page.get_by_role("button", name="Keep mine, to be saved as its first version").click()
    page.locator("#save").click()
    expect(page.get_by_role("button", name="Save as version 2")).to_have_attribute("aria-disabled", "true")
    expect(page.locator("#refusal")).to_be_hidden()
    assert (latest(dashboard).version, latest(dashboard).body["rho_min"]) == (1, 0.5)


def test_unsaved_changes_survive_a_reload_until_they_are_discarded(page: Page) -> None:
    open_editor(page)
    page.get_by_label("rho_min", exact=True).fill("0.55")
    page.get_by_label("epochs", exact=True).fill("4")
    page.reload()

    expect(page.get_by_label("rho_min", exact=True)).to_have_value("0.55")
    expect(page.get_by_label("epochs", exact=True)).to_have_value("4")
    expect(page.locator("#unsaved")).to_have_text("Unsaved changes, kept in this tab")
    expect(page.locator(".compared thead")).to_contain_text("edited")

    page.get_by_role("button", name="Discard changes").click()
    expect(page.get_by_label("rho_min", exact=True)).to_have_value("0.4")
    expect(page.locator("#unsaved")).to_be_empty()
    expect(page.locator(".compared thead")).to_have_text("version 1")
    page.reload()
    expect(page.get_by_label("rho_min", exact=True)).to_have_value("0.4")


def test_form_and_json_stay_in_step(page: Page) -> None:
    monitor_of(page).expect("422")
    open_editor(page)
    view = page.get_by_label("As JSON")
    assert list(json.loads(view.input_value()))[:3] == ["kind", "clean", "dirty"]

    page.get_by_label("mode", exact=True).select_option("pause")
    assert json.loads(view.input_value())["gate"]["mode"] == "pause"
    view.fill(json.dumps({"kind": "steps", "steps": [{"up_to": 200, "rho": 1}, {"rho": 0.5}]}))
    expect(page.get_by_role("radio", name="steps")).to_be_checked()
    expect(page.get_by_label("up_to of step 1")).to_have_value("200")
    expect(page.get_by_label("rho_min", exact=True)).to_be_hidden()
    expect(page.get_by_label("max_change", exact=True)).to_have_attribute("placeholder", "1")

    view.fill('{"kind": "constant", "rho": 0.5, "colour": "green"}')
    expect(page.locator("#json-fault")).to_contain_text("colour: ")
    view.fill('{"kind": ')
    expect(page.locator("#json-fault")).to_contain_text("Not JSON yet")
    expect(page.get_by_role("radio", name="constant")).to_be_checked()
    page.reload()
    expect(view).to_have_value('{"kind": ')


def test_steps_are_added_and_removed_by_keyboard(page: Page) -> None:
    monitor_of(page).expect("422")  # a step that is added has no bound yet
    open_editor(page)
    tab_to(page, '[name="kind"]')
    page.keyboard.press("ArrowUp")
    expect(page.get_by_role("radio", name="steps")).to_be_checked()

    tab_to(page, "#add-step")
    page.keyboard.press("Enter")
    page.keyboard.type("400")
    view = page.get_by_label("As JSON")
    assert [step.get("up_to") for step in json.loads(view.input_value())["steps"]] == [150, 300, 400, None]
    with page.expect_response(answers(CURVE, kind="steps")) as drawn:
        tab_to(page, '[aria-label="Remove step 3"]')
        page.keyboard.press("Enter")
    assert drawn.value.ok
    assert [step.get("up_to") for step in json.loads(view.input_value())["steps"]] == [150, 300, None]
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Remove step 3"


def test_every_kind_has_its_curve_with_its_basis(page: Page) -> None:
    bases = {
        "constant": "Applies to every epoch",
        "steps": "Applies to every epoch",
        "percentile": "the rank among 169 readings",
        "budget": "on the run's emissions so far and on the forecast",
        "price": "on how much an epoch reduces the loss",
    }
    open_editor(page)
    for kind, words in bases.items():
        with page.expect_response(answers(CURVE, kind=kind)) as drawn:
            page.get_by_role("radio", name=kind).check()
        expect(page.locator("#curve-basis")).to_contain_text(words)
        curve = drawn.value.json()
        policy = parse_policy(asked(drawn.value)["policy"])
        low, high = policy.rho_range
        known = [rho for rho in curve["rho"] if rho is not None]
        assert known
        assert all(low <= rho <= high for rho in known)
        assert known == sorted(known, reverse=True), "never more work on a dirtier grid"


def test_a_backtest_is_retried_while_the_service_is_at_its_limit(page: Page) -> None:
    monitor_of(page).expect("503")
    for _ in range(simulation.MAX_CONCURRENT_SIMULATIONS):
        simulation._simulation_slots.acquire()
    try:
        with page.expect_response(answers(SIMULATE)) as refused:
            page.goto(EDITOR)
    finally:
        simulation._simulation_slots.release(simulation.MAX_CONCURRENT_SIMULATIONS)
    assert refused.value.status == 503

    expect(page.locator("#stale")).to_be_hidden()
    expect(page.locator(".compared")).to_be_visible(timeout=PATIENCE_MS)


def test_without_stored_readings_there_is_a_curve_and_no_backtest(page: Page, dashboard: Dashboard) -> None:
    with dashboard.database.session() as session:
        session.execute(delete(IntensityReading))
    page.goto(EDITOR)

    expect(page.locator("#curve-readout")).to_contain_text("version 1")
    expect(page.get_by_text("No zone has stored readings yet")).to_be_visible()
    page.get_by_role("radio", name="percentile").check()
    expect(page.locator("#curve-basis")).to_contain_text("no curve can be drawn")


def test_an_operator_makes_a_policy_and_deletes_it(page: Page, dashboard: Dashboard) -> None:
    monitor_of(page).expect("412")  # the name is taken
    page.goto(POLICIES)
    page.get_by_role("link", name="New policy").click()
    page.get_by_label("name", exact=True).fill("night-shift")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#refusal")).to_contain_text("there is a policy named night-shift already")

    page.get_by_label("name", exact=True).fill("calm")
    page.get_by_role("button", name="Save").click()
    page.wait_for_url(f"**{POLICIES}/calm")
    assert latest(dashboard, "calm").version == 1

    page.goto(POLICIES)
    page.get_by_role("button", name="Delete calm").click()
    page.get_by_role("button", name="Keep it").click()
    assert latest(dashboard, "calm").version == 1
    page.get_by_role("button", name="Delete calm").click()
    page.get_by_role("button", name="Delete it").click()
    expect(page.get_by_role("link", name="calm", exact=True)).to_have_count(0)
    with dashboard.database.session() as session:
        assert PolicyRepository(session).latest("calm") is None


def test_a_user_reads_policies_and_sees_what_they_do_but_has_no_editor(sign_in: SignIn) -> None:
    page = sign_in("ann", "user")
    page.goto(POLICIES)
    expect(page.locator("main")).to_contain_text("waits for the best window, up to 12 h later")
    for name in ("Edit", "Delete", "New policy"):
        expect(page.get_by_text(name, exact=True)).to_have_count(0)

    page.get_by_role("link", name="follow-the-grid").click()
    expect(page.locator(".compared thead")).to_have_text("version 1")
    expect(page.locator("#policy-form, #json, #save, [data-delete]")).to_have_count(0)
    check_accessible(page)


def test_the_editor_with_an_edit_in_it_is_accessible_and_fits_a_phone(page: Page) -> None:
    open_editor(page)
    page.get_by_role("radio", name="steps").check()
    page.get_by_label("mode", exact=True).select_option("pause")
    page.get_by_label("pause_above", exact=True).fill("250")
    expect(page.locator("#curve-readout")).to_contain_text("edited")
    expect(page.locator("#backtest")).to_contain_text("the gate plans by our own forecast")
    check_accessible(page)
    take_pictures(page, "policy-edited")
    page.emulate_media(color_scheme="dark")
    check_accessible(page)
