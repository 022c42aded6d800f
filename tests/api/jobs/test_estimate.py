"""`POST /jobs/estimate`: compared with hand-computed figures and with a measured run."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pytest
from fastapi.testclient import TestClient

from greencore.carbon import Reading
from greencore.clock import HOUR
from planning.compute_costs import RowCosts
from runtime.site import Site
from store.database import Database
from store.intensity.readings import GridRepository
from store.lifecycle.status import JobStatus
from store.repositories.jobs import JobRepository
from store.repositories.models import ModelRepository
from store.repositories.workers import WorkerRepository
from store.tables import Dataset, EnergyInterval, Epoch, Evaluation, Job, TokenStatistics
from tests.api.conftest import MODEL, NOW

# 3.6e13 FLOPs an hour at the CPU's pace of 10 GFLOP/s, 100 W.
PACE = {"flops": 3.6e13, "hours": 1.0, "kwh": 0.1}
DEFER = {"mode": "defer", "max_delay_hours": 12, "min_saving": 0.05}


@pytest.fixture
def measured(database: Database) -> None:
    """Store the model as a prepare worker measures it: 6e8 FLOPs a token, and none for attention."""
    with database.session() as session:
        costs = RowCosts((2e8, 0.0), (6e8, 0.0), {"full": 1.0, "lora": 0.7, "bitfit": "unavailable: no bias"}).to_json()
        ModelRepository(session).put(MODEL, parameters=10**8, tensors=100, rho_floor=0.35, costs=costs, at=NOW)


@pytest.fixture
def worker(database: Database) -> None:
    with database.session() as session:
        WorkerRepository(session).record_heartbeat("worker_1", site=Site(zone="FR"), device="cpu", at=NOW)


UNEVALUATED = {"eval_share": 0.0}  # no row is held out, so that the run consists of its steps


@pytest.fixture
def estimate(client: TestClient, dataset_id: str) -> Any:
    """Request an estimate, and return the response; the default policy trains every tensor."""

    def estimate(**changed: Any) -> Any:
        policy = {"kind": "constant", "rho": 1.0}
        body = {"model": MODEL, "dataset": dataset_id, "zone": "FR", "policy": policy, "hyperparameters": {"epochs": 2}}
        return client.post("/jobs/estimate", json={**body, **changed})

    return estimate


def test_the_name_of_a_run_does_not_matter(estimate: Any, measured: None, worker: None) -> None:
    plain, named = estimate(), estimate(name="Tickets, 3rd try")
    assert (plain.status_code, named.status_code) == (200, 200), named.text
    assert named.json() == plain.json()


def store_prepared_job(database: Database, dataset_id: str, *, hours: float, **columns: Any) -> str:
    """Store a finished job whose preparation found epochs of this many hours at the measured pace."""
    with database.session() as session:
        job = Job(
            id=f"job_{columns.pop('name', 'prepared')}",
            status=JobStatus.SUCCEEDED,
            model=MODEL,
            dataset_id=dataset_id,
            method="greentrainer",
            policy={"kind": "constant", "rho": 1.0},
            priority=0,
            hyperparameters={"epochs": 1},
            labels={},
            created_at=NOW,
            finished_at=NOW - HOUR,
            device="cpu",
            epochs=1,
            estimate={
                "full_flops": hours * PACE["flops"] / PACE["hours"],
                "training_rows": 1,
                "tokens_per_epoch": 16,
                "steps": 1,
            },
        )
        for column, value in columns.items():
            setattr(job, column, value)
        session.add(job)
        return job.id


def store_epochs(database: Database, job_id: str, hours: Sequence[float], *, outside_hours: float = 0.0) -> None:
    """Store epochs of equal FLOPs that took this many hours each, at 100 W."""
    with database.session() as session:
        for number, length in enumerate([outside_hours, *hours]):
            if number:
                epoch = Epoch(
                    job_id=job_id, number=number, attempt=1, started_at=NOW - HOUR, finished_at=NOW - HOUR / number
                )
                epoch.rho_asked, epoch.reason, epoch.intensity_estimated = 1.0, "", False
                epoch.flops = epoch.full_flops = PACE["flops"]
                session.add(epoch)
            if length:
                session.add(_interval(job_id, number, length))


def _interval(job_id: str, epoch: int, hours: float) -> EnergyInterval:
    return EnergyInterval(
        job_id=job_id,
        epoch=epoch,
        attempt=1,
        started_at=NOW - hours * HOUR,
        finished_at=NOW,
        cpu_kwh=hours * PACE["kwh"],
        gpu_kwh=0.0,
        ram_kwh=0.0,
        method={},
        intensity_estimated=False,
    )


def store_intensities(database: Database, values: Sequence[float], zone: str = "FR") -> None:
    """Store a reading in force, and a forecast from the next hour on, one value an hour."""
    hours = [
        Reading(
            zone=zone,
            start=NOW + offset * HOUR,
            end=NOW + (offset + 1) * HOUR,
            gco2e_per_kwh=value,
            source="uk",
            estimated=offset > 0,
            fetched_at=NOW,
        )
        for offset, value in enumerate(values)
    ]
    with database.session() as session:
        GridRepository(session).put(hours[:1])
        GridRepository(session).put_forecast(zone, "average", hours[1:], at=NOW)


def test_estimates_of_now_and_of_the_best_window_match_a_manual_calculation(
    estimate: Any, database: Database, dataset_id: str, measured: None, worker: None
) -> None:
    """Two epochs of 1 h at 100 W. Now: 300 and 300 gCO2e/kWh; from 15:00 on 100 and 200."""
    store_epochs(
        database,
        store_prepared_job(database, dataset_id, hours=1.0, hyperparameters={"epochs": 1, **UNEVALUATED}),
        [1.0, 1.0, 1.0],
    )
    store_intensities(database, [300, 300, 300, 100, 200, *[300] * 19])

    found = estimate(
        hyperparameters={"epochs": 2, **UNEVALUATED}, policy={"kind": "constant", "rho": 1.0, "gate": DEFER}
    ).json()

    now, best = found["now"], found["best"]
    assert now["starts_at"] == NOW.isoformat().replace("+00:00", "Z")
    assert best["starts_at"] == (NOW + 3 * HOUR).isoformat().replace("+00:00", "Z")
    startup = 1 / 60
    for run in (now, best):
        assert run["hours"]["expected"] == pytest.approx(2 + startup)
        assert run["energy_kwh"]["expected"] == pytest.approx(0.2 + 0.1 * startup)
        assert run["flops"]["expected"] == pytest.approx(2 * PACE["flops"])
    assert now["emissions_gco2e"]["expected"] == pytest.approx((0.2 + 0.1 * startup) * 300)
    assert best["emissions_gco2e"]["expected"] == pytest.approx((0.2 + 0.1 * startup) * 150)
    assert found["saving"]["share"] == pytest.approx(0.5)
    assert best["why"] == "the best window begins then"
    assert found["work"]["basis"] == "a job with the same model and rows that was prepared"
    assert (found["pace"]["assumed"], found["pace"]["device"]) == (False, "cpu")
    assert found["pace"]["basis"] == "recent epochs of its model on this device"
    assert found["place"]["step"] == "fresh"
    assert found["notes"] == []


def test_an_estimate_queues_no_job(estimate: Any, client: TestClient, measured: None) -> None:
    assert estimate().status_code == 200
    assert client.get("/jobs").json()["data"] == []


def test_rho_of_each_epoch_follows_the_intensity_expected_then(
    estimate: Any, database: Database, dataset_id: str, measured: None, worker: None
) -> None:
    """The first epoch at 50 gCO2e/kWh has ρ = 1 and takes an hour; the second at 450 has ρ = 0.4."""
    store_epochs(database, store_prepared_job(database, dataset_id, hours=1.0), [1.0])
    store_intensities(database, [50, *[450] * 23])
    linear = {"kind": "linear", "clean": 100, "dirty": 400, "rho_max": 1.0, "rho_min": 0.4}

    now = estimate(policy=linear).json()["now"]

    assert now["rho"] == pytest.approx(0.7)
    assert now["gco2e_per_kwh"] == pytest.approx((50 * 1 + 450 * 0.4) / 1.4)


def test_pue_is_in_the_emissions_and_not_in_the_energy(
    estimate: Any, client: TestClient, database: Database, dataset_id: str, measured: None
) -> None:
    store_intensities(database, [300] * 24)
    plain = estimate().json()["now"]
    with database.session() as session:
        WorkerRepository(session).record_heartbeat("worker_1", site=Site(zone="FR", pue=1.5), device="cpu", at=NOW)
    assert estimate().json()["pue"] == 1.5
    dear = estimate().json()["now"]
    assert dear["energy_kwh"] == plain["energy_kwh"]
    assert dear["emissions_gco2e"]["expected"] == pytest.approx(1.5 * plain["emissions_gco2e"]["expected"])


def test_a_gate_that_pauses_computes_in_the_cleanest_hours(
    estimate: Any, database: Database, dataset_id: str, measured: None, worker: None
) -> None:
    store_epochs(
        database,
        store_prepared_job(database, dataset_id, hours=1.0, hyperparameters={"epochs": 1, **UNEVALUATED}),
        [1.0],
    )
    store_intensities(database, [300, 100, 300, 300, 100, *[300] * 19])
    gate = {"mode": "pause", "max_delay_hours": 12}

    found = estimate(
        hyperparameters={"epochs": 2, **UNEVALUATED}, policy={"kind": "constant", "rho": 1.0, "gate": gate}
    ).json()

    assert found["best"]["gco2e_per_kwh"] == pytest.approx(100)
    assert found["best"]["hours"]["expected"] == pytest.approx(2 + 1 / 60)


def test_a_deadline_bounds_the_window(
    estimate: Any, database: Database, dataset_id: str, measured: None, worker: None
) -> None:
    store_epochs(
        database,
        store_prepared_job(database, dataset_id, hours=1.0, hyperparameters={"epochs": 1, **UNEVALUATED}),
        [1.0],
    )
    store_intensities(database, [300, 300, 200, 200, 300, 50, 50, *[300] * 17])

    found = estimate(hyperparameters={"epochs": 2, **UNEVALUATED}, deadline=(NOW + 4.5 * HOUR).isoformat()).json()
    assert found["best"]["gco2e_per_kwh"] == pytest.approx(200)
    assert found["best"]["meets_deadline"] is True
    assert "starts at once" in found["notes"][0]

    late = estimate(hyperparameters={"epochs": 2, **UNEVALUATED}, deadline=(NOW + HOUR).isoformat()).json()
    assert (late["now"]["meets_deadline"], late["best"]["meets_deadline"]) == (False, False)
    assert late["best"]["starts_at"] == late["now"]["starts_at"]


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


def test_without_a_worker_figures_are_assumed_with_wide_bounds(
    estimate: Any, database: Database, measured: None
) -> None:
    store_intensities(database, [300] * 24)

    found = estimate().json()

    assert found["pace"]["assumed"] is True
    assert found["pace"]["epoch_hours"]["high"] / found["pace"]["epoch_hours"]["expected"] > 9.9
    assert found["place"]["live_workers"] == 0
    assert "no worker is alive in FR: until one is, the job waits" in found["notes"]


def test_without_a_known_intensity_emissions_are_null(estimate: Any, client: TestClient, measured: None) -> None:
    context = client.app.state.context  # type: ignore[attr-defined]
    object.__setattr__(context, "settings", context.settings.model_copy(update={"zones": {"NOWHERE": "watttime"}}))

    found = estimate(zone="NOWHERE").json()

    assert found["now"]["emissions_gco2e"] is None
    assert found["now"]["energy_kwh"]["expected"] > 0
    assert found["saving"] is None
    assert found["place"]["basis"] == "no intensity of this zone is known: emissions are null"


def test_without_a_reading_the_yearly_mean_is_used(estimate: Any, measured: None) -> None:
    place = estimate().json()["place"]

    assert (place["step"], place["estimated"], place["expected_until"]) == ("static", True, None)
    assert "there is no forecast" in place["basis"]


def test_a_job_without_a_zone_is_estimated_in_the_cleanest_zone(
    estimate: Any, database: Database, measured: None
) -> None:
    store_intensities(database, [300] * 24, zone="FR")
    store_intensities(database, [40] * 24, zone="NO")
    with database.session() as session:
        for zone in ("FR", "NO"):
            WorkerRepository(session).record_heartbeat(f"worker_{zone}", site=Site(zone=zone), device="cpu", at=NOW)

    place = estimate(zone=None).json()["place"]

    assert place["zone"] == "NO"
    assert "the lowest of 2 zones" in place["reason"]


def test_the_start_is_delayed_by_jobs_ahead_in_the_queue(
    estimate: Any, database: Database, dataset_id: str, measured: None, worker: None
) -> None:
    store_epochs(database, store_prepared_job(database, dataset_id, hours=1.0), [1.0])
    first = store_prepared_job(
        database, dataset_id, hours=3.0, name="first", status=JobStatus.RUNNING, zone="FR", finished_at=None
    )
    with database.session() as session:
        JobRepository(session).get(first)

    queue = estimate().json()["queue"]

    assert (queue["running"], queue["ahead"]) == (1, 0)
    assert datetime.fromisoformat(queue["starts_at"]) == NOW + 3 * HOUR


def test_a_model_that_is_not_measured_yet_is_a_conflict(estimate: Any) -> None:
    response = estimate()

    assert response.status_code == 409
    assert "not measured yet" in response.json()["detail"]


def test_a_submissions_faults_are_reported_for_an_estimate_too(estimate: Any, measured: None) -> None:
    response = estimate(zone="XX", model="none", policy={"kind": "constant", "rho": 0.2}, method="bitfit")

    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == ["model", "zone"]
    assert estimate(method="bitfit").json()["errors"][0]["field"] == "method"


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


def test_a_measured_run_is_within_the_bounds_of_its_estimate(
    estimate: Any, database: Database, dataset_id: str, measured: None, worker: None
) -> None:
    """Three earlier epochs that differed by a tenth predict how long the next two take."""
    store_epochs(
        database,
        store_prepared_job(database, dataset_id, hours=1.0, hyperparameters={"epochs": 1, **UNEVALUATED}),
        [0.95, 1.0, 1.08],
        outside_hours=0.2,
    )
    store_intensities(database, [250] * 24)

    now = estimate(hyperparameters={"epochs": 2, **UNEVALUATED}).json()["now"]

    measured_hours = 1.06 + 0.93 + 0.22
    assert now["hours"]["low"] < measured_hours < now["hours"]["high"]
    assert now["hours"]["high"] / now["hours"]["low"] < 2.5
    kwh = measured_hours * PACE["kwh"]
    assert now["energy_kwh"]["low"] < kwh < now["energy_kwh"]["high"]
    assert now["emissions_gco2e"]["low"] < kwh * 260 < now["emissions_gco2e"]["high"]


def test_an_infeasible_budget_is_refused_and_the_estimate_names_the_smallest_feasible_one(
    estimate: Any, client: TestClient, database: Database, dataset_id: str, measured: None, worker: None
) -> None:
    """Two epochs at ρ = 0.5 and 300 gCO2e/kWh: 0.1 kWh, 30 gCO2e."""
    prepared = store_prepared_job(database, dataset_id, hours=1.0, hyperparameters={"epochs": 1, **UNEVALUATED})
    store_epochs(database, prepared, [1.0, 1.0, 1.0])
    store_intensities(database, [300] * 24)
    body = {"model": MODEL, "dataset": dataset_id, "zone": "FR", "hyperparameters": {"epochs": 2, **UNEVALUATED}}

    def budget(gco2e: float) -> dict[str, Any]:
        return {"kind": "budget", "budget_gco2e": gco2e, "rho_max": 1.0, "rho_min": 0.5}

    told = estimate(policy=budget(10), hyperparameters=body["hyperparameters"]).json()["budget"]
    assert (told["smallest_gco2e"], told["can_be_kept"]) == (pytest.approx(30), False)
    assert estimate(policy=budget(29), hyperparameters=body["hyperparameters"]).json()["budget"]["can_be_kept"] is None
    assert estimate(policy=budget(60), hyperparameters=body["hyperparameters"]).json()["budget"]["can_be_kept"] is True

    refused = client.post("/jobs", json={**body, "policy": budget(10)})
    assert refused.status_code == 422
    [error] = refused.json()["errors"]
    assert error["field"] == "policy.budget_gco2e"
    assert "given 10: the smallest that can be kept is 30" in error["message"]
    assert client.post("/jobs", json={**body, "policy": budget(29)}).status_code == 201
    # Rows that no job has tokenised as this one does are not certain.
    other = {"epochs": 2, "max_length": 64}
    assert client.post("/jobs", json={**body, "policy": budget(10), "hyperparameters": other}).status_code == 201


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
        during = _interval(job_id, 1, 0.5)
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
