"""Fixtures: a real Chromium, and the application on a port with a real database."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from api.main import create_app
from runtime.settings import Settings
from store.database import Database
from store.repositories.keys import Role
from tests.browser.watch import PageMonitor
from tests.keys import new_key
from tests.server import run_server

PATIENCE_MS = 20_000


@dataclass(frozen=True)
class Dashboard:
    """A running application: its address, settings and database."""

    url: str
    settings: Settings
    database: Database


@pytest.fixture
def dashboard(settings: Settings, database: Database) -> Iterator[Dashboard]:
    """The application on a free port, with the real clock."""
    with run_server(create_app(settings)) as url:
        yield Dashboard(url, settings, database)


SignIn = Callable[..., Page]


@pytest.fixture
def sign_in(browser: Browser, dashboard: Dashboard) -> Iterator[SignIn]:
    """Open a browser context, signed in with a new key of an owner; its monitor is checked at the test's end."""
    contexts: list[BrowserContext] = []
    watches: list[PageMonitor] = []

    def sign_in(owner: str = "ops", role: Role = "operator") -> Page:
        context = browser.new_context(base_url=dashboard.url, viewport={"width": 1280, "height": 800}, locale="en-GB")
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        watches.append(PageMonitor(page, dashboard.url))
        page.goto("/sign-in")
        page.get_by_label("Key").fill(new_key(dashboard.settings, owner, role))
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("button", name="Sign out").wait_for()
        return page

    yield sign_in
    for context in contexts:
        context.close()
    for watch in watches:
        watch.check()


@pytest.fixture
def page(sign_in: SignIn) -> Page:
    """An operator's page."""
    return sign_in()
