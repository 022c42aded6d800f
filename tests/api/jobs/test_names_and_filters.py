"""Names of jobs, and lists of jobs filtered by name, model and owner."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from store.database import Database
from store.tables import Job
from tests.api.conftest import MODEL

ROWS = b'{"text": "one"}\n{"text": "two"}\n'


def listed(client: TestClient, **filters: Any) -> list[str]:
    answer = client.get("/jobs", params=filters)
    assert answer.status_code == 200, answer.text
    return [job["id"] for job in answer.json()["data"]]


def own_job(client: TestClient, **changed: Any) -> str:
    """Submit a job on a dataset of the client's own."""
    dataset = client.post("/datasets", files={"file": ("rows.jsonl", ROWS)}).json()["id"]
    answer = client.post("/jobs", json={"model": MODEL, "dataset": dataset, **changed})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def test_a_job_has_its_name_and_none_unless_given(submit: Any, client: TestClient) -> None:
    named = submit(name="Tickets, 3rd try").json()
    assert named["name"] == "Tickets, 3rd try"
    assert client.get(named["links"]["self"]).json()["name"] == "Tickets, 3rd try"
    assert submit().json()["name"] is None
    # A name is no id: it may be there twice.
    assert submit(name="Tickets, 3rd try").status_code == 201


@pytest.mark.parametrize("name", ["", " ", "x" * 101, "two\nlines", 7])
def test_a_name_that_cannot_be_shown_is_refused(submit: Any, name: object) -> None:
    answer = submit(name=name)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == ["name"]


def test_jobs_are_filtered_by_name_and_model(submit: Any, client: TestClient, database: Database) -> None:
    first, second, other = (submit(name=name).json()["id"] for name in ("night", "night", "nightly"))
    with database.session() as session:
        session.get_one(Job, first).model = "another"

    assert listed(client, name="night") == [second, first]
    assert listed(client, name="nightly") == [other]
    assert listed(client, name="NIGHT") == []
    assert listed(client, model="another") == [first]
    assert listed(client, model=MODEL, name="night") == [second]
    assert listed(client, model="unknown") == []


def test_pages_of_a_filtered_list_have_each_job_once(submit: Any, client: TestClient) -> None:
    wanted = []
    for number in range(6):
        job = submit(name="night" if number % 2 else "day").json()["id"]
        wanted += [job] if number % 2 else []
    found: list[str] = []
    after: dict[str, str] = {}
    for _ in wanted:
        page = client.get("/jobs", params={"name": "night", "limit": 1, **after}).json()
        found += [job["id"] for job in page["data"]]
        after = {"after": found[-1]}
    assert not page["has_more"]
    assert found == wanted[::-1]


def test_operators_filter_by_owner_and_users_see_their_own_alone(
    client: TestClient, alice: TestClient, bob: TestClient
) -> None:
    of_alice, of_bob = own_job(alice, name="x"), own_job(bob, name="x")

    assert listed(client, owner="alice") == [of_alice]
    assert listed(client, owner="bob", name="x") == [of_bob]
    assert listed(client, owner="unknown") == []
    assert listed(alice, owner="alice") == [of_alice]
    assert listed(alice, name="x") == [of_alice]
    refused = alice.get("/jobs", params={"owner": "bob"})
    assert refused.status_code == 403
    assert "only operators" in refused.json()["detail"]
    assert alice.get("/", params={"owner": "bob"}, headers={"Accept": "text/html"}).status_code == 403


@pytest.mark.parametrize("name", ["name", "model", "owner", "zone"])
def test_a_filter_is_bounded(client: TestClient, name: str) -> None:
    assert client.get("/jobs", params={name: "x" * 201}).status_code == 422
    answer = client.get("/", params={name: "x" * 10_000}, headers={"Accept": "text/html"})
    assert answer.status_code == 422


def test_the_pages_show_the_name_as_text(submit: Any, client: TestClient) -> None:
    job = submit(name="<b>Tickets</b>").json()
    html = {"Accept": "text/html"}
    for path in ("/", job["links"]["page"]):
        page = client.get(path, headers=html).text
        assert "&lt;b&gt;Tickets&lt;/b&gt;" in page
        assert "<b>Tickets</b>" not in page
    assert "<title>validating · &lt;b&gt;Tickets&lt;/b&gt; · GreenTune</title>" in page
    form = client.get(f"/dashboard/submit?from={job['id']}", headers=html).text
    assert "Tickets" in form
