"""Problems as pages for browsers, and as problem+json for programs."""

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from api.http.security_headers import HEADERS
from api.main import create_app
from runtime.settings import Settings
from tests.keys import new_key

NAVIGATION = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings)


@pytest.fixture
def browser(app: FastAPI, settings: Settings) -> Iterator[TestClient]:
    """A client signed in by a session, with a browser's headers of a navigation."""
    with TestClient(
        app, base_url="https://testserver", headers=NAVIGATION, raise_server_exceptions=False, follow_redirects=False
    ) as browser:
        own_page = {"Sec-Fetch-Site": "same-origin"}
        answer = browser.post("/sign-in", data={"key": new_key(settings, "alice", "user")}, headers=own_page)
        assert answer.status_code == 303, answer.text
        yield browser


@pytest.mark.parametrize("path", ["/nothing", "/dashboard/nothing", "/dashboard/jobs/job_0", "/jobs/job_0"])
def test_a_browser_gets_not_found_as_a_page_with_the_navigation(browser: TestClient, path: str) -> None:
    answer = browser.get(path)

    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/html")
    assert "<h1>Not Found</h1>" in answer.text
    assert "there is no" in answer.text
    assert 'href="/dashboard/submit"' in answer.text, "signed-in users keep the navigation"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "no-store" in answer.headers["cache-control"]


def test_a_users_browser_gets_forbidden_as_a_page(browser: TestClient) -> None:
    answer = browser.get("/keys")

    assert answer.status_code == 403
    assert answer.headers["content-type"].startswith("text/html")
    assert "this is for operators" in answer.text


def test_the_requested_path_is_escaped(browser: TestClient) -> None:
    answer = browser.get("/<script>alert(1)</script>")

    assert "<script>alert" not in answer.text
    assert "&lt;script&gt;alert(1)" in answer.text


def test_invalid_parameters_are_listed_by_field(browser: TestClient) -> None:
    answer = browser.get("/jobs?limit=many&after=1")

    assert answer.status_code == 422
    assert "<li><code>limit</code>: " in answer.text


def test_an_unexpected_error_is_a_page_with_the_request_id_and_security_headers(
    app: FastAPI, browser: TestClient
) -> None:
    @app.get("/fall")
    def fail() -> None:
        raise RuntimeError("the password is 1234")

    answer = browser.get("/fall")

    assert answer.status_code == 500
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["x-request-id"] in answer.text
    assert "1234" not in answer.text
    assert {name: answer.headers[name] for name in HEADERS} == dict(HEADERS)


@pytest.mark.parametrize(
    "accept",
    ["*/*", "application/json", "application/problem+json", "application/json, text/html;q=0.5", "text/html;q=x"],
)
def test_a_client_that_does_not_prefer_html_gets_problem_json(browser: TestClient, accept: str) -> None:
    answer = browser.get("/jobs/job_0", headers={"Accept": accept})

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_program_with_a_key_gets_problem_json_from_pages_too(app: FastAPI, settings: Settings) -> None:
    key = {"Authorization": f"Bearer {new_key(settings, 'alice', 'user')}"}
    with TestClient(app, headers={**NAVIGATION, **key}) as program:
        answer = program.get("/dashboard/jobs/job_0")

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
