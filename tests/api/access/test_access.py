"""API keys: authentication, roles, expiry and revocation."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr

from api.access.keys import is_key, new_key_text
from api.main import create_app
from runtime.settings import SecretKeyMissing, Settings
from store.database import Database
from store.repositories.keys import KeyRepository, LastOperatorKey
from store.tables import ApiKey
from tests.keys import bearer, new_key

POLICY = {"kind": "constant", "rho": 0.6}


def create_key(client: TestClient, **fields: Any) -> dict[str, Any]:
    answer = client.post("/keys", json={"owner": "carol", **fields})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def status(client: TestClient, key: str, path: str = "/jobs") -> int:
    return client.get(path, headers=bearer(key)).status_code


def test_a_key_is_shown_once_and_neither_stored_nor_returned_again(client: TestClient, database: Database) -> None:
    made = create_key(client, name="laptop")

    assert made["key"].startswith(f"gtk_{made['hint']}")
    assert is_key(made["key"])
    assert status(client, made["key"]) == 200
    for path in ("/keys", f"/keys/{made['id']}", "/audit"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert made["key"] not in answer.text
        assert "digest" not in answer.text
    with database.session() as session:
        row = session.get_one(ApiKey, made["id"])
        assert len(row.digest) == 64
        assert made["key"] not in str(vars(row))


def test_a_key_issued_under_another_secret_is_unknown(settings: Settings, client: TestClient) -> None:
    other = settings.model_copy(update={"secret_key": SecretStr("another secret, just as long as that")})

    assert status(client, new_key(other)) == 401


def test_a_key_with_a_typo_is_refused_without_a_query(settings: Settings) -> None:
    without_database = settings.model_copy(update={"database_url": "postgresql://unknown@127.0.0.1:1/none"})
    text = new_key_text()
    wrong = text[:10] + ("a" if text[10] != "a" else "b") + text[11:]
    with TestClient(create_app(without_database)) as client:
        assert status(client, wrong) == 401
        assert status(client, text) == 503, "this one is worth a query"


def test_a_request_without_a_key_is_answered_with_what_to_send(anonymous: TestClient) -> None:
    for sent in ("Bearer", "Bearer gtk_", "Basic YTpi", "gtk_x", "Bearer \u00e9", "Bearer " + "x" * 9000):
        answer = anonymous.get("/jobs", headers={b"Authorization": sent.encode("latin-1")})

        assert answer.status_code == 401, sent
        assert answer.headers["www-authenticate"] == 'Bearer realm="greentune", error="invalid_token"'
        assert answer.headers["content-type"] == "application/problem+json"
        assert "gtk_" in answer.json()["detail"]


def test_a_request_without_a_key_is_refused_before_its_body_is_read(anonymous: TestClient) -> None:
    read: list[int] = []

    def body() -> Iterator[bytes]:
        for part in range(3):
            read.append(part)
            yield b"rows"

    answer = anonymous.post("/datasets", content=body())

    assert read == []
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="greentune"'
    assert "POST /keys" in answer.json()["detail"]


def test_an_expired_key_is_refused_at_once(settings: Settings, database: Database) -> None:
    now = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
    clock = [now]
    key = new_key(settings, "carol", "user", expires_at=now + timedelta(hours=1))
    with TestClient(create_app(settings, clock=lambda: clock[0])) as client:
        assert status(client, key) == 200
        clock[0] += timedelta(hours=1)
        answer = client.get("/jobs", headers=bearer(key))

    assert answer.status_code == 401
    assert "expired" in answer.json()["detail"]


def test_a_revoked_key_is_refused_at_once_and_stays_revoked(client: TestClient) -> None:
    made = create_key(client)
    assert status(client, made["key"]) == 200

    assert client.delete(f"/keys/{made['id']}").status_code == 204
    revoked_at = client.get(f"/keys/{made['id']}").json()["revoked_at"]

    assert status(client, made["key"]) == 401
    assert client.delete(f"/keys/{made['id']}").status_code == 204
    assert client.get(f"/keys/{made['id']}").json()["revoked_at"] == revoked_at


def test_a_key_that_another_process_revokes_is_refused_within_seconds(
    client: TestClient, database: Database, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = create_key(client)
    assert status(client, made["key"]) == 200
    with database.session() as session:
        KeyRepository(session).revoke(made["id"], at=now)
    import time

    later = time.monotonic() + 3.1
    monkeypatch.setattr("api.access.authenticator.time.monotonic", lambda: later)

    assert status(client, made["key"]) == 401


def test_the_last_operators_key_that_can_be_used_cannot_be_revoked(client: TestClient, settings: Settings) -> None:
    [own] = client.get("/keys").json()["data"]
    create_key(client, owner="carol")
    expired = new_key(settings, "dave", "operator", expires_at=datetime(2026, 1, 1, tzinfo=UTC))
    assert status(client, expired) == 401

    answer = client.delete(f"/keys/{own['id']}")
    assert answer.status_code == 409
    assert "last operator" in answer.json()["detail"]

    create_key(client, owner="erin", role="operator")
    assert client.delete(f"/keys/{own['id']}").status_code == 204
    assert client.get("/keys").status_code == 401


def test_two_operators_who_revoke_each_other_leave_one_key(
    database: Database, settings: Settings, now: datetime
) -> None:
    for owner in ("erin", "frank"):
        new_key(settings, owner, "operator")
    with database.session() as session:
        [first, second] = [key.id for key in KeyRepository(session).page(limit=2).data]
    refused: list[str] = []

    def revoke_second() -> None:
        try:
            with database.session() as session:
                KeyRepository(session).revoke(second, at=now)
        except LastOperatorKey:
            refused.append(second)

    thread = Thread(target=revoke_second)
    with database.session() as session:
        KeyRepository(session).revoke(first, at=now)
        thread.start()
        thread.join(0.3)
    thread.join()

    assert refused == [second]
    with database.session() as session:
        assert KeyRepository(session).has_operator(at=now)


def test_an_invalid_new_key_is_refused_with_its_field(client: TestClient) -> None:
    refused: list[tuple[str, dict[str, str]]] = [
        ("owner", {}),
        ("owner", {"owner": ""}),
        ("owner", {"owner": " a"}),
        ("owner", {"owner": "a\x00b"}),
        ("owner", {"owner": "x" * 101}),
        ("role", {"owner": "a", "role": "admin"}),
        ("expires_at", {"owner": "a", "expires_at": "2020-01-01T00:00:00Z"}),
        ("expires_at", {"owner": "a", "expires_at": "2030-01-01"}),
        ("colour", {"owner": "a", "colour": "red"}),
    ]
    for field, body in refused:
        answer = client.post("/keys", json=body)

        assert answer.status_code == 422, body
        assert answer.json()["errors"][0]["field"] == field


def test_the_last_use_is_noted_at_most_once_a_minute(settings: Settings, database: Database) -> None:
    clock = [datetime(2026, 11, 23, 12, 0, tzinfo=UTC)]
    key = new_key(settings)

    def last_use() -> datetime | None:
        with TestClient(create_app(settings, clock=lambda: clock[0])) as client:
            assert status(client, key) == 200
        with database.session() as session:
            return KeyRepository(session).page(limit=1).data[0].last_used_at

    begin = clock[0]
    assert last_use() == begin
    clock[0] += timedelta(seconds=59)
    assert last_use() == begin
    clock[0] += timedelta(seconds=1)
    assert last_use() == begin + timedelta(minutes=1)


def test_a_key_is_looked_up_in_one_query_and_cached_for_seconds(
    client: TestClient, alice: TestClient, app: FastAPI
) -> None:
    from sqlalchemy import event

    statements: list[str] = []
    engine = app.state.context.database.engine
    event.listen(engine, "before_cursor_execute", lambda _c, _k, statement, *_: statements.append(statement))

    def record_queries(call: Callable[[], Any]) -> list[str]:
        statements.clear()
        assert call().status_code == 404
        return [statement for statement in statements if "api_keys" in statement]

    first = record_queries(lambda: alice.get("/jobs/job_0"))
    assert [statement.split()[0] for statement in first] == ["SELECT", "UPDATE"], "the use is noted once"
    assert record_queries(lambda: alice.get("/jobs/job_0")) == []


def test_policies_are_read_by_all_and_written_by_operators(client: TestClient, alice: TestClient) -> None:
    for answer in (
        alice.post("/policies", json={"name": "mine", "policy": POLICY}),
        alice.put("/policies/mine", json={"policy": POLICY}),
        alice.delete("/policies/mine"),
    ):
        assert answer.status_code == 403
        assert answer.headers["content-type"] == "application/problem+json"
        assert "operators" in answer.json()["detail"]
    assert client.post("/policies", json={"name": "shared", "policy": POLICY}).status_code == 201

    assert alice.get("/policies/shared").status_code == 200
    assert len(alice.get("/policies").json()["data"]) == 1


def test_a_users_key_reads_shared_resources_and_no_operator_route(alice: TestClient) -> None:
    for path in ("/zones", "/models", "/workers", "/policies", "/docs", "/openapi.json"):
        assert alice.get(path).status_code == 200, path
    for path in ("/keys", "/keys/key_0", "/audit"):
        assert alice.get(path).status_code == 403, path


def test_an_api_without_a_secret_does_not_start(settings: Settings) -> None:
    with pytest.raises(SecretKeyMissing, match="GREENTUNE_SECRET_KEY"):
        create_app(settings.model_copy(update={"secret_key": None}))


def test_responses_are_not_cached_unless_their_route_allows_it(client: TestClient) -> None:
    assert client.get("/keys").headers["cache-control"] == "no-store"
    assert client.get("/nothing").headers["cache-control"] == "no-store"
    assert "no-store" not in client.get("/static/leaf.svg").headers.get("cache-control", "")


class TestOpenOnLoopback:
    """Only local programs and pages need no key, and only if the setting allows it."""

    @pytest.fixture
    def open_app(self, settings: Settings) -> FastAPI:
        return create_app(settings.model_copy(update={"open_on_loopback": True}))

    def ask(self, app: FastAPI, peer: str, host: str = "127.0.0.1", method: str = "GET", **headers: str) -> int:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        with TestClient(app, base_url=f"http://{host}", client=(peer, 50000)) as client:
            return client.request(method, "/keys", headers=names).status_code

    def test_a_local_program_is_an_operator_and_any_other_client_needs_a_key(self, open_app: FastAPI) -> None:
        assert self.ask(open_app, "127.0.0.1", "localhost:8000") == 200
        assert self.ask(open_app, "::1", "[::1]:8000") == 200
        assert self.ask(open_app, "192.0.2.7") == 401, "from elsewhere"
        assert self.ask(open_app, "127.0.0.1", X_Forwarded_For="192.0.2.7") == 401, "by a proxy"
        assert self.ask(open_app, "127.0.0.1", Forwarded="for=192.0.2.7") == 401, "by another proxy"
        assert self.ask(open_app, "127.0.0.1", "evil.example") == 401, "by a name that was made to point here"

    def test_a_cross_site_request_changes_nothing(self, open_app: FastAPI) -> None:
        assert self.ask(open_app, "127.0.0.1", method="POST") == 422
        assert self.ask(open_app, "127.0.0.1", method="POST", Origin="https://evil.example") == 401
        assert self.ask(open_app, "127.0.0.1", method="POST", Sec_Fetch_Site="cross-site") == 401
        assert self.ask(open_app, "127.0.0.1", method="POST", Sec_Fetch_Site="same-origin") == 422

    def test_local_access_is_off_by_default(self, app: FastAPI) -> None:
        assert self.ask(app, "127.0.0.1") == 401
