"""A real Chromium before the real application, which listens on a port and keeps its rows in a real database."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page

from api.main import create_app
from store.database import Database
from store.keys import Role
from store.settings import Settings
from tests.browser.watch import Watch
from tests.keys import new_key

PATIENCE_MS = 20_000


@dataclass(frozen=True)
class Dashboard:
    """A running application: where it listens, and what lies behind it."""

    url: str
    settings: Settings
    database: Database


@pytest.fixture
def dashboard(settings: Settings, database: Database) -> Iterator[Dashboard]:
    """The application on a free port, by the real clock."""
    with serving(settings) as url:
        yield Dashboard(url, settings, database)


class serving:  # noqa: N801  (used as a function that gives a context)
    """Serves the application for these settings from a thread; gives its URL."""

    def __init__(self, settings: Settings) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(create_app(settings), log_level="warning", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)

    def __enter__(self) -> str:
        self._thread.start()
        deadline = time.monotonic() + 20
        while not self._server.started:
            assert time.monotonic() < deadline, "the application did not start within 20 s"
            time.sleep(0.02)
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def __exit__(self, *error: object) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=20)
        self._socket.close()


SignIn = Callable[..., Page]


@pytest.fixture
def sign_in(browser: Browser, dashboard: Dashboard) -> Iterator[SignIn]:
    """Opens a browser of its own, signed in by a new key of an owner with a role; checked at the test's end."""
    contexts: list[BrowserContext] = []
    watches: list[Watch] = []

    def sign_in(owner: str = "ops", role: Role = "operator") -> Page:
        context = browser.new_context(base_url=dashboard.url, viewport={"width": 1280, "height": 800}, locale="en-GB")
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        watches.append(Watch(page, dashboard.url))
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
