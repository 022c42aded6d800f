"""`/models`: the catalogue and its measurements."""

from datetime import UTC, datetime

from fastapi.testclient import TestClient

from store.database import Database
from store.repositories.models import ModelRepository


def test_a_model_that_was_never_prepared_is_listed_without_measurements(client: TestClient) -> None:
    [model] = client.get("/models").json()["data"]

    assert model["name"] == "SmolLM2-135M-Instruct"
    assert model["licence"] == "Apache-2.0"
    assert (model["parameters"], model["tensors"], model["rho_floor"]) == (None, None, None)


def test_a_prepared_model_has_its_size_and_its_rho_floor(client: TestClient, database: Database) -> None:
    with database.session() as session:
        ModelRepository(session).put(
            "SmolLM2-135M-Instruct",
            parameters=134_515_008,
            tensors=272,
            rho_floor=0.35,
            max_length=2048,
            at=datetime.now(UTC),
        )

    [model] = client.get("/models").json()["data"]

    assert (model["parameters"], model["tensors"], model["rho_floor"]) == (134_515_008, 272, 0.35)
    assert model["max_length"] == 2048
