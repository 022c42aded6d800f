"""`/dashboard/keys` in a real browser: a key is created, used, and revoked."""

import re

from playwright.sync_api import Page, expect

from tests.browser.accessible import check_accessible
from tests.browser.conftest import Dashboard, SignIn
from tests.browser.pictures import take_pictures
from tests.browser.watch import monitor_of
from tests.keys import bearer

KEYS = "/dashboard/keys"


def test_a_key_is_created_shown_once_used_and_revoked(page: Page, dashboard: Dashboard) -> None:
    page.goto(KEYS)
    page.get_by_label("Owner", exact=True).fill("carol")
    page.get_by_label("Name", exact=True).fill("Notebook")
    page.get_by_label("Expires (UTC)").fill("2090-01-01T12:00")
    page.get_by_role("button", name="Create the key").click()

    issued = page.get_by_role("group", name=re.compile("The key of carol"))
    expect(issued).to_be_focused()
    text = issued.locator("#issued-key").inner_text()
    assert re.fullmatch(r"gtk_[\w-]{40,}", text)
    row = page.get_by_role("row").filter(has_text="Notebook")
    expect(row).to_contain_text("valid until 2090-01-01 12:00")
    expect(row).to_contain_text("never")
    check_accessible(page)
    take_pictures(page, "keys-issued")
    assert page.request.get("/jobs", headers=bearer(text)).status == 200
    page.get_by_role("button", name="Hide it").click()
    expect(page.get_by_label("Owner", exact=True)).to_be_focused()
    assert text not in page.content()
    page.reload()
    assert text not in page.content()

    row.get_by_role("button", name="Revoke").click()
    dialog = page.get_by_role("dialog", name=re.compile("Revoke gtk_.* of carol"))
    expect(dialog.get_by_role("button", name="Keep it")).to_be_focused()
    check_accessible(page)
    dialog.get_by_role("button", name="Revoke it").click()
    expect(row).to_contain_text("revoked")
    expect(row.get_by_role("button")).to_have_count(0)
    refused = page.request.get("/jobs", headers=bearer(text))
    assert refused.status == 401


def test_faults_are_shown_at_their_fields_and_the_last_operators_key_is_kept(page: Page) -> None:
    monitor_of(page).expect("422")
    monitor_of(page).expect("409")
    page.goto(KEYS)
    page.get_by_label("Expires (UTC)").fill("2020-01-01T12:00")
    page.get_by_role("button", name="Create the key").click()
    expect(page.locator("#owner-error")).to_contain_text("at least 1")
    expect(page.get_by_label("Owner", exact=True)).to_be_focused()
    page.get_by_label("Owner", exact=True).fill("carol")
    page.get_by_role("button", name="Create the key").click()
    expect(page.locator("#expires_at-error")).to_contain_text("has passed")
    expect(page.locator("#owner-error")).to_be_hidden()
    check_accessible(page)

    row = page.get_by_role("row").filter(has_text="this session's key")
    row.get_by_role("button", name="Revoke").click()
    page.get_by_role("button", name="Revoke it").click()
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("the last operator's key")


def test_a_user_has_no_such_page(sign_in: SignIn) -> None:
    page = sign_in("alice", "user")
    monitor_of(page).expect("403")
    expect(page.get_by_role("navigation").get_by_text("Keys")).to_have_count(0)
    answer = page.goto(KEYS)
    assert answer is not None
    assert answer.status == 403
