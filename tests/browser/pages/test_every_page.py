"""Every page in a real browser: no console message, no other host, accessible, and fit for wide and narrow windows."""

import pytest
from playwright.sync_api import Page

from tests.browser.accessible import check_accessible
from tests.browser.conftest import Dashboard
from tests.browser.pictures import take_pictures
from tests.browser.stage import stage_all

PATHS = {
    "jobs": "/",
    "submit": "/dashboard/submit",
    "datasets": "/dashboard/datasets",
    "policies": "/dashboard/policies",
    "policy": "/dashboard/policies/follow-the-grid",
    "policy-new": "/dashboard/new-policy",
    "grid": "/dashboard/grid",
    "workers": "/dashboard/workers",
    "keys": "/dashboard/keys",
    "reference": "/docs",
    "job-running": "/dashboard/jobs/{running}",
    "job-succeeded": "/dashboard/jobs/{succeeded}",
    "job-failed": "/dashboard/jobs/{failed}",
    "job-deferred": "/dashboard/jobs/{deferred}",
}


@pytest.fixture
def ids(dashboard: Dashboard) -> dict[str, str]:
    return stage_all(dashboard.database, dashboard.settings)


def test_every_page_loads_without_messages_is_accessible_and_fits_a_phone(page: Page, ids: dict[str, str]) -> None:
    for name, path in PATHS.items():
        page.goto(path.format(**ids))
        page.wait_for_load_state("networkidle")
        check_accessible(page)
        take_pictures(page, name)


def test_the_sign_in_page_is_accessible_and_fits_a_phone(page: Page) -> None:
    page.get_by_role("button", name="Sign out").click()
    page.get_by_label("Key").wait_for()
    check_accessible(page)
    take_pictures(page, "sign-in")
