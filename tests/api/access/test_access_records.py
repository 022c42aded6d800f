"""Rate limits, the audit log, and request ids."""

from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import text
from structlog.testing import capture_logs

from api.access.rate_limits import FAILURES_PER_MINUTE, network_of
from api.main import create_app
from runtime.settings import Settings
from store.database import Database
from tests.keys import bearer, new_key

POLICY = {"kind": "constant", "rho": 0.6}


def list_audit(client: TestClient, **query: Any) -> list[dict[str, Any]]:
    answer = client.get("/audit", params=query)
    assert answer.status_code == 200, answer.text
    entries: list[dict[str, Any]] = answer.json()["data"]
    return entries


def test_each_key_has_its_own_limit_and_gets_the_time_to_wait(settings: Settings, operator_key: str) -> None:
    app = create_app(settings.model_copy(update={"rate_limit_per_minute": 3}))
    with TestClient(app, headers=bearer(operator_key)) as client:
        left = [client.get("/jobs").headers["ratelimit-remaining"] for _ in range(3)]
        refused = client.get("/jobs")
        other = client.get("/jobs", headers=bearer(new_key(settings, "bob", "user")))
        unlimited = {client.get(path).status_code for path in ("/livez", "/static/leaf.svg") for _ in range(3)}

    assert left == ["2", "1", "0"]
    assert refused.status_code == 429
    assert refused.headers["content-type"] == "application/problem+json"
    assert 0 < int(refused.headers["retry-after"]) <= 60
    assert refused.headers["ratelimit-limit"] == "3"
    assert other.status_code == 200
    assert unlimited == {200}


def test_requests_without_a_key_are_counted_by_address(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"rate_limit_per_minute": 3}))
    with TestClient(app) as client, TestClient(app, client=("192.0.2.9", 1)) as elsewhere:
        assert [client.get("/jobs").status_code for _ in range(4)] == [401, 401, 401, 429]
        assert client.get("/sign-in").status_code == 429
        assert elsewhere.get("/jobs").status_code == 401


def test_after_too_many_wrong_keys_an_address_is_blocked_but_valid_keys_are_not(
    client: TestClient, app: FastAPI
) -> None:
    with TestClient(app) as anonymous:
        wrong = [anonymous.get("/jobs", headers=bearer("gtk_x")).status_code for _ in range(FAILURES_PER_MINUTE + 1)]

    assert wrong == [401] * FAILURES_PER_MINUTE + [429]
    assert client.get("/jobs").status_code == 200


@pytest.mark.parametrize(
    ("address", "counted_as"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("unknown", "unknown"),
    ],
)
def test_ipv6_addresses_of_one_network_are_counted_together(address: str, counted_as: str) -> None:
    assert network_of(address) == counted_as


def test_a_change_is_recorded_with_its_key_and_a_read_is_not(client: TestClient) -> None:
    client.get("/jobs")
    answer = client.put("/policies/careful", json={"policy": POLICY}, headers={"X-Request-Id": "mine-1"})
    assert answer.status_code == 201

    [entry] = list_audit(client)

    [key] = client.get("/keys").json()["data"]
    assert entry["action"].startswith("PUT /policies")
    assert (entry["target"], entry["status"]) == ("/policies/careful", 201)
    assert (entry["key_id"], entry["owner"], entry["role"]) == (key["id"], "ops", "operator")
    assert (entry["request_id"], entry["address"]) == ("mine-1", "testclient")
    assert entry["at"] == "2026-11-23T12:00:00Z"


def test_a_change_that_fails_is_recorded_too(client: TestClient, alice: TestClient) -> None:
    client.post("/policies", json={"name": "x"})
    alice.delete("/policies/nul%00l")
    client.post("/nothing")

    entries = list_audit(client)

    assert [(entry["target"], entry["status"]) for entry in entries] == [
        ("/nothing", 404),
        ("/policies/nul%00l", 403),
        ("/policies", 422),
    ]
    assert [entry["owner"] for entry in list_audit(client, owner="alice")] == ["alice"]


def test_a_refused_key_is_recorded_for_any_request_and_a_request_without_one_is_not(
    client: TestClient, anonymous: TestClient, settings: Settings
) -> None:
    made = client.post("/keys", json={"owner": "carol"}).json()
    client.delete(f"/keys/{made['id']}")
    anonymous.get("/jobs", headers=bearer(made["key"]))
    anonymous.get("/jobs", headers=bearer("gtk_unknown"))
    anonymous.get("/jobs")
    anonymous.post("/jobs", json={})
    anonymous.post("/sign-in", data={"key": "gtk_unknown"}, headers={"Sec-Fetch-Site": "same-origin"})

    entries = list_audit(client)[:-2]

    assert [(entry["action"].split()[0], entry["target"], entry["status"]) for entry in entries] == [
        ("POST", "/sign-in", 401),
        ("GET", "/jobs", 401),
        ("GET", "/jobs", 401),
    ]
    assert [entry["key_id"] for entry in entries] == [None, None, made["id"]]
    assert "gtk_unknown" not in str(entries)


def test_the_log_is_read_page_by_page(client: TestClient) -> None:
    for number in range(3):
        client.post("/policies", json={"name": f"p{number}", "policy": POLICY})

    first = client.get("/audit", params={"limit": 2}).json()
    second = list_audit(client, limit=2, after=first["data"][-1]["id"])

    assert first["has_more"]
    assert len(first["data"]) == 2
    assert len(second) == 1


def test_a_record_that_cannot_be_written_is_logged_and_the_response_is_sent(
    client: TestClient, database: Database
) -> None:
    with database.session() as session:
        session.execute(text("ALTER TABLE audit RENAME TO audit_away"))

    with capture_logs() as logs:
        answer = client.post("/policies", json={"name": "x", "policy": POLICY})

    assert answer.status_code == 201
    [line] = [line for line in logs if line["event"] == "audit.unwritten"]
    assert line["record"]["target"] == "/policies"


def test_an_unexpected_error_is_recorded_too(app: FastAPI, operator_key: str) -> None:
    @app.post("/fall")
    def fail() -> None:
        raise RuntimeError

    with TestClient(app, headers=bearer(operator_key), raise_server_exceptions=False) as client:
        answer = client.post("/fall", headers={"X-Request-Id": "fallen"})
        [entry] = list_audit(client)

    assert (entry["target"], entry["status"], entry["request_id"]) == ("/fall", 500, "fallen")
    assert answer.headers["x-request-id"] == "fallen"
    assert answer.json()["request_id"] == "fallen"


def test_an_id_that_is_not_well_formed_is_replaced(client: TestClient) -> None:
    ids = set()
    for given in ("", "a b", "x" * 129, "<script>", "\u00e9"):
        made = client.get("/livez", headers={b"X-Request-Id": given.encode("latin-1")}).headers["x-request-id"]
        assert made.startswith("request_"), given
        ids.add(made)

    assert len(ids) == 5


def test_log_lines_of_a_request_carry_its_id(app: FastAPI, operator_key: str) -> None:
    import structlog

    @app.get("/look")
    def get_log_context() -> dict[str, Any]:
        return structlog.contextvars.get_contextvars()

    with TestClient(app, headers=bearer(operator_key)) as client:
        assert client.get("/look", headers={"X-Request-Id": "mine"}).json()["request_id"] == "mine"
    assert "request_id" not in structlog.contextvars.get_contextvars()
