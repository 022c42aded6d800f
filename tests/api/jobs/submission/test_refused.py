"""`POST /jobs`: submissions that are refused with the field named."""

from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi.testclient import TestClient

from runtime.site import Site
from store.database import Database
from store.repositories.jobs import JobRepository
from store.repositories.models import ModelRepository
from store.repositories.workers import WorkerRepository
from store.tables import Model
from tests.api.conftest import MODEL, NOW
from tests.api.jobs.submission.submissions import STEPS, error_fields, error_message


def test_all_unknown_names_are_reported_together(submit: Any) -> None:
    response = submit(model="gpt-9", dataset="dataset_0", zone="XX", policy="unknown")

    assert error_fields(response) == ["model", "dataset", "zone", "policy"]
    messages = [error["message"] for error in response.json()["errors"]]
    assert "SmolLM2-135M-Instruct" in messages[0]
    assert "FR" in messages[2]


@pytest.mark.parametrize(
    ("deadline", "reason"),
    [
        ("2026-11-23T11:59:59Z", "has passed"),
        ("2026-11-23T18:00:00", "no offset from UTC"),
        ("2030-01-01T00:00:00Z", "days ahead"),
        ("9999-12-31T23:59:59-12:00", "years 1 to 9999"),
        ("tomorrow", "expected a time such as"),
        (1_800_000_000, "expected a time such as"),
        ("1800000000", "expected a time such as"),
    ],
)
def test_a_deadline_that_cannot_be_kept_is_refused(submit: Any, deadline: Any, reason: str) -> None:
    response = submit(deadline=deadline)

    assert error_fields(response) == ["deadline"]
    assert reason in error_message(response)


def test_a_method_that_cannot_train_a_measured_model_is_refused(submit: Any, database: Database) -> None:
    costs = {"methods": {"bitfit": "unavailable: LlamaForCausalLM has no tensor that 'bitfit' trains", "lora": 0.7}}
    with database.session() as session:
        session.add(Model(name=MODEL, parameters=1, tensors=1, rho_floor=0.5, costs=costs, measured_at=NOW))

    response = submit(method="bitfit")

    assert error_fields(response) == ["method"]
    assert "has no tensor" in error_message(response)
    assert submit(method="lora").status_code == 201


@pytest.mark.fault(number=8)
@pytest.mark.parametrize("path", ["/jobs", "/jobs/estimate"])
def test_rows_longer_than_the_models_positions_are_refused_with_the_figure(
    client: TestClient, dataset_id: str, database: Database, path: str
) -> None:
    with database.session() as session:
        ModelRepository(session).put(MODEL, parameters=1, tensors=1, rho_floor=0.5, max_length=256, at=NOW)

    def post_with(**hyperparameters: int) -> Any:
        return client.post(path, json={"model": MODEL, "dataset": dataset_id, "hyperparameters": hyperparameters})

    for given in ({}, {"max_length": 257}):
        response = post_with(**given)
        assert response.status_code == 422
        assert error_fields(response) == ["hyperparameters.max_length"]
        assert f"given {given.get('max_length', 512)}, but {MODEL} has positions for 256 tokens" in error_message(
            response
        )
    assert post_with(max_length=256).status_code in {201, 409}  # an estimate also waits for the model's costs


def test_an_unknown_method_is_refused_with_the_known_ones(submit: Any) -> None:
    response = submit(method="qlora")

    assert error_fields(response) == ["method"]
    assert "'lora'" in error_message(response)


@pytest.mark.parametrize(
    ("policy", "field"),
    [
        ({"kind": "steps", "steps": [{"up_to": 100, "rho": 1}, {"rho": 1.5}]}, "policy.steps[1].rho"),
        ({"kind": "linear", "clean": 100, "dirty": 50, "rho_max": 1, "rho_min": 0.5}, "policy.dirty"),
        ({"kind": "constant"}, "policy.rho"),
        ({"kind": "constant", "rho": 0.5, "colour": "green"}, "policy.colour"),
        ({"kind": "quota"}, "policy.kind"),
        ({"kind": "budget", "budget_gco2e": 0, "rho_max": 1, "rho_min": 0.4}, "policy.budget_gco2e"),
        ({"kind": "constant", "rho": 0.5, "gate": {"mode": "wait"}}, "policy.gate.mode"),
        ({"kind": "constant", "rho": 0.5, "gate": {"resume_below": 90}}, "policy.gate.resume_below"),
        ({"kind": "constant", "rho": 0.5, "smoothing": {"min_epochs": 0}}, "policy.smoothing.min_epochs"),
        ({}, "policy.kind"),
        (17, "policy"),
    ],
)
def test_an_invalid_policy_is_refused_with_the_path_of_the_error(submit: Any, policy: Any, field: str) -> None:
    assert error_fields(submit(policy=policy)) == [field]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"colour": "green"}, "colour"),
        ({"hyperparameters": {"epochs": 0}}, "hyperparameters.epochs"),
        ({"hyperparameters": {"warmup_share": 0.1}}, "hyperparameters.warmup_share"),
        ({"hyperparameters": {"learning_rate": 0}}, "hyperparameters.learning_rate"),
        ({"priority": 1000}, "priority"),
        ({"metadata": {"team": 5}}, "metadata.team"),
        ({"metadata": {"team": "\0"}}, "metadata.team"),
        ({"hyperparameters": {"sample_prompt": "a\0b"}}, "hyperparameters.sample_prompt"),
        ({"dataset": "dataset_\0"}, "dataset"),
        ({"model": None}, "model"),
    ],
)
def test_a_field_out_of_bounds_is_named(submit: Any, body: dict[str, Any], field: str) -> None:
    assert error_fields(submit(**body)) == [field]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"model": "\\ud800", "dataset": "d"}', "model"),
        (b'{"model": "m", "dataset": "d", "hyperparameters": {"learning_rate": Infinity}}', "hyperparameters"),
        (b'{"model": "m", "dataset": "d", "policy": {"kind": "constant", "rho": NaN}}', "model"),
        (b'{"model": ', "body"),
        (b"[]", "body"),
        (b"", "body"),
    ],
)
def test_malformed_json_is_refused(client: TestClient, body: bytes, field: str) -> None:
    response = client.post("/jobs", content=body, headers={"content-type": "application/json"})

    assert error_fields(response)[0].startswith(field)


def test_a_body_of_another_content_type_is_refused(client: TestClient) -> None:
    response = client.post("/jobs", content=b"{}", headers={"content-type": "text/plain"})

    assert error_fields(response) == ["body"]
    assert "application/json" in error_message(response)


@pytest.fixture
def measured_floor(database: Database) -> float:
    """Store a floor of 0.45 for the model, as a prepare worker would measure it."""
    with database.session() as session:
        ModelRepository(session).put(
            "SmolLM2-135M-Instruct", parameters=134_515_008, tensors=272, rho_floor=0.45, at=datetime.now(UTC)
        )
    return 0.45


@pytest.mark.usefixtures("measured_floor")
def test_a_rho_below_the_measured_floor_is_refused_and_the_floor_stated(submit: Any, client: TestClient) -> None:
    response = submit(policy=STEPS)
    assert error_fields(response) == ["policy.steps[2].rho"]
    assert "0.45" in error_message(response)

    client.post("/policies", json={"name": "stepwise", "policy": STEPS})
    response = submit(policy="stepwise")
    assert error_fields(response) == ["policy"]
    assert "steps[2].rho" in error_message(response)


@pytest.mark.usefixtures("measured_floor")
def test_the_rho_floor_does_not_apply_to_full_fine_tuning(submit: Any) -> None:
    assert submit(policy=STEPS, method="full").status_code == 201


def test_an_unmeasured_rho_floor_refuses_no_submission(submit: Any) -> None:
    assert submit(policy=STEPS).status_code == 201


def test_a_refused_submission_stores_nothing(submit: Any, database: Database) -> None:
    submit(zone="XX")

    with database.session() as session:
        assert JobRepository(session).page(limit=10).data == []


@pytest.mark.parametrize("zone", [None, "FR"])
def test_flash_attention_is_refused_while_only_processors_are_alive(
    submit: Any, database: Database, zone: str | None
) -> None:
    flash = {"zone": zone, "hyperparameters": {"attention": "flash"}}
    assert submit(**flash).status_code == 201  # a worker with a GPU may come

    def add_worker(name: str, where: str, device: str, memory_bytes: int | None = 10**12) -> None:
        with database.session() as session:
            WorkerRepository(session).record_heartbeat(
                name, site=Site(zone=where), device=device, memory_bytes=memory_bytes
            )

    add_worker("processor", "FR", "cpu")
    response = submit(**flash)
    assert error_fields(response) == ["hyperparameters.attention"]
    where = "" if zone is None else " in zone FR"
    assert error_message(response) == f"given 'flash', which needs a GPU, and every live worker{where} trains on a CPU"
    assert submit(zone=zone, hyperparameters={"attention": "sdpa"}).status_code == 201
    add_worker("gpu", "ES", "NVIDIA H200")
    assert submit(**flash).status_code == (422 if zone else 201)
    add_worker("gpu", "FR", "NVIDIA H200")
    assert submit(**flash).status_code == 201
