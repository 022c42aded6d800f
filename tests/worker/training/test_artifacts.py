"""A job by each method, from submission to a result that is recorded file by file."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml  # type: ignore[import-untyped]
from safetensors.torch import load_file

from greencore.clock import utc_now
from greencore.training.models.adapter_result import apply_adapter
from greencore.training.models.delta import DeltaError, apply_delta
from greencore.training.models.loading import load_model, load_tokenizer
from runtime.settings import Settings, get_settings
from runtime.site import Site
from store.database import Database
from store.lifecycle.status import JobStatus
from store.repositories.jobs import JobRepository
from store.tables import Job
from tests.greencore.training.conftest import small_model
from tests.scheduler.stage import add_job
from worker.training.outcome import hash_artifacts

ROWS = [{"prompt": f"w{number} w1", "completion": " w7 w8"} for number in range(10)]
DEFAULTS = {"epochs": 1, "max_length": 32, "max_new_tokens": 4, "learning_rate": 1e-2}

Run = Callable[..., Job]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("models") / "base-in-a-secret-place", layers=2)


@pytest.fixture
def catalogue(settings: Settings, model: Path, tmp_path: Path) -> Settings:
    """Settings whose one model is "small"."""
    file = tmp_path / "catalogue.toml"
    file.write_text(f'[small]\nsource = "{model}"\nlicence = "CC0-1.0"\n')
    return settings.model_copy(update={"catalogue": file, "zones": {"X": "static"}, "site": Site(zone="X")})


@pytest.fixture
def run(catalogue: Settings, database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Prepare and train a job in this process, as a worker's tasks do, and return it."""
    for name, value in catalogue.environment().items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    for module in (
        "worker.preparation.prepare",
        "worker.training.claim",
    ):  # whose processes end, and their connections with them
        monkeypatch.setattr(f"{module}.Database", lambda *_, **__: database)

    def run(method: str, *, train: bool = True, base: Job | None = None, **hyperparameters: Any) -> Job:
        from worker.preparation.prepare import prepare_job
        from worker.training.claim import train_job

        job_id = add_job(
            database,
            JobStatus.VALIDATING,
            "X",
            model="small",
            method=method,
            hyperparameters=DEFAULTS | hyperparameters,
            dataset=_store_rows(catalogue),
            at=utc_now(),
            base_job_id=base and base.id,
        )
        prepare_job(job_id)
        with database.session() as session:
            session.get_one(Job, job_id).zone = "X"
        if train:
            train_job(job_id)
        with database.session() as session:
            return session.get_one(Job, job_id)

    yield run
    get_settings.cache_clear()


def _store_rows(settings: Settings) -> dict[str, Any]:
    """Write the rows' file, and return the columns of its dataset."""
    content = "\n".join(map(json.dumps, ROWS)).encode()
    digest = hashlib.sha256(content).hexdigest()
    settings.dataset_file(digest).parent.mkdir(parents=True, exist_ok=True)
    settings.dataset_file(digest).write_bytes(content)
    return {"rows": len(ROWS), "bytes": len(content), "sha256": digest, "blob": digest}


def result(settings: Settings, job: Job) -> Path:
    assert job.status is JobStatus.SUCCEEDED, job.error
    return settings.artifact_file(job.id, "x").parent


@pytest.mark.parametrize(("method", "trains"), [("lora", "its adapter"), ("top2", "output embedding")])
def test_a_baseline_job_has_its_share_of_flops_as_rho(
    run: Run, catalogue: Settings, database: Database, model: Path, method: str, trains: str
) -> None:
    job = run(method)

    tuned = load_model(result(catalogue, job))
    base = load_model(model)
    assert any(not torch.equal(tensor, base.state_dict()[name]) for name, tensor in tuned.state_dict().items())
    estimate = job.estimate or {}
    share = estimate["method_flops"] / estimate["full_flops"]
    assert 1 / 3 < share < 1
    with database.session() as session:
        [epoch] = JobRepository(session).epochs(job.id)
    assert epoch.rho_asked == job.rho == pytest.approx(share)
    assert epoch.rho_reached == pytest.approx(share, abs=0.03)
    assert trains in epoch.reason
    assert "no ρ is set" in epoch.reason


def test_every_file_of_a_result_is_recorded_with_a_card_that_has_all_of_the_energy(
    run: Run, catalogue: Settings, database: Database, model: Path
) -> None:
    job = run("greentrainer")

    folder = result(catalogue, job)
    with database.session() as session:
        artifacts = {artifact.name: artifact for artifact in JobRepository(session).artifacts(job.id)}
    assert artifacts.keys() == {path.name for path in folder.iterdir()} >= {"README.md", "model.safetensors"}
    for name, artifact in artifacts.items():
        content = (folder / name).read_bytes()
        assert (artifact.bytes, artifact.sha256) == (len(content), hashlib.sha256(content).hexdigest())
        assert str(model.parent).encode() not in content
    load_tokenizer(folder)
    card = (folder / "README.md").read_text()
    matter = yaml.safe_load(card.split("\n---\n")[0])
    assert matter["co2_eq_emissions"]["emissions"] == pytest.approx(job.emissions_gco2e)
    assert f"| in all | {job.energy_kwh:.4g} |" in card
    assert matter["license"] == "cc0-1.0"


def test_a_delta_applied_to_the_base_gives_the_full_result(
    run: Run, catalogue: Settings, model: Path, tmp_path: Path
) -> None:
    full, delta = result(catalogue, run("greentrainer")), result(catalogue, run("greentrainer", result="delta"))

    assert not (delta / "model.safetensors").exists()
    assert "greentune apply-delta" in (delta / "README.md").read_text()
    applied = apply_delta(model, delta / "delta.safetensors", tmp_path / "applied")
    expected, found = load_file(full / "model.safetensors"), load_file(applied / "model.safetensors")
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_the_result_of_a_prefix_is_its_adapter(run: Run, catalogue: Settings, model: Path) -> None:
    folder = result(catalogue, run("prefix"))
    assert (folder / "adapter_model.safetensors").is_file()
    assert "peft" in (folder / "README.md").read_text()
    assert str(model.parent) not in (folder / "adapter_config.json").read_text()


def test_the_result_of_a_lora_may_be_its_adapter(run: Run, catalogue: Settings, database: Database) -> None:
    job = run("lora", lora={"rank": 2, "targets": ["q_proj", "up_proj"], "result": "adapter"})
    folder = result(catalogue, job)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["r"], config["base_model_name_or_path"]) == (2, "small")
    assert not (folder / "model.safetensors").exists()
    assert len(load_file(folder / "adapter_model.safetensors")) == 2 * 2 * 2
    card = (folder / "README.md").read_text()
    assert "PeftModel.from_pretrained(base" in card
    assert "| `lora.targets` | `q_proj, up_proj` |" in card
    with database.session() as session:
        names = {artifact.name for artifact in JobRepository(session).artifacts(job.id)}
    assert names == {path.name for path in folder.iterdir()}


def test_a_method_that_the_model_does_not_support_fails_at_preparation(run: Run) -> None:
    job = run("bitfit", train=False)
    assert job.status is JobStatus.FAILED
    assert job.error is not None
    assert (job.error["field"], job.error["title"]) == ("method", "The method cannot train this model")
    assert "'bitfit'" in job.error["detail"]


def test_a_chain_of_jobs_trains_each_result_further(
    run: Run, catalogue: Settings, database: Database, model: Path, tmp_path: Path
) -> None:
    first = run("greentrainer", result="delta")
    second = run("lora", base=first, lora={"result": "adapter", "dropout": 0})
    third = run("full", base=second, result="delta", seed=1)

    start = apply_delta(model, result(catalogue, first) / "delta.safetensors", tmp_path / "first")
    merged = apply_adapter(start, result(catalogue, second), tmp_path / "second")
    built = catalogue.job_dir(third.id) / "base"
    assert_equal_weights(built, merged)
    assert not any(path.name.startswith(".base") for path in built.parent.iterdir())
    # the delta fits on what the third job started from, and on nothing else
    final = apply_delta(merged, result(catalogue, third) / "delta.safetensors", tmp_path / "third")
    with pytest.raises(DeltaError, match=f"not the base of this delta, which is '{second.id}'"):
        apply_delta(model, result(catalogue, third) / "delta.safetensors", tmp_path / "other")
    assert load_tokenizer(final).eos_token == "<end>"

    card = (result(catalogue, third) / "README.md").read_text()
    lineage = card.partition("## Lineage")[2].partition("## ")[0]
    for job in (first, second, third):
        assert f"| `{job.id}`" in lineage
    assert f"| in all |  |  | {first.energy_kwh + second.energy_kwh + third.energy_kwh:.4g} |" in lineage
    assert f"| trained further from | the result of `{second.id}` |" in card
    assert "## Lineage" not in (result(catalogue, first) / "README.md").read_text()


def test_a_whole_result_is_trained_further_where_it_is_stored(run: Run, catalogue: Settings) -> None:
    first = run("greentrainer")
    second = run("full", base=first)
    loss = {job.id: (job.evaluation or {})["eval_loss"] for job in (first, second)}
    assert loss[second.id]["before"] == pytest.approx(loss[first.id]["after"], abs=1e-6)
    assert not (catalogue.job_dir(second.id) / "base").exists()
    load_model(result(catalogue, second))


def test_a_base_whose_files_are_gone_fails_the_job_with_its_field(run: Run, catalogue: Settings) -> None:
    first = run("greentrainer")
    shutil.rmtree(result(catalogue, first))
    second = run("full", base=first, train=False)
    assert second.status is JobStatus.FAILED
    assert second.error is not None
    assert second.error["field"] == "model"
    assert f"the result of {first.id} was removed" in second.error["detail"]


def assert_equal_weights(folder: Path, other: Path) -> None:
    found, expected = load_file(folder / "model.safetensors"), load_file(other / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_nested_files_are_recorded_by_their_path_and_links_are_not(tmp_path: Path) -> None:
    (tmp_path / "result" / "sub").mkdir(parents=True)
    (tmp_path / "result" / "sub" / "a.json").write_text("{}")
    (tmp_path / "secret").write_text("a key")
    (tmp_path / "result" / "link").symlink_to(tmp_path / "secret")
    [artifact] = hash_artifacts("job_1", tmp_path / "result", at=utc_now())
    assert (artifact.name, artifact.bytes) == ("sub/a.json", 2)
    assert artifact.sha256 == hashlib.sha256(b"{}").hexdigest()
