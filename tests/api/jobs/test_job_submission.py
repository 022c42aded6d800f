"""`POST /jobs`: submissions that are stored, and those that are refused with the field named."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from api.main import create_app
from greencore.hyperparameters import Hyperparameters
from runtime.settings import Settings
from store.database import WAKE_CHANNEL, Database
from store.lifecycle.status import JobStatus
from store.repositories.jobs import JobRepository, get_job_policy
from store.repositories.models import ModelRepository
from store.tables import Model
from tests.api.conftest import MODEL, NOW
from tests.keys import bearer

STEPS = {"kind": "steps", "steps": [{"up_to": 150, "rho": 1.0}, {"up_to": 300, "rho": 0.7}, {"rho": 0.2}]}


def error_fields(response: Any) -> list[str]:
    """Return the fields that a refusal names."""
    assert response.status_code == 422, response.text
    assert response.headers["content-type"] == "application/problem+json"
    return [error["field"] for error in response.json()["errors"]]


def error_message(response: Any) -> str:
    """Return the first message of a refusal."""
    return str(response.json()["errors"][0]["message"])


def test_a_job_is_stored_as_validating_and_found_at_its_location(submit: Any, client: TestClient) -> None:
    response = submit()

    assert response.status_code == 201
    assert client.get(response.headers["location"]).json() == response.json()
    job = response.json()
    assert job["status"] == "validating"
    assert job["id"].startswith("job_")
    assert job["method"] == "greentrainer"
    unknown = {"steps": None, "micro_batch_size": None}
    assert job["progress"] == {"epochs": 3, "epochs_done": 0, "steps_done": 0, "share": 0, **unknown}


def test_the_default_policy_is_the_constant_that_the_paper_advises(submit: Any) -> None:
    policy = submit().json()["policy"]

    assert (policy["kind"], policy["rho"], policy["on_missing"]) == ("constant", 0.6, "fallback")
    assert policy["gate"]["mode"] == "none"


def test_all_submitted_fields_are_returned(submit: Any, now: datetime) -> None:
    deadline = now + timedelta(hours=8)

    job = submit(
        method="full",
        policy=STEPS,
        zone="FR",
        deadline=deadline.isoformat(),
        priority=7,
        hyperparameters={"epochs": 5, "seed": 3, "sample_prompt": "Hello"},
        metadata={"team": "speech"},
    ).json()

    assert job["method"] == "full"
    assert job["policy"]["steps"] == STEPS["steps"]
    assert job["zone"] == "FR"
    assert datetime.fromisoformat(job["deadline"]) == deadline
    assert job["priority"] == 7
    assert job["progress"]["epochs"] == 5
    given = Hyperparameters(epochs=5, seed=3, sample_prompt="Hello")
    assert job["hyperparameters"] == given.model_dump(mode="json")
    assert job["metadata"] == {"team": "speech"}


def test_a_submission_wakes_the_scheduler(submit: Any, database: Database) -> None:
    with database.engine.connect() as connection:
        connection.execute(text(f"LISTEN {WAKE_CHANNEL}"))
        connection.commit()

        submit()

        driver = connection.connection.driver_connection
        assert driver is not None
        assert len(list(driver.notifies(timeout=5, stop_after=1))) == 1


def test_a_job_is_accepted_while_redis_is_down(settings: Settings, dataset_id: str, operator_key: str) -> None:
    without_redis = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    with TestClient(create_app(without_redis), headers=bearer(operator_key)) as client:
        response = client.post("/jobs", json={"model": "SmolLM2-135M-Instruct", "dataset": dataset_id})

    assert response.status_code == 201


def test_a_stored_policy_is_resolved_by_name_and_kept_as_a_snapshot(submit: Any, client: TestClient) -> None:
    client.post("/policies", json={"name": "careful", "policy": {"kind": "constant", "rho": 0.5}})
    job = submit(policy="careful").json()
    client.post("/policies", json={"name": "careful", "policy": {"kind": "constant", "rho": 0.9}})

    assert client.get(f"/jobs/{job['id']}").json()["policy"]["rho"] == 0.5
    assert job["policy_name"] == "careful"
    assert submit(policy="careful").json()["policy"]["rho"] == 0.9


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


@pytest.mark.parametrize(
    "policy",
    [
        STEPS,
        {"kind": "linear", "clean": 100, "dirty": 400, "rho_max": 1.0, "rho_min": 0.4},
        {"kind": "percentile", "window_hours": 168, "gamma": 1.0, "rho_max": 1.0, "rho_min": 0.4},
        {"kind": "budget", "budget_gco2e": 500, "rho_max": 1.0, "rho_min": 0.4},
        {"kind": "price", "gco2e_per_loss": 50, "rho_max": 1.0, "rho_min": 0.4},
    ],
    ids=lambda policy: policy["kind"],
)
@pytest.mark.parametrize("gate", [{"mode": "defer"}, {"mode": "pause", "pause_above": 450, "resume_below": 400}])
def test_every_policy_kind_is_accepted_with_each_gate_and_stored_with_its_defaults(
    submit: Any, policy: dict[str, Any], gate: dict[str, Any]
) -> None:
    response = submit(policy={**policy, "gate": gate})

    assert response.status_code == 201, response.text
    kept = response.json()["policy"]
    assert kept.items() >= policy.items()
    assert kept["gate"] == {"min_saving": 0.05, "max_delay_hours": 24, **gate}
    assert kept["smoothing"]["min_epochs"] == 1


def test_a_deadline_before_the_expected_end_is_accepted(submit: Any, now: datetime) -> None:
    assert submit(deadline=(now + timedelta(seconds=1)).isoformat()).status_code == 201


@pytest.mark.parametrize("method", ["lora", "prefix", "top2", "bitfit"])
def test_a_method_without_a_rho_is_accepted_with_any_policy(submit: Any, method: str, database: Database) -> None:
    with database.session() as session:
        session.add(Model(name=MODEL, parameters=1, tensors=1, rho_floor=0.5, costs=None, measured_at=NOW))
    response = submit(method=method, policy={"kind": "constant", "rho": 0.1, "gate": {"mode": "defer"}})

    assert response.status_code == 201
    assert response.json()["method"] == method
    with database.session() as session:
        [job] = JobRepository(session).page(limit=1).data
    policy = get_job_policy(job)
    assert (policy.lowest_rho()[1], policy.gate.mode) == (1.0, "defer")


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


def test_an_accepted_submission_is_committed_before_it_is_answered(submit: Any, database: Database) -> None:
    job_id = submit().json()["id"]

    with database.session() as session:
        job = JobRepository(session).get(job_id)
        assert job is not None
        assert job.status is JobStatus.VALIDATING


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"hyperparameters": {"packing": True, "group_by_length": True}}, "group_by_length"),
        ({"hyperparameters": {"packing": "always"}}, "packing"),
        ({"hyperparameters": {"attention": "linear"}}, "attention"),
        ({"hyperparameters": {"attention": "flash", "precision": "fp32"}}, "attention"),
        ({"method": "prefix", "hyperparameters": {"packing": True}}, "packing"),
        ({"method": "prefix", "hyperparameters": {"gradient_checkpointing": True}}, "gradient_checkpointing"),
    ],
    ids=str,
)
def test_contradicting_layouts_are_refused_with_the_field(submit: Any, body: dict[str, Any], field: str) -> None:
    assert set(error_fields(submit(**body))) == {f"hyperparameters.{field}"}


def test_auto_contradicts_nothing(submit: Any) -> None:
    auto = dict.fromkeys(("packing", "group_by_length", "gradient_checkpointing"), "auto")
    assert submit(method="prefix", hyperparameters=auto).status_code == 201


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"method": "full", "hyperparameters": {"lora": {"rank": 4}}}, "lora"),
        ({"hyperparameters": {"lora": {}}}, "lora"),
        ({"method": "lora", "hyperparameters": {"adaptive": {}}}, "adaptive"),
        ({"method": "lora", "hyperparameters": {"lora": {"rank": 0}}}, "lora.rank"),
        ({"method": "lora", "hyperparameters": {"lora": {"targets": "all"}}}, "lora.targets"),
        ({"method": "lora", "hyperparameters": {"lora": {"targets": []}}}, "lora.targets"),
        ({"method": "lora", "hyperparameters": {"lora": {"targets": ["q_proj", "v" * 201]}}}, "lora.targets[1]"),
        ({"method": "lora", "hyperparameters": {"lora": {"result": "adapter"}, "result": "delta"}}, "lora"),
        ({"hyperparameters": {"adaptive": {"reselect_every": 0}}}, "adaptive.reselect_every"),
        ({"hyperparameters": {"adaptive": {"never_train": [""]}}}, "adaptive.never_train[0]"),
        ({"hyperparameters": {"adaptive": {"always_train": ["*"] * 65}}}, "adaptive.always_train"),
    ],
    ids=str,
)
def test_settings_of_a_method_are_refused_with_the_field(submit: Any, body: dict[str, Any], field: str) -> None:
    assert set(error_fields(submit(**body))) == {f"hyperparameters.{field}"}


def test_a_job_keeps_the_settings_of_its_method(submit: Any, client: TestClient) -> None:
    adaptive = {"reselect_every": 50, "never_train": ["*.embed_tokens.*"], "always_train": ["*norm*"]}
    job = submit(hyperparameters={"adaptive": adaptive}).json()
    assert adaptive.items() <= job["hyperparameters"]["adaptive"].items()
    lora = {"rank": 16, "targets": "all-linear", "result": "adapter"}
    job = submit(method="lora", hyperparameters={"lora": lora}).json()
    assert lora.items() <= job["hyperparameters"]["lora"].items()


@pytest.mark.parametrize(
    ("hyperparameters", "field"),
    [
        ({"epochs": 2, "max_steps": 10}, "max_steps"),
        ({"epochs": None}, "max_steps"),
        ({"micro_batch_size": 5}, "micro_batch_size"),
        ({"micro_batch_size": "most"}, "micro_batch_size"),
        ({"warmup_ratio": 0.1, "warmup_steps": 3}, "warmup_steps"),
        ({"max_steps": 10, "warmup_steps": 11}, "warmup_steps"),
        ({"scheduler": "constant", "min_lr_ratio": 0.1}, "min_lr_ratio"),
        ({"momentum": 0.9}, "momentum"),
        ({"optimizer": "sgd", "adam_beta1": 0.8}, "adam_beta1"),
        ({"optimizer": "adafactor", "adam_beta2": 0.8}, "adam_beta2"),
        ({"scheduler": "polynomial"}, "scheduler"),
    ],
    ids=str,
)
def test_a_contradicting_recipe_is_refused_with_the_field(
    submit: Any, hyperparameters: dict[str, Any], field: str
) -> None:
    assert error_fields(submit(hyperparameters=hyperparameters)) == [f"hyperparameters.{field}"]


def test_a_length_in_steps_replaces_the_epochs(submit: Any, client: TestClient, dataset_id: str) -> None:
    job = submit(hyperparameters={"max_steps": 5, "batch_size": 1}).json()
    rows = client.get(f"/datasets/{dataset_id}").json()["rows"]
    assert job["hyperparameters"]["epochs"] is None
    assert job["progress"]["epochs"] == -(-5 // rows)
    again = submit(hyperparameters=job["hyperparameters"])
    assert again.status_code == 201


def test_steps_of_more_epochs_than_a_run_may_have_are_refused(submit: Any, client: TestClient, dataset_id: str) -> None:
    rows = client.get(f"/datasets/{dataset_id}").json()["rows"]
    most = {"batch_size": rows, "max_steps": 1000}
    assert submit(hyperparameters=most).status_code == 201

    response = submit(hyperparameters={**most, "max_steps": 1001})

    assert error_fields(response) == ["hyperparameters.max_steps"]
    assert error_message(response) == f"given 1001: that is 1001 epochs of {rows} rows, more than 1000"


def test_a_warm_up_longer_than_the_epochs_is_refused(submit: Any, client: TestClient, dataset_id: str) -> None:
    rows = client.get(f"/datasets/{dataset_id}").json()["rows"]
    longest = {"epochs": 2, "batch_size": 1, "warmup_steps": 2 * rows}
    assert submit(hyperparameters=longest).status_code == 201

    response = submit(hyperparameters={**longest, "warmup_steps": 2 * rows + 1})

    assert error_fields(response) == ["hyperparameters.warmup_steps"]
    assert error_message(response) == f"given {2 * rows + 1}, but the run has {2 * rows} steps"


@pytest.mark.parametrize("needing", [{"early_stopping": {}}, {"keep": "best"}])
def test_settings_that_need_evaluations_are_refused_where_no_row_is_held_out(
    submit: Any, needing: dict[str, Any]
) -> None:
    response = submit(hyperparameters={"eval_share": 0, **needing})

    assert error_fields(response) == [f"hyperparameters.{name}" for name in needing]
    assert "no row is held out" in error_message(response)
    assert submit(hyperparameters=needing).status_code == 201


@pytest.mark.parametrize(
    ("hyperparameters", "field"),
    [
        ({"eval_every": 0}, "eval_every"),
        ({"eval_unit": "tokens"}, "eval_unit"),
        ({"keep": "worst"}, "keep"),
        ({"early_stopping": {"patience": 0}}, "early_stopping.patience"),
        ({"early_stopping": {"min_gain": -1}}, "early_stopping.min_gain"),
        ({"early_stopping": {"metric": "rouge"}}, "early_stopping.metric"),
    ],
)
def test_evaluation_settings_out_of_range_are_refused(submit: Any, hyperparameters: dict[str, Any], field: str) -> None:
    assert error_fields(submit(hyperparameters=hyperparameters)) == [f"hyperparameters.{field}"]
