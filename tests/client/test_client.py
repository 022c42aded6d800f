"""Each call of the client against the real service."""

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fastapi import FastAPI

from greencore.carbon import Reading
from greentune.client import Client
from greentune.errors import ChecksumMismatch, Problem, StillCounting, StillRunning
from greentune.models import Dataset, Job
from runtime.settings import Settings
from store.database import Database
from store.intensity.readings import GridRepository
from store.repositories.token_statistics import CountRequest, TokenStatisticsRepository
from store.tables import Artifact
from tests.api.conftest import MODEL, NOW, run_to_success

POLICY = {"kind": "constant", "rho": 0.5}


@pytest.fixture
def job(client: Client, dataset: Dataset) -> Job:
    return client.submit(MODEL, dataset.id, zone="FR", metadata={"team": "speech"})


def test_a_job_is_submitted_with_all_options(client: Client, dataset: Dataset) -> None:
    deadline = datetime(2026, 12, 1, tzinfo=UTC)
    options = {"epochs": 2, "learning_rate": 1e-4}
    job = client.submit(
        MODEL,
        dataset.id,
        method="greentrainer",
        policy=POLICY,
        zone="FR",
        deadline=deadline,
        priority=5,
        hyperparameters=options,
        metadata={"team": "speech"},
    )
    assert (job.status, job.deadline, job.priority, job.metadata) == ("validating", deadline, 5, {"team": "speech"})
    assert job.hyperparameters.items() >= options.items()
    assert job.policy["rho"] == 0.5
    assert client.job(job.id) == job


def test_a_submission_that_is_repeated_under_its_key_is_one_job(client: Client, dataset: Dataset) -> None:
    first = client.submit(MODEL, dataset.id, idempotency_key="once")
    assert client.submit(MODEL, dataset.id, idempotency_key="once").id == first.id
    assert len(list(client.jobs())) == 1


def test_jobs_are_listed_over_all_pages_and_by_each_filter(
    client: Client, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("greentune.transport.PAGE_ITEMS", 2)
    zones = ("FR", "GB", "FR", "GB", "FR")
    made = [client.submit(MODEL, dataset.id, zone=zone, metadata={"of": zone}).id for zone in zones]
    client.cancel(made[0])

    assert [job.id for job in client.jobs()] == made[::-1]
    assert [job.id for job in client.jobs(zone="GB")] == [made[3], made[1]]
    assert [job.id for job in client.jobs(metadata={"of": "FR"})] == [made[4], made[2], made[0]]
    assert [job.id for job in client.jobs(status="cancelled")] == [made[0]]


def test_a_job_that_has_not_changed_is_not_sent_again(client: Client, job: Job) -> None:
    first = client.job(job.id)
    assert client.job(job.id) is first
    client.cancel(job.id)
    assert client.job(job.id).status == "cancelled"


def test_actions_change_the_job_and_a_state_that_forbids_one_is_a_problem(client: Client, job: Job) -> None:
    assert client.cancel(job.id).status == "cancelled"
    with pytest.raises(Problem) as refused:
        client.pause(job.id)
    assert refused.value.status == 409
    assert client.retry(job.id).status == "validating"


def test_all_parts_of_a_finished_job_are_read(client: Client, job: Job, database: Database, settings: Settings) -> None:
    run_to_success(database, settings, job.id)

    ended = client.wait(job.id, seconds=0.05)
    [epoch] = client.epochs(job.id)
    assert (ended.status, ended.is_over, ended.loss) == ("succeeded", True, 1.25)
    assert ended.energy_kwh == pytest.approx(0.0006)
    assert (epoch.number, epoch.rho_asked, epoch.intensity.gco2e_per_kwh) == (1, 0.6, 212.0)
    assert client.series(job.id, points=100).rho.asked == [0.6]
    assert client.selection(job.id).data[0].number == 1
    assert {artifact.name for artifact in client.artifacts(job.id)} == {"model.safetensors", "lost.json"}
    newest, *_, oldest = client.events(job.id)
    assert (newest.type, oldest.type) == ("job.succeeded", "job.submitted")


def test_waiting_for_a_job_ends_at_the_timeout(client: Client, job: Job) -> None:
    with pytest.raises(StillRunning, match=job.id):
        client.wait(job.id, seconds=0.05, timeout=0.1)


def test_an_artifact_is_downloaded_and_checked(
    client: Client, job: Job, database: Database, settings: Settings, tmp_path: Path
) -> None:
    run_to_success(database, settings, job.id)
    with pytest.raises(ChecksumMismatch, match="expected the SHA-256 abab"):
        client.download(job.id, "model.safetensors", tmp_path)
    assert not list(tmp_path.glob("*model*"))

    with database.session() as session:
        artifact = session.get_one(Artifact, (job.id, "model.safetensors"))
        artifact.sha256 = hashlib.sha256(b"weights").hexdigest()
    file = client.download(job.id, "model.safetensors", tmp_path)
    assert (file, file.read_bytes()) == (tmp_path / "model.safetensors", b"weights")
    with pytest.raises(Problem) as gone:
        client.download(job.id, "lost.json", tmp_path / "lost.json")
    assert gone.value.status in (404, 410)
    with pytest.raises(Problem, match=r"no artifact 'nothing.bin'"):
        client.download(job.id, "nothing.bin", tmp_path)


def test_datasets_are_uploaded_listed_and_deleted(client: Client, rows: Path) -> None:
    uploaded = client.upload_dataset(rows, name="two rows")
    assert (uploaded.name, uploaded.rows) == ("two rows", 2)
    assert uploaded.sha256 == hashlib.sha256(rows.read_bytes()).hexdigest()
    assert client.dataset(uploaded.id) == uploaded
    assert list(client.datasets()) == [uploaded]
    client.delete_dataset(uploaded.id)
    assert list(client.datasets()) == []


def test_rows_are_previewed_as_uploaded_and_as_they_are_learned(
    client: Client, dataset: Dataset, database: Database
) -> None:
    assert [(row.number, row.form) for row in client.dataset_rows(dataset.id)] == [(1, "prompt"), (2, "text")]
    assert len(client.dataset_rows(dataset.id, most=1)) == 1

    with pytest.raises(StillCounting, match=r"a prepare worker has not counted the tokens after 0 s"):
        client.learned_text(dataset.id, MODEL, train_on="last", timeout=0)
    row = {"line": 1, "examples": [[{"text": " 4", "tokens": 1, "learned": True}]], "tokens": 1, "learned_tokens": 1}
    with database.session() as session:
        wanted = CountRequest(dataset.id, MODEL, train_on="last")
        TokenStatisticsRepository(session).put_preview(wanted, {"rows": [{**row, "is_cut": False, "error": None}]})
    learned = client.learned_text(dataset.id, MODEL, train_on="last")
    assert (learned.prompt_format, learned.train_on) == ("plain", "last")
    assert [segment.text for segment in learned.rows[0].examples[0] if segment.learned] == [" 4"]


def test_invalid_rows_are_named_by_their_line(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "wrong.jsonl"
    file.write_text('{"text": "right"}\n{"words": "wrong"}\n')
    with pytest.raises(Problem) as refused:
        client.upload_dataset(file)
    assert refused.value.status == 422
    assert "line 2" in str(refused.value.errors[0])


def test_policies_are_stored_in_versions_and_deleted(client: Client) -> None:
    assert client.put_policy("half", POLICY).version == 1
    assert client.put_policy("half", {**POLICY, "rho": 0.6}).version == 2
    assert client.policy("half").policy["rho"] == 0.6
    assert [policy.name for policy in client.policies()] == ["half"]
    client.delete_policy("half")
    with pytest.raises(Problem) as gone:
        client.policy("half")
    assert gone.value.status == 404


def test_a_policy_is_stored_only_after_the_given_version(client: Client) -> None:
    assert client.put_policy("half", POLICY, if_version=0).version == 1
    with pytest.raises(Problem) as taken:
        client.put_policy("half", POLICY, if_version=0)
    assert client.put_policy("half", POLICY, if_version=1).version == 2
    with pytest.raises(Problem) as late:
        client.put_policy("half", POLICY, if_version=1)
    assert (taken.value.status, late.value.status) == (412, 412)
    assert client.policy("half").version == 2


def test_the_grid_is_read_and_a_policy_is_simulated_on_it(client: Client, database: Database) -> None:
    def hour(offset: int) -> Reading:
        start = NOW + timedelta(hours=offset)
        value = 100.0 if offset % 2 else 300.0
        return Reading(
            zone="FR", start=start, end=start + timedelta(hours=1), gco2e_per_kwh=value, source="uk", fetched_at=NOW
        )

    with database.session() as session:
        GridRepository(session).put([hour(offset) for offset in range(-72, 1)])
        GridRepository(session).put_forecast("FR", "average", [hour(offset) for offset in range(1, 24)], at=NOW)

    [france] = [zone for zone in client.zones() if zone.zone == "FR"]
    assert france.newest is not None
    assert france.newest.gco2e_per_kwh == client.intensity("FR").gco2e_per_kwh == 300.0
    assert len(client.forecast("FR", hours=6).data) == 5  # the current hour is not a forecast
    assert client.history("FR", start=NOW - timedelta(hours=3), end=NOW).covered_share == 1
    found = client.simulate({"kind": "constant", "rho": 1.0}, work_hours=2, epochs=2, zone="FR", deadline_hours=6)
    assert found.basis.zone == "FR"
    assert found.work_share == 1
    assert client.simulate(POLICY, work_hours=2, epochs=2, zone="FR", start=NOW - timedelta(days=2)).starts == 1


def test_an_estimate_for_an_unknown_model_names_the_field(client: Client, dataset: Dataset) -> None:
    with pytest.raises(Problem) as unknown:
        client.estimate("no such model", dataset.id)
    assert [fault.field for fault in unknown.value.errors] == ["model"]


def test_models_workers_and_readiness_are_read(client: Client) -> None:
    assert MODEL in {model.name for model in client.models()}
    assert client.workers() == []
    assert "scheduler" in {warning.part for warning in client.readiness().warnings}


def test_keys_are_made_listed_and_revoked(client: Client, url: str) -> None:
    issued = client.create_key("carol", name="notebook", expires_at=NOW + timedelta(days=400))
    assert next(client.keys()).id == issued.id
    with Client(url, issued.key) as carol:
        assert list(carol.jobs()) == []
        with pytest.raises(Problem) as refused:
            list(carol.keys())
        assert refused.value.status == 403
        client.revoke_key(issued.id)
        with pytest.raises(Problem) as unauthorized:
            list(carol.jobs())
        assert unauthorized.value.status == 401


def test_every_field_at_fault_is_named(client: Client, dataset: Dataset) -> None:
    with pytest.raises(Problem) as refused:
        client.submit(MODEL, dataset.id, hyperparameters={"epochs": 0, "batch_size": 0})
    assert {fault.field for fault in refused.value.errors} == {"hyperparameters.epochs", "hyperparameters.batch_size"}


def test_a_slash_in_an_id_does_not_change_the_path(client: Client) -> None:
    with pytest.raises(Problem) as unknown:
        client.job("../keys")
    assert unknown.value.status == 404


def test_url_and_key_come_from_the_environment(
    url: str, operator_key: str, monkeypatch: pytest.MonkeyPatch, app: FastAPI
) -> None:
    monkeypatch.setenv("GREENTUNE_URL", f"{url}/")
    monkeypatch.setenv("GREENTUNE_KEY", f"{operator_key}\n")
    with Client() as client:
        assert client.url == url
        assert list(client.jobs()) == []


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://127.0.0.1", "http://", "http://[::1"])
def test_an_invalid_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"expected one such as http://127\.0\.0\.1:8000"):
        Client(url)


def test_a_key_that_would_break_a_header_is_refused_without_being_shown() -> None:
    with pytest.raises(ValueError, match="characters that no key has") as refused:
        Client("http://127.0.0.1:1", "gtk_secret\nX: y")
    assert "secret" not in str(refused.value)
