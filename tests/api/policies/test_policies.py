"""`/policies`: named and versioned; a stored version never changes."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi.testclient import TestClient


def store(client: TestClient, name: str, rho: float) -> Any:
    return client.post("/policies", json={"name": name, "policy": {"kind": "constant", "rho": rho}})


def test_storing_a_policy_again_makes_its_next_version(client: TestClient) -> None:
    assert store(client, "careful", 0.5).json()["version"] == 1

    response = store(client, "careful", 0.7)

    assert response.status_code == 201
    assert response.json()["version"] == 2
    assert response.json()["policy"].items() >= {"kind": "constant", "rho": 0.7, "on_missing": "fallback"}.items()
    assert client.get(response.headers["location"]).json() == response.json()


def test_the_newest_version_of_each_policy_is_listed_by_name(client: TestClient) -> None:
    for name, rho in (("b", 0.5), ("a", 0.5), ("b", 0.6)):
        store(client, name, rho)

    listing = client.get("/policies").json()

    assert [(policy["name"], policy["version"]) for policy in listing["data"]] == [("a", 1), ("b", 2)]


def test_concurrent_writes_of_one_name_get_a_version_each(client: TestClient) -> None:
    with ThreadPoolExecutor(4) as threads:
        responses = list(threads.map(lambda rho: store(client, "shared", rho), [0.5, 0.6, 0.7, 0.8]))

    assert sorted(response.json()["version"] for response in responses) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "Bad Name", "policy": {"kind": "constant", "rho": 0.5}}, "name"),
        ({"name": "a", "policy": {"kind": "constant", "rho": 2}}, "policy.rho"),
        ({"name": "a", "policy": "b"}, "policy"),
        ({"name": "a"}, "policy"),
    ],
)
def test_an_invalid_policy_is_refused_with_its_field(client: TestClient, body: dict[str, Any], field: str) -> None:
    response = client.post("/policies", json=body)

    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == [field]


def test_a_policy_that_does_not_exist_is_not_found(client: TestClient) -> None:
    assert client.get("/policies/unknown").status_code == 404


def test_putting_a_policy_makes_its_first_and_then_its_next_version(client: TestClient) -> None:
    first = client.put("/policies/careful", json={"policy": {"kind": "constant", "rho": 0.5}})
    assert (first.status_code, first.json()["version"]) == (201, 1)
    assert client.get(first.headers["location"]).json() == first.json()

    second = client.put("/policies/careful", json={"policy": {"kind": "constant", "rho": 0.7}})
    assert (second.status_code, second.json()["version"]) == (200, 2)
    assert client.get("/policies/careful").json()["policy"]["rho"] == 0.7


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/policies/Bad%20Name", {"policy": {"kind": "constant", "rho": 0.5}}, "name"),
        ("/policies/a", {"policy": {"kind": "constant", "rho": 2}}, "policy.rho"),
        ("/policies/a", {"kind": "constant", "rho": 0.5}, "policy"),
    ],
)
def test_an_invalid_policy_is_not_stored_by_put(
    client: TestClient, path: str, body: dict[str, Any], field: str
) -> None:
    response = client.put(path, json=body)

    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == field
    assert client.get("/policies").json()["data"] == []


def put(client: TestClient, rho: float, **headers: str) -> Any:
    """Put a policy; a header such as `If_Match` is sent as If-Match."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.put("/policies/careful", json={"policy": {"kind": "constant", "rho": rho}}, headers=sent)


def test_the_etag_of_a_policy_is_its_version(client: TestClient) -> None:
    assert store(client, "careful", 0.5).headers["etag"] == '"1"'
    assert client.get("/policies/careful").headers["etag"] == '"1"'
    assert put(client, 0.6).headers["etag"] == '"2"'
    assert client.get("/policies/careful").headers["etag"] == '"2"'


@pytest.mark.parametrize("if_match", ['"2"', '"1", "2"', "*"])
def test_put_with_the_newest_version_in_if_match_is_stored(client: TestClient, if_match: str) -> None:
    store(client, "careful", 0.5)
    store(client, "careful", 0.6)

    response = put(client, 0.7, If_Match=if_match)

    assert (response.status_code, response.json()["version"]) == (200, 3)


@pytest.mark.parametrize("if_match", ['"1"', '"3"', 'W/"2"', '"02"', '""'])
def test_put_with_an_older_version_in_if_match_is_refused(client: TestClient, if_match: str) -> None:
    store(client, "careful", 0.5)
    store(client, "careful", 0.6)

    response = put(client, 0.7, If_Match=if_match)

    assert response.status_code == 412
    assert response.headers["content-type"] == "application/problem+json"
    assert "newest version is 2" in response.json()["detail"]
    assert client.get("/policies/careful").json()["version"] == 2


@pytest.mark.parametrize("if_match", ["*", '"1"'])
def test_put_with_if_match_is_refused_without_a_stored_version(client: TestClient, if_match: str) -> None:
    response = put(client, 0.7, If_Match=if_match)

    assert response.status_code == 412
    assert "there is no policy of this name" in response.json()["detail"]
    assert client.get("/policies/careful").status_code == 404


def test_put_with_if_none_match_of_any_version_is_stored_once(client: TestClient) -> None:
    assert put(client, 0.5, If_None_Match="*").status_code == 201
    assert put(client, 0.6, If_None_Match="*").status_code == 412
    assert put(client, 0.6, If_None_Match='W/"1"').status_code == 412
    assert put(client, 0.6, If_None_Match='"2"').json()["version"] == 2


@pytest.mark.parametrize("header", ["If-Match", "If-None-Match"])
@pytest.mark.parametrize("given", ["1", '"1', "", '"1" "2"', '*, "1"'])
def test_a_malformed_etag_header_is_refused_by_name(client: TestClient, header: str, given: str) -> None:
    response = put(client, 0.5, **{header: given})

    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == header
    assert client.get("/policies").json()["data"] == []


def test_one_of_concurrent_writes_of_the_next_version_is_stored(client: TestClient) -> None:
    store(client, "careful", 0.5)

    with ThreadPoolExecutor(4) as threads:
        responses = list(threads.map(lambda rho: put(client, rho, If_Match='"1"'), [0.6, 0.7, 0.8, 0.9]))

    assert sorted(response.status_code for response in responses) == [200, 412, 412, 412]
    [stored] = [response.json() for response in responses if response.status_code == 200]
    assert client.get("/policies/careful").json() == stored
    assert stored["version"] == 2


def test_deleting_a_policy_deletes_all_versions_and_jobs_keep_theirs(client: TestClient, submit: Any) -> None:
    for rho in (0.5, 0.7):
        store(client, "careful", rho)
    job = submit(policy="careful").json()

    response = client.delete("/policies/careful")

    assert (response.status_code, response.content) == (204, b"")
    assert client.get("/policies/careful").status_code == 404
    assert client.delete("/policies/careful").status_code == 404
    assert client.get(f"/jobs/{job['id']}").json()["policy"]["rho"] == 0.7
    assert submit(policy="careful").status_code == 422
    assert store(client, "careful", 0.9).json()["version"] == 1
