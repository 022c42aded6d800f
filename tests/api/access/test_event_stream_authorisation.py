"""Event streams are authorised as long as they are open, not only at the start."""

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import update

from api.access import authenticator
from api.access.sessions import SESSION_COOKIE
from api.jobs.history import event_stream
from api.main import create_app
from greencore.clock import utc_now
from runtime.settings import Settings
from store.database import Database
from store.repositories.keys import KeyRepository
from store.tables import ApiKey
from tests.keys import bearer, new_key

pytestmark = pytest.mark.fault(number=21)

OWN_PAGE = {"Sec-Fetch-Site": "same-origin"}
PATIENCE_SECONDS = 8.0


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the stream's intervals to tenths of a second."""
    monkeypatch.setattr(event_stream, "REAUTHORISE_SECONDS", 0.1)
    monkeypatch.setattr(authenticator, "CACHE_SECONDS", 0.1)


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings)


class Stream:
    """An event stream of the application: the messages sent, and whether it is open."""

    def __init__(self, app: FastAPI, job_id: str, headers: dict[str, str]) -> None:
        self.sent: list[Any] = []
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": f"/jobs/{job_id}/events",
            "raw_path": f"/jobs/{job_id}/events".encode(),
            "query_string": b"",
            "root_path": "",
            "client": ("192.0.2.1", 1),
            "server": ("testserver", 80),
            "headers": [
                (name.lower().encode(), value.encode())
                for name, value in {"Accept": "text/event-stream", **headers}.items()
            ],
            "state": {},
        }
        self._app = app

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    async def run(self, meanwhile: Callable[[], object]) -> float | None:
        """Call a function once the stream is open; return the seconds until it ended, None if it did not."""
        silent = asyncio.Event()

        async def receive() -> Any:
            await silent.wait()

        async def send(message: Any) -> None:
            self.sent.append(message)

        task = asyncio.ensure_future(self._app(self._scope, receive, send))
        try:
            await asyncio.sleep(0.5)
            assert self.status == 200
            assert not task.done(), "it is open as long as nothing changes"
            await asyncio.get_running_loop().run_in_executor(None, meanwhile)
            begin = time.monotonic()
            done, _ = await asyncio.wait([task], timeout=PATIENCE_SECONDS)
            return time.monotonic() - begin if done else None
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def operator(app: FastAPI, operator_key: str) -> Iterator[TestClient]:
    with TestClient(app, headers=bearer(operator_key), follow_redirects=False) as client:
        yield client


def seconds_until_the_end(
    app: FastAPI, job_id: str, headers: dict[str, str], meanwhile: Callable[[], object]
) -> float | None:
    return asyncio.run(Stream(app, job_id, headers).run(meanwhile))


def change(database: Database, key_id: str, **values: Any) -> None:
    """Change a key as another process would."""
    with database.session() as session:
        session.execute(update(ApiKey).where(ApiKey.id == key_id).values(**values))


def made(operator: TestClient) -> dict[str, Any]:
    answer: dict[str, Any] = operator.post("/keys", json={"owner": "olga", "role": "operator"}).json()
    return answer


def test_a_stream_ends_when_its_key_is_revoked_here(app: FastAPI, operator: TestClient, job_id: str) -> None:
    key = made(operator)

    ended = seconds_until_the_end(app, job_id, bearer(key["key"]), lambda: operator.delete(f"/keys/{key['id']}"))

    assert ended is not None


@pytest.mark.parametrize(
    "values",
    [
        {"revoked_at": utc_now()},
        {"expires_at": utc_now() - timedelta(seconds=1)},
        {"owner": "another owner"},
        {"role": "user"},
    ],
    ids=lambda values: next(iter(values)),
)
def test_a_stream_ends_when_another_process_changes_its_key(
    app: FastAPI, operator: TestClient, job_id: str, database: Database, values: dict[str, Any]
) -> None:
    key = made(operator)

    ended = seconds_until_the_end(app, job_id, bearer(key["key"]), lambda: change(database, key["id"], **values))

    assert ended is not None


def test_a_stream_ends_when_its_key_expires(app: FastAPI, job_id: str, settings: Settings) -> None:
    key = new_key(settings, "olga", expires_at=utc_now() + timedelta(seconds=1.5))

    assert seconds_until_the_end(app, job_id, bearer(key), lambda: None) is not None


def test_a_browsers_stream_ends_when_its_session_is_signed_out(
    app: FastAPI, operator: TestClient, job_id: str, settings: Settings, database: Database
) -> None:
    with TestClient(app, follow_redirects=False) as browser:
        browser.post("/sign-in", data={"key": new_key(settings, "olga")}, headers=OWN_PAGE)
        cookie = {"Cookie": f"{SESSION_COOKIE}={browser.cookies[SESSION_COOKIE]}"}

        ended = seconds_until_the_end(app, job_id, cookie, lambda: browser.post("/sign-out", headers=OWN_PAGE))
        assert ended is not None

        browser.post("/sign-in", data={"key": new_key(settings, "olga")}, headers=OWN_PAGE)
        cookie = {"Cookie": f"{SESSION_COOKIE}={browser.cookies[SESSION_COOKIE]}"}
        session = app.state.context.session_cookies.read(browser.cookies[SESSION_COOKIE])

    def sign_out_elsewhere() -> None:
        with database.session() as transaction:
            KeyRepository(transaction).end_session(session.id, expires_at=session.expires_at)

    assert seconds_until_the_end(app, job_id, cookie, sign_out_elsewhere) is not None


def test_a_stream_continues_while_its_key_is_valid(
    app: FastAPI, operator: TestClient, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.api.access.test_event_stream_authorisation.PATIENCE_SECONDS", 0.5)
    key, other = made(operator), made(operator)

    ended = seconds_until_the_end(app, job_id, bearer(key["key"]), lambda: operator.delete(f"/keys/{other['id']}"))

    assert ended is None
