"""`greentune jobs`, the actions on jobs, and their results."""

import hashlib
from pathlib import Path

from api.figures import format_number
from greentune.client import Client
from greentune.models import Job
from runtime.settings import Settings
from store.database import Database
from store.tables import Artifact
from tests.api.conftest import MODEL, run_to_success
from tests.cli.service import CommandRunner


def test_jobs_are_listed_with_the_services_figures_and_filtered(
    greentune: CommandRunner, client: Client, job: Job, database: Database, settings: Settings
) -> None:
    run_to_success(database, settings, job.id)
    other = client.submit(MODEL, job.dataset, zone="GB", name="night")
    ended = client.job(job.id)

    [line] = [line for line in greentune.shown("jobs").splitlines() if job.id in line]
    assert "succeeded" in line
    assert "100 %" in line.replace("100.0 %", "100 %")
    assert f"{format_number(ended.emissions_gco2e)} est." in line
    assert [each["id"] for each in greentune.json("jobs")] == [other.id, job.id]
    assert [each["id"] for each in greentune.json("jobs", "--limit", "1")] == [other.id]
    assert [each["id"] for each in greentune.json("jobs", "--status", "succeeded")] == [job.id]
    assert [each["id"] for each in greentune.json("jobs", "--zone", "GB")] == [other.id]
    assert [each["id"] for each in greentune.json("jobs", "--metadata", "team=speech")] == [job.id]
    assert [each["id"] for each in greentune.json("jobs", "--name", "night")] == [other.id]
    assert [each["id"] for each in greentune.json("jobs", "--model", "unknown")] == []
    assert [each["id"] for each in greentune.json("jobs", "--owner", "ops", "--model", MODEL)] == [other.id, job.id]
    assert "night" in greentune.shown("jobs")
    assert "--status: 'done' is not one of validating" in greentune.refused("jobs", "--status", "done", code=2)


def test_actions_apply_to_each_job_and_the_first_refusal_sets_the_exit_code(
    greentune: CommandRunner, client: Client, job: Job
) -> None:
    other = client.submit(MODEL, job.dataset)
    result = greentune("cancel", job.id, "job_none", other.id)
    assert result.exit_code == 4
    assert result.stdout == f"{job.id}: cancelled\n{other.id}: cancelled\n"
    assert "there is no job 'job_none'" in result.stderr
    greentune.refused("pause", job.id, code=5)
    greentune.refused("resume", job.id, code=5)
    assert [each["status"] for each in greentune.json("retry", job.id, other.id)] == ["validating", "validating"]


def test_a_finished_job_is_shown_and_its_result_downloaded(
    greentune: CommandRunner, job: Job, database: Database, settings: Settings, tmp_path: Path
) -> None:
    assert "has no result yet" in greentune.refused("download", job.id, code=1)
    run_to_success(database, settings, job.id)
    with database.session() as session:
        session.get_one(Artifact, (job.id, "model.safetensors")).sha256 = hashlib.sha256(b"weights").hexdigest()

    epochs = greentune.shown("epochs", job.id)
    assert "212 est." in epochs
    assert "0.58" in epochs
    assert greentune.json("epochs", job.id)[0]["rho_asked"] == 0.6
    assert "7 B" in greentune.shown("artifacts", job.id)
    assert {each["name"] for each in greentune.json("artifacts", job.id)} == {"model.safetensors", "lost.json"}
    output = tmp_path / "new" / "folder"
    shown = greentune.shown("download", job.id, "model.safetensors", "--output", str(output))
    assert Path(shown.strip()).read_bytes() == b"weights"
    greentune.refused("download", job.id, "lost.json", "--output", str(output), code=4)
    assert "model.safetensors" in greentune.refused("download", job.id, "none", code=4)
    assert [file.name for file in output.iterdir()] == ["model.safetensors"]
