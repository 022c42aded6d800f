"""The work of an estimate: rows, examples, tokens, steps and evaluations."""

from typing import Any

import pytest

from planning.compute_costs import RowCosts
from store.database import Database
from store.repositories.models import ModelRepository
from store.tables import Dataset, Evaluation, TokenStatistics
from tests.api.conftest import MODEL, NOW
from tests.api.jobs.estimate.staged import PACE, make_interval, store_epochs, store_intensities, store_prepared_job
from tests.method_table import FRONTIER


@pytest.mark.parametrize(
    ("counts", "tokens", "padded", "spread"),
    [
        # The fixture's rows hold 34 characters; one of the two is trained on.
        (None, 34 / 4 / 2, 8, 1.4),
        # In quarters 18, 22, 26 and 30 tokens, scaled to a mean of 20: 15, 18.3, 21.7 and 25, padded to 24 in the mean.
        ([{"up_to": 32, "rows": 2}], 20.0, 24, 1.15),
    ],
)
def test_tokens_are_counted_or_estimated_from_characters(
    estimate: Any,
    database: Database,
    dataset_id: str,
    measured: None,
    counts: list[dict[str, int]] | None,
    tokens: float,
    padded: int,
    spread: float,
) -> None:
    with database.session() as session:
        dataset = session.get_one(Dataset, dataset_id)
        dataset.contents = {"characters": {"total": 34}}
        if counts is not None:
            figures = {"tokens": {"total": 40, "max": 25}, "completion": {"total": 10}, "histogram": counts}
            row = TokenStatistics(dataset_id=dataset_id, model=MODEL, asked_at=NOW, counted_at=NOW, counts=figures)
            session.add(row)

    found = estimate().json()["work"]

    assert found["training_rows"] == 1
    assert found["tokens_per_epoch"] == pytest.approx(tokens)
    assert found["full_flops"]["expected"] == pytest.approx(2 * 6e8 * padded)
    assert found["full_flops"]["high"] / found["full_flops"]["expected"] == pytest.approx(spread)
    assert ("counted" in found["basis"]) == (counts is not None)


@pytest.mark.parametrize(("train_on", "examples", "dropped"), [("assistant", 10, 2), ("last", 4, None)])
def test_examples_are_counted_beside_rows_and_dropped_rows_are_named(
    estimate: Any,
    database: Database,
    dataset_id: str,
    measured: None,
    train_on: str,
    examples: int,
    dropped: int | None,
) -> None:
    with database.session() as session:
        session.get_one(Dataset, dataset_id).rows = 6 if dropped else 4
        figures = {
            "rows": 4,
            "examples": 10,
            "dropped_rows": 2,
            "tokens": {"total": 200, "max": 25},
            "completion": {"total": 50},
            "histogram": [{"up_to": 32, "rows": 10}],
        }
        row = TokenStatistics(dataset_id=dataset_id, model=MODEL, asked_at=NOW, counted_at=NOW, counts=figures)
        session.add(row)

    found = estimate(hyperparameters={"train_on": train_on, "eval_share": 0, "batch_size": 1}).json()

    work = found["work"]
    assert (work["training_rows"], work["training_examples"], work["dropped_rows"]) == (4, examples, dropped)
    assert work["tokens_per_epoch"] == pytest.approx(20 * examples)
    assert any("nothing is learned of 2 of the dataset's rows" in note for note in found["notes"]) == bool(dropped)


def test_flops_of_other_methods_are_scaled_by_their_share(estimate: Any, measured: None) -> None:
    full, lora = estimate(method="full").json(), estimate(method="lora").json()

    assert lora["now"]["flops"]["expected"] == pytest.approx(0.7 * full["now"]["flops"]["expected"])
    assert "lora takes 0.7 of full fine-tuning's FLOPs" in lora["work"]["basis"]


def test_auto_is_estimated_by_the_method_that_its_budget_buys(
    estimate: Any, measured: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("planning.method_budget.load_frontier", lambda: FRONTIER)
    few, many = (
        estimate(method="auto", policy={"kind": "constant", "rho": rho}, hyperparameters={"epochs": 200}).json()
        for rho in (0.0025, 1.0)
    )
    assert (few["method"], many["method"]) == ("lora", "full")
    assert few["method_reason"].startswith("a budget of 0.5 epochs of full fine-tuning (200 at ρ = 0.0025), ")
    assert few["notes"][0] == f"lora is chosen: {few['method_reason']}"
    assert many["work"]["recipe"].startswith("200 epochs; ")
    assert "learning rate 0.0001, " in many["work"]["recipe"]
    assert "full has no ρ: the policy's mean ρ has set its length, and only the gate applies beside" in many["notes"]
    assert estimate(method="full").json()["method_reason"] is None


def test_auto_is_estimated_at_the_rate_of_the_models_width(
    estimate: Any, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("planning.method_budget.load_frontier", lambda: FRONTIER)
    costs = RowCosts((2e8, 0.0), (6e8, 0.0), {"full": 1.0, "lora": 0.7}, width=2 * FRONTIER.width)
    with database.session() as session:
        ModelRepository(session).put(
            MODEL, parameters=10**8, tensors=100, rho_floor=0.35, costs=costs.to_json(), at=NOW
        )
    assert "learning rate 5e-05, " in estimate(method="auto", hyperparameters={"epochs": 200}).json()["work"]["recipe"]


def test_a_length_in_steps_is_estimated_by_the_steps(estimate: Any, measured: None, worker: None) -> None:
    epochs = estimate(hyperparameters={"epochs": 2, "batch_size": 1}).json()
    steps = epochs["work"]["steps"]
    cut = estimate(hyperparameters={"max_steps": 3 * steps, "batch_size": 1, "scheduler": "cosine"}).json()
    assert cut["work"]["steps"] == 3 * steps
    assert cut["work"]["full_flops"]["expected"] == pytest.approx(3 * epochs["work"]["full_flops"]["expected"])
    assert cut["now"]["hours"]["expected"] - cut["pace"]["outside_hours"] == pytest.approx(
        3 * (epochs["now"]["hours"]["expected"] - epochs["pace"]["outside_hours"])
    )
    assert "cosine" in cut["work"]["recipe"]


def test_evaluations_during_training_are_part_of_the_time_and_the_energy(
    estimate: Any, database: Database, dataset_id: str, measured: None, worker: None
) -> None:
    """One row of two is held out: each of two evaluations is a forward pass of as many rows as an epoch trains."""
    job_id = store_prepared_job(database, dataset_id, hours=1.0)
    store_epochs(database, job_id, [1.0])
    with database.session() as session:
        during = make_interval(job_id, 1, 0.5)
        during.evaluation = True  # no part of the pace of steps
        session.add(during)

    found = estimate().json()
    assert found["pace"]["epoch_hours"]["expected"] == pytest.approx(1.0)
    assert found["pace"]["evaluation_hours"] == pytest.approx(2 / 3)
    assert found["now"]["hours"]["expected"] == pytest.approx(2 + 2 / 3 + 1 / 60)
    assert found["now"]["energy_kwh"]["expected"] == pytest.approx((2 + 2 / 3 + 1 / 60) * PACE["kwh"])

    with database.session() as session:
        measured_one = Evaluation(job_id=job_id, step=1, epoch=1, at=NOW, loss=1.0)
        measured_one.seconds, measured_one.energy_kwh, measured_one.rows = 360.0, 0.02, 1
        session.add(measured_one)
    found = estimate().json()
    assert found["pace"]["evaluation_hours"] == pytest.approx(0.2)
    assert found["now"]["energy_kwh"]["expected"] == pytest.approx((2 + 1 / 60) * PACE["kwh"] + 0.04)
    rare = estimate(hyperparameters={"epochs": 2, "eval_every": 2}).json()
    assert rare["pace"]["evaluation_hours"] == pytest.approx(0.1)


def test_the_longest_possible_run_is_estimated(estimate: Any, database: Database, measured: None) -> None:
    store_intensities(database, [300] * 24)
    with database.session() as session:
        dataset = session.get_one(Dataset, dataset_id_of(session))
        dataset.rows, dataset.contents = 1_000_000, {"characters": {"total": 10**12}}
    policy = {"kind": "budget", "budget_gco2e": 5, "rho_max": 1.0, "rho_min": 0.4, "gate": {"mode": "pause"}}

    response = estimate(policy=policy, hyperparameters={"epochs": 1000, "max_length": 8192, "batch_size": 4096})

    assert response.status_code == 200, response.text
    assert response.json()["budget"]["can_be_kept"] is False


def dataset_id_of(session: Any) -> str:
    return str(session.query(Dataset.id).scalar())
