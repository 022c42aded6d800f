"""No value in the database, the logs or the pages is accepted as a key."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import inspect, text
from structlog.testing import capture_logs

from api.access import rate_limits
from api.access.keys import is_key
from api.access.sessions import SESSION_COOKIE
from api.main import create_app
from runtime.settings import Settings
from store.database import Database
from tests.keys import bearer, new_key

pytestmark = pytest.mark.fault(number=18)

OWN_PAGE = {"Sec-Fetch-Site": "same-origin"}
# Matches ids, digests, hints, tokens and cookies, but no words of sentences.
CREDENTIAL_LIKE = re.compile(r"[A-Za-z0-9._~+/=-]{6,}")
TEXTS_OF_NO_INTEREST = re.compile(r"[a-z]+|[\d.:+TZ-]+")


def texts(value: Any) -> Iterator[str]:
    """Yield every text in a value of a row, a log line or a response."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from (*texts(key), *texts(item))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from texts(item)
    else:
        yield str(value)


def credential_like(value: Any) -> set[str]:
    found = {match for each in texts(value) for match in CREDENTIAL_LIKE.findall(each)}
    return {each for each in found if not TEXTS_OF_NO_INTEREST.fullmatch(each)}


def stored(database: Database) -> set[str]:
    """Return the values of all rows of all tables."""
    with database.session() as session:
        tables = inspect(session.connection()).get_table_names()
        rows = [dict(row) for name in tables for row in session.execute(text(f'SELECT * FROM "{name}"')).mappings()]
    return credential_like(rows)


@pytest.fixture
def dashboard(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A browser with an operator's session, at a service that does not count refusals."""
    monkeypatch.setattr(rate_limits, "FAILURES_PER_MINUTE", 10**9)
    app = create_app(settings.model_copy(update={"rate_limit_per_minute": 10**9}))
    with TestClient(app, follow_redirects=False) as browser:
        assert browser.post("/sign-in", data={"key": new_key(settings, "olga")}, headers=OWN_PAGE).status_code == 303
        yield browser


def test_the_id_of_a_key_with_an_open_session_is_not_accepted_as_a_key(dashboard: TestClient) -> None:
    assert dashboard.get("/").status_code == 200
    [key] = dashboard.get("/keys").json()["data"]

    with TestClient(dashboard.app) as anonymous:
        for sent in (key["id"], f" {key['id']}", f"{key['id']} ", key["hint"], key["owner"]):
            assert anonymous.get("/keys", headers=bearer(sent)).status_code == 401
            assert anonymous.post("/keys", json={"owner": "mallory"}, headers=bearer(sent)).status_code == 401
            form = anonymous.post("/sign-in", data={"key": sent}, headers=OWN_PAGE)
            assert form.status_code == 401
            assert anonymous.get("/keys", headers={"Cookie": f"{SESSION_COOKIE}={sent}"}).status_code == 401
    assert len(dashboard.get("/keys").json()["data"]) == 1


def test_values_in_the_database_logs_and_pages_are_not_accepted_as_keys(
    dashboard: TestClient, finished_job_id: str, alice: TestClient, database: Database
) -> None:
    hook = alice.post("/webhooks", json={"url": "https://example.com/hook"})
    assert hook.status_code == 201, hook.text
    pages = ("/", f"/dashboard/jobs/{finished_job_id}", "/dashboard/workers", "/dashboard/grid", "/dashboard/policies")
    reads = ("/keys", "/audit", "/jobs", f"/jobs/{finished_job_id}", f"/jobs/{finished_job_id}/events", "/workers")
    with capture_logs() as logs:
        shown = [dashboard.get(path).text for path in (*pages, *reads)]
    cookie = dashboard.cookies[SESSION_COOKIE]
    values = stored(database) | credential_like([shown, logs, hook.text, cookie, cookie.split(".")])
    [operator_key_id] = {key["id"] for key in dashboard.get("/keys").json()["data"] if key["owner"] == "olga"} & values
    assert {finished_job_id, cookie, hook.json()["id"]} <= values
    assert not any(is_key(value) for value in values), "the text of a key is kept nowhere"

    with TestClient(dashboard.app) as anonymous:
        opened = []
        for number, value in enumerate(sorted(values)):
            if number % 50 == 0:
                assert dashboard.get("/").status_code == 200, "the session stays in use"
            headers = bearer(value)
            answers = [anonymous.get("/keys", headers=headers), anonymous.post("/keys", json={}, headers=headers)]
            if [answer.status_code for answer in answers] != [401, 401]:
                opened.append(value)

    assert operator_key_id not in opened
    assert opened == []
