"""`/webhooks`: registered, listed, tested and deleted by their owner only."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, text

from runtime.settings import Settings
from store.database import Database
from store.repositories.webhooks import MAX_WEBHOOKS_PER_OWNER, derive_signing_secret
from store.tables import Delivery, Job, Webhook
from tests.api.conftest import MODEL, NOW

URL = "https://hooks.example.com/greentune"


def register(client: TestClient, url: str = URL) -> Any:
    response = client.post("/webhooks", json={"url": url})
    assert response.status_code == 201, response.text
    return response.json()


def test_a_webhook_is_registered_and_its_secret_shown_once(alice: TestClient, settings: Settings) -> None:
    response = alice.post("/webhooks", json={"url": "https://Hooks.example.com:443/greentune"})

    made = response.json()
    secret = made.pop("secret")
    assert response.status_code == 201
    assert response.headers["location"] == f"/webhooks/{made['id']}"
    assert made == {
        "id": made["id"],
        "owner": "alice",
        "url": URL,
        "created_at": NOW.isoformat().replace("+00:00", "Z"),
        "disabled_at": None,
        "disabled_reason": None,
    }
    assert alice.get(f"/webhooks/{made['id']}").json() == made
    assert alice.get("/webhooks").json() == {"data": [made], "has_more": False}
    assert secret == derive_signing_secret(settings.secret, made["id"])
    assert secret.startswith("whsec_")


def test_the_database_stores_no_webhook_secret(alice: TestClient, database: Database) -> None:
    response = alice.post("/webhooks", json={"url": URL}, headers={"Idempotency-Key": "once"})

    secret = response.json()["secret"].removeprefix("whsec_")
    with database.session() as session:
        tables = session.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).all()
        rows = [row for table in tables for row in session.scalars(text(f'SELECT t::text FROM "{table}" t'))]
    assert any(URL in row for row in rows)
    assert not any(secret in row for row in rows)


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/",
        "https://127.0.0.1/",
        "https://[::ffff:10.0.0.1]/",
        "https://169.254.169.254/latest/meta-data",
        "https://2130706433/",
        "https://localhost/",
        "https://me:word@hooks.example.com/",
        "https://hooks.example.com/#here",
        "https://hooks.example.com/" + "a" * 3000,
        "",
        7,
        None,
    ],
)
def test_an_invalid_url_is_refused_and_named(alice: TestClient, url: object) -> None:
    response = alice.post("/webhooks", json={"url": url})
    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == ["url"]
    assert alice.get("/webhooks").json()["data"] == []


def test_webhooks_per_owner_are_limited_under_concurrent_requests(
    alice: TestClient, bob: TestClient, database: Database
) -> None:
    with database.session() as session:
        session.add_all(
            Webhook(id=f"wh_{number}", owner="alice", url=URL, created_at=NOW)
            for number in range(MAX_WEBHOOKS_PER_OWNER - 1)
        )
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: alice.post("/webhooks", json={"url": URL}), range(4)))

    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
    assert "delete one first" in next(answer.json()["detail"] for answer in answers if answer.status_code == 409)
    register(bob)
    assert len(alice.get("/webhooks", params={"limit": 200}).json()["data"]) == MAX_WEBHOOKS_PER_OWNER


def test_lists_are_paged(alice: TestClient) -> None:
    ids = [register(alice)["id"] for _ in range(3)]
    first = alice.get("/webhooks", params={"limit": 2}).json()
    rest = alice.get("/webhooks", params={"limit": 2, "after": first["data"][-1]["id"]}).json()
    assert [webhook["id"] for webhook in first["data"] + rest["data"]] == ids[::-1]
    assert (first["has_more"], rest["has_more"]) == (True, False)


def test_a_webhook_is_visible_to_its_owner_and_operators_only(
    alice: TestClient, bob: TestClient, client: TestClient
) -> None:
    hers = register(alice)["id"]
    for path in (f"/webhooks/{hers}", f"/webhooks/{hers}/deliveries"):
        assert bob.get(path).status_code == 404
        assert client.get(path).status_code == 200
    assert bob.post(f"/webhooks/{hers}/test").status_code == 404
    assert bob.delete(f"/webhooks/{hers}").status_code == 404
    assert bob.get("/webhooks").json()["data"] == []
    assert alice.get(f"/webhooks/{hers}").status_code == 200


def test_the_end_of_a_job_is_delivered_to_its_owners_webhooks_only(
    alice: TestClient, bob: TestClient, database: Database
) -> None:
    hers, his = register(alice)["id"], register(bob)["id"]
    dataset = alice.post("/datasets", files={"file": ("rows.jsonl", b'{"text": "Leaves are green."}\n')}).json()["id"]
    job = alice.post("/jobs", json={"model": MODEL, "dataset": dataset, "zone": "FR"}).json()["id"]
    assert alice.get(f"/webhooks/{hers}/deliveries").json()["data"] == []

    cancelled = alice.post(f"/jobs/{job}/cancel")

    assert cancelled.json()["status"] == "cancelled"
    [delivery] = alice.get(f"/webhooks/{hers}/deliveries").json()["data"]
    assert (delivery["job"], delivery["type"], delivery["attempts"]) == (job, "job.cancelled", 0)
    assert delivery["next_attempt_at"] is not None
    assert delivery["payload"] == {
        "type": "job.cancelled",
        "timestamp": NOW.isoformat(),
        "data": {
            "id": job,
            "name": None,
            "status": "cancelled",
            "reason": cancelled.json()["reason"],
            "error": None,
            "model": MODEL,
            "zone": "FR",
            "finished_at": NOW.isoformat(),
            "energy_kwh": 0.0,
            "emissions_gco2e": 0.0,
            "unpriced_kwh": 0.0,
            "links": {"self": f"/jobs/{job}", "events": f"/jobs/{job}/events", "artifacts": f"/jobs/{job}/artifacts"},
        },
    }
    assert bob.get(f"/webhooks/{his}/deliveries").json()["data"] == []
    # One change of the job, as without a webhook.
    with database.session() as session:
        assert session.get_one(Job, job).revision == 2


def test_one_test_is_pending_at_a_time_and_none_is_sent_to_a_disabled_webhook(
    alice: TestClient, database: Database
) -> None:
    webhook = register(alice)["id"]
    sent = alice.post(f"/webhooks/{webhook}/test")
    assert sent.status_code == 202
    assert (sent.json()["type"], sent.json()["job"]) == ("webhook.test", None)
    assert alice.get(f"/webhooks/{webhook}/deliveries").json()["data"] == [sent.json()]
    assert alice.post(f"/webhooks/{webhook}/test").status_code == 409

    with database.session() as session:
        held = session.get_one(Webhook, webhook)
        held.disabled_at, held.disabled_reason = NOW, "its receiver answered 410: gone"
        session.get_one(Delivery, sent.json()["id"]).next_attempt_at = None
    refused = alice.post(f"/webhooks/{webhook}/test")
    assert refused.status_code == 409
    assert "410" in refused.json()["detail"]


def test_deleting_a_webhook_deletes_its_deliveries(alice: TestClient, database: Database) -> None:
    webhook = register(alice)["id"]
    assert alice.post(f"/webhooks/{webhook}/test").status_code == 202
    assert alice.delete(f"/webhooks/{webhook}").status_code == 204
    assert alice.get(f"/webhooks/{webhook}").status_code == 404
    assert alice.delete(f"/webhooks/{webhook}").status_code == 404
    with database.session() as session:
        assert session.scalars(select(Delivery)).all() == []
