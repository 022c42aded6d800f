"""Browser sessions: signing in and out, permissions, and expiry."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from itsdangerous import URLSafeSerializer
from sqlalchemy import func, select

from api.access.rate_limits import FAILURES_PER_MINUTE
from api.access.sessions import SESSION_COOKIE
from api.main import create_app
from runtime.settings import Settings
from scheduler.retention import remove_old_rows
from store.database import Database
from store.tables import EndedSession
from tests.keys import bearer, new_key

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
OWN_PAGE = {"Sec-Fetch-Site": "same-origin"}


class Browser(TestClient):
    """A client that keeps cookies, follows no redirects, and sends a browser's headers."""

    def sign_in(self, key: str, onwards: str = "/", **headers: str) -> Any:
        return self.post("/sign-in", data={"key": key, "next": onwards}, headers=OWN_PAGE | headers)


@pytest.fixture
def clock() -> list[datetime]:
    return [NOW]


@pytest.fixture
def browser(settings: Settings, clock: list[datetime]) -> Iterator[Browser]:
    with Browser(create_app(settings, clock=lambda: clock[0]), follow_redirects=False) as browser:
        yield browser


def test_a_page_without_a_session_redirects_to_sign_in_and_back(browser: Browser, settings: Settings) -> None:
    key = new_key(settings)
    for path in ("/", "/docs", "/dashboard/jobs/job_0", "/?after=job_0&x=%20"):
        browser.cookies.clear()
        answer = browser.get(path)
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/sign-in?next=%2F")

        form = browser.get(answer.headers["location"])
        assert form.status_code == 200
        assert f'value="{path.replace("&", "&amp;")}"' in form.text
        assert "form-action 'self'" in form.headers["content-security-policy"]
        assert browser.sign_in(key, path).headers["location"] == path


def test_a_browser_is_redirected_to_sign_in_and_a_program_is_not(browser: Browser) -> None:
    assert browser.get("/jobs", headers={"Accept": "text/html,*/*"}).status_code == 303
    assert browser.get("/jobs", headers={"Accept": "application/json"}).status_code == 401


def test_a_session_reads_what_its_key_reads_and_its_cookie_has_no_secret(browser: Browser, settings: Settings) -> None:
    key = new_key(settings, "alice", "user")
    answer = browser.sign_in(key)

    assert answer.status_code == 303
    cookie = answer.headers["set-cookie"]
    for flag in ("HttpOnly", "SameSite=strict", "Path=/", "Max-Age=43200"):
        assert flag in cookie
    assert "Secure" not in cookie
    assert key not in cookie
    page = browser.get("/")
    assert page.status_code == 200
    assert "alice" in page.text
    assert browser.get("/keys").status_code == 403


def test_over_https_the_cookie_is_secure(settings: Settings) -> None:
    with Browser(create_app(settings), base_url="https://testserver", follow_redirects=False) as browser:
        assert "Secure" in browser.sign_in(new_key(settings)).headers["set-cookie"]


def test_signing_out_ends_the_session(browser: Browser, settings: Settings) -> None:
    browser.sign_in(new_key(settings))

    assert browser.post("/sign-out", headers=OWN_PAGE).headers["location"] == "/sign-in"
    assert browser.get("/").status_code == 303


def test_a_session_ends_with_its_time(browser: Browser, settings: Settings, clock: list[datetime]) -> None:
    browser.sign_in(new_key(settings))
    clock[0] += timedelta(hours=settings.session_hours)

    assert browser.get("/").status_code == 303


def test_a_session_ends_with_its_key(browser: Browser, settings: Settings) -> None:
    operator = bearer(new_key(settings))
    made = browser.post("/keys", json={"owner": "carol"}, headers=operator).json()
    browser.sign_in(made["key"])
    assert browser.get("/").status_code == 200

    browser.delete(f"/keys/{made['id']}", headers=operator)

    assert browser.get("/").status_code == 303
    assert browser.get("/jobs").status_code == 401


def test_a_forged_cookie_is_not_a_session(browser: Browser, settings: Settings) -> None:
    browser.sign_in(new_key(settings))
    cookie = browser.cookies["greentune_session"]
    payload = URLSafeSerializer(settings.secret, salt="session").loads(cookie)
    forged = str(URLSafeSerializer("x" * 40, salt="session").dumps(payload))
    browser.cookies.clear()

    for value, status in ((cookie, 200), (cookie[:-2], 401), (forged, 401), ("", 401), ("a.b.c", 401)):
        answer = browser.get("/jobs", headers={"Cookie": f"greentune_session={value}"})
        assert answer.status_code == status, value


def test_a_session_may_change_data_only_from_a_page_of_this_service(browser: Browser, settings: Settings) -> None:
    key = new_key(settings)
    pages: list[tuple[dict[str, str], bool]] = [
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://testserver"}, False),
        ({"Origin": "http://testserver"}, True),
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({}, False),
    ]
    for headers, allowed in pages:
        browser.sign_in(key)
        answer = browser.post("/keys", json={"owner": "carol"}, headers=headers)
        assert answer.status_code == (201 if allowed else 403), headers
        browser.cookies.clear()
        signing_in = browser.post("/sign-in", data={"key": key}, headers=headers)
        assert signing_in.status_code == (303 if allowed else 403), headers


def test_sign_in_redirects_only_within_this_service(browser: Browser, settings: Settings) -> None:
    key = new_key(settings)
    elsewhere = ("//evil.example", "https://evil.example", "/\\evil.example", "javascript:1", "/a\nb", "/\t/evil", "")
    for onwards in elsewhere:
        assert browser.sign_in(key, onwards).headers["location"] == "/", onwards
        assert 'name="next" value="/"' in browser.get("/sign-in", params={"next": onwards}).text


def test_a_wrong_key_is_reported_on_the_form_and_too_many_are_limited(browser: Browser, settings: Settings) -> None:
    answer = browser.sign_in("gtk_wrong")
    assert answer.status_code == 401
    assert 'role="alert"' in answer.text
    assert "gtk_wrong" not in answer.text
    for _ in range(FAILURES_PER_MINUTE - 1):
        assert browser.sign_in("gtk_wrong").status_code == 401

    late = browser.sign_in(new_key(settings))

    assert late.status_code == 429
    assert int(late.headers["retry-after"]) > 0


@pytest.mark.fault(number=21)
def test_a_copied_cookie_of_a_signed_out_session_is_refused(browser: Browser, settings: Settings) -> None:
    key = new_key(settings)
    browser.sign_in(key)
    copied = {"Cookie": f"{SESSION_COOKIE}={browser.cookies[SESSION_COOKIE]}"}
    browser.cookies.clear()
    browser.sign_in(key)
    other = {"Cookie": f"{SESSION_COOKIE}={browser.cookies[SESSION_COOKIE]}"}
    browser.cookies.clear()
    assert browser.get("/jobs", headers=copied).status_code == 200

    browser.post("/sign-out", headers=OWN_PAGE | copied)

    assert browser.get("/jobs", headers=copied).status_code == 401
    assert browser.get("/jobs", headers=other).status_code == 200, "another browser's session of this key goes on"
    with TestClient(create_app(settings, clock=lambda: NOW)) as another_process:
        assert another_process.get("/jobs", headers=copied).status_code == 401
        assert another_process.get("/jobs", headers=other).status_code == 200


@pytest.mark.fault(number=21)
def test_signing_in_again_ends_the_session_before(browser: Browser, settings: Settings) -> None:
    browser.sign_in(new_key(settings, "alice", "user"))
    before = browser.cookies[SESSION_COOKIE]
    browser.sign_in(new_key(settings, "bob", "user"))
    browser.cookies.clear()

    assert browser.get("/jobs", headers={"Cookie": f"{SESSION_COOKIE}={before}"}).status_code == 401


@pytest.mark.fault(number=21)
def test_a_cookie_of_an_earlier_version_redirects_to_sign_in(browser: Browser, settings: Settings) -> None:
    browser.sign_in(new_key(settings))
    _, key_id, until = URLSafeSerializer(settings.secret, salt="session").loads(browser.cookies[SESSION_COOKIE])
    browser.cookies.clear()
    earlier = URLSafeSerializer(settings.secret, salt="session").dumps([key_id, until])

    assert browser.get("/", headers={"Cookie": f"{SESSION_COOKIE}={earlier!s}"}).status_code == 303


@pytest.mark.fault(number=21)
def test_records_of_sessions_are_kept_until_their_cookies_have_expired(
    browser: Browser, settings: Settings, database: Database
) -> None:
    browser.sign_in(new_key(settings))
    browser.post("/sign-out", headers=OWN_PAGE)

    def records() -> int:
        with database.session() as session:
            return session.scalars(select(func.count()).select_from(EndedSession)).one()

    remove_old_rows(database, settings, at=NOW + timedelta(hours=settings.session_hours))
    assert records() == 1
    remove_old_rows(database, settings, at=NOW + timedelta(hours=settings.session_hours + 25))
    assert records() == 0
