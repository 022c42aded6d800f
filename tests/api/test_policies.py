"""`/policies`: named, versioned, never changed in place."""

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


def test_two_who_store_the_same_name_at_once_get_a_version_each(client: TestClient) -> None:
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
def test_a_faulty_policy_is_refused_with_the_field_named(client: TestClient, body: dict[str, Any], field: str) -> None:
    response = client.post("/policies", json=body)

    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == [field]


def test_a_policy_that_does_not_exist_is_not_found(client: TestClient) -> None:
    assert client.get("/policies/nobody").status_code == 404
