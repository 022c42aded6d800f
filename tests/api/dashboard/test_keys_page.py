"""The page of keys as it is served: for operators, without a key's text."""

import re

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from api.dashboard import keys
from tests.keys import bearer

HTML = {"Accept": "text/html"}
PAGE = "/dashboard/keys"


def create(client: TestClient, **body: object) -> dict[str, str]:
    answer = client.post("/keys", json={"owner": "carol", **body})
    assert answer.status_code == 201, answer.text
    found: dict[str, str] = answer.json()
    return found


def test_operators_see_every_key_without_its_text(client: TestClient) -> None:
    key = create(client, name="<b>Notebook</b>", role="user", expires_at="2027-01-01T00:00:00Z")
    revoked = create(client, owner="dave")
    client.delete(f"/keys/{revoked['id']}")

    page = client.get(PAGE, headers=HTML).text
    assert "&lt;b&gt;Notebook&lt;/b&gt;" in page
    assert key["key"] not in page
    assert "Time of expiry; not set: valid until it is revoked" in page
    assert f"gtk_{key['hint']}…" in page
    row = re.search(rf'<tr data-key="{key["id"]}">.*?</tr>', page, re.DOTALL)
    assert row is not None
    for text in ("carol", "user", "valid until 2027-01-01", "never", "Revoke"):
        assert text in row[0]
    row = re.search(rf'<tr data-key="{revoked["id"]}">.*?</tr>', page, re.DOTALL)
    assert row is not None
    assert "revoked 2026-11-23" in row[0]
    assert "Revoke" not in row[0]


def test_only_operators_see_the_page_and_its_link(client: TestClient, alice: TestClient, anonymous: TestClient) -> None:
    assert alice.get(PAGE, headers=HTML).status_code == 403
    assert 'href="/dashboard/keys"' not in alice.get("/", headers=HTML).text
    assert 'href="/dashboard/keys"' in client.get("/", headers=HTML).text
    assert anonymous.get(PAGE, headers=HTML, follow_redirects=False).status_code in (303, 401)


def test_an_unchanged_page_is_not_sent_again(client: TestClient) -> None:
    first = client.get(PAGE, headers=HTML)
    again = client.get(PAGE, headers={**HTML, "If-None-Match": first.headers["etag"]})
    assert again.status_code == 304
    create(client)
    assert client.get(PAGE, headers={**HTML, "If-None-Match": first.headers["etag"]}).status_code == 200


def test_the_page_that_marks_the_key_in_use_is_another_for_each_key(client: TestClient) -> None:
    owner = client.get("/keys").json()["data"][0]["owner"]
    other = bearer(create(client, owner=owner, role="operator")["key"])
    client.get(PAGE, headers={**HTML, **other})
    first = client.get(PAGE, headers=HTML)
    answer = client.get(PAGE, headers={**HTML, **other, "If-None-Match": first.headers["etag"]})
    assert answer.status_code == 200


def test_older_keys_are_on_further_pages(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "LISTED", 2)
    created = [create(client)["id"] for _ in range(4)]
    shown: list[str] = []
    address = PAGE
    while address:
        page = client.get(address, headers=HTML).text
        shown += re.findall(r'data-key="(key_\w+)"', page)
        older = re.search(r'href="(/dashboard/keys\?after=key_\w+)"', page)
        address = older[1] if older else ""
    assert shown[:4] == created[::-1]
    assert len(shown) == len(set(shown)) == 5


def test_a_session_is_needed_from_this_services_pages_to_create_a_key(app: FastAPI, client: TestClient) -> None:
    key = create(client, role="operator")["key"]
    with TestClient(app, base_url="http://testserver") as browser:
        browser.post("/sign-in", data={"key": key}, headers={"Origin": "http://testserver"})
        assert browser.get(PAGE, headers=HTML).status_code == 200
        body = {"owner": "mallory", "role": "operator"}
        foreign = browser.post("/keys", json=body, headers={"Origin": "http://evil.test"})
        assert foreign.status_code == 403
        assert browser.post("/keys", json=body, headers={"Origin": "http://testserver"}).status_code == 201
