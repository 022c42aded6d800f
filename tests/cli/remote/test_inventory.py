"""`greentune zones`, `models`, `workers` and `datasets`."""

import gzip
from datetime import timedelta
from pathlib import Path

from cli.errors import ExitCode
from cli.remote.output import format_short_time
from greentune.client import Client
from greentune.models import Job
from runtime.site import Site
from store.database import Database
from store.intensity.provider_health import ProviderRepository
from store.repositories.workers import WorkerRepository
from tests.api.conftest import MODEL, NOW
from tests.cli.service import CommandRunner


def test_the_columns_of_a_file_are_mapped_and_of_an_upload_are_not(
    greentune: CommandRunner, client: Client, tmp_path: Path
) -> None:
    file = tmp_path / "rows.tsv.gz"
    file.write_bytes(gzip.compress(b"q\ta\n1 + 1 =\t 2\n"))
    columns = ("--column", "prompt=q", "--column", "completion=a")

    uploaded = greentune("datasets", "upload", str(file), *columns)
    assert uploaded.exit_code == 0, uploaded.output
    dataset = client.dataset(uploaded.stdout.strip())
    assert (dataset.format, dataset.compression, dataset.rows) == ("tsv", "gzip", 1)
    assert dataset.columns == {"prompt": "q", "completion": "a"}
    assert greentune("submit", "--model", MODEL, "--dataset", str(file), *columns).exit_code == 0

    config = tmp_path / "validation job.yaml"
    config.write_text(f"model: {MODEL}\ndataset: {dataset.id}\n")
    other = tmp_path / "other.tsv"
    other.write_bytes(b"q\ta\n2 + 2 =\t 4\n")
    beside = ("--validation-dataset", str(other), *columns)
    assert greentune("submit", "--config", str(config), *beside).exit_code == 0
    refused = greentune("submit", "--config", str(config), *columns)
    assert f"--column: {dataset.id} is the id of an upload" in " ".join(refused.stderr.split())

    for options, message in (
        (("--dataset", dataset.id, *columns), f"--column: {dataset.id} is the id of an upload"),
        (("--dataset", str(file), "--column", "prompt"), "--column: 'prompt': expected KEY=NAME"),
        (("--dataset", str(file), "--column", "promt=q"), "--column: 'promt' is no key of a row"),
        (("--dataset", str(file), *columns[:2], *columns[:2]), "--column: prompt is given twice"),
        (("--dataset", str(file), *columns[:2]), f"--dataset: {file}: line 2: completion: is missing"),
        (("--dataset", str(file)), f"--dataset: {file}: has no column of "),
    ):
        refused = greentune("submit", "--model", MODEL, *options)
        assert refused.exit_code == ExitCode.USAGE
        assert message in " ".join(refused.stderr.split())


def test_zones_show_the_intensity_in_force_and_the_cleanest_hours(greentune: CommandRunner, grid: None) -> None:
    [line] = [line for line in greentune.shown("zones").splitlines() if line.split()[:1] == ["FR"]]
    assert "300" in line
    assert "measured" in line
    assert "15:00–17:00" in line
    shown = greentune.shown("zones", "FR")
    assert "FR: 300 gCO2e/kWh now, measured, uk (fresh)" in shown
    assert "50 to 323 gCO2e/kWh, from 11-23 13:00 UTC on" in shown
    assert "▁▁" in shown
    assert greentune.json("zones", "FR")["intensity"]["gco2e_per_kwh"] == 300
    assert {each["zone"]["zone"] for each in greentune.json("zones")} >= {"FR", "GB"}
    assert "estimated, static (static)" in greentune.shown("zones", "GB")
    greentune.refused("zones", "XX", code=4)


def test_zones_show_the_error_of_a_failing_source(greentune: CommandRunner, grid: None, database: Database) -> None:
    assert "failed" not in greentune.shown("zones")
    with database.session() as session:
        providers = ProviderRepository(session)
        providers.record_success("FR", "uk", at=NOW - timedelta(hours=2))
        for minutes in (2, 1):
            providers.record_failure("FR", "uk", at=NOW - timedelta(minutes=minutes), error="timed out\x1b[2J")
        providers.record_failure("GB", "static", at=NOW, error="no mean")

    answered = format_short_time(NOW - timedelta(hours=2))
    fault = f"FR: uk has failed 2 times in a row since {answered} UTC: timed out�[2J"
    assert {fault, "GB: static has failed once and has never answered: no mean"} <= set(
        greentune.shown("zones").splitlines()
    )
    assert fault in greentune.shown("zones", "FR").splitlines()
    assert greentune.json("zones", "FR")["provider"]["failures_in_a_row"] == 2


def test_models_workers_and_datasets_are_listed(
    greentune: CommandRunner, client: Client, job: Job, measured: None, rows: Path
) -> None:
    assert "100,000,000" in greentune.shown("models")
    assert MODEL in {each["name"] for each in greentune.json("models")}
    assert "idle" in greentune.shown("workers")
    assert [each["id"] for each in greentune.json("workers")] == ["worker_1"]
    uploaded = greentune.shown("datasets", "upload", str(rows)).strip()
    assert greentune.json("datasets", "upload", str(rows))["rows"] == 2
    assert uploaded in (listed := greentune.shown("datasets", "list"))
    assert "text 2" in listed
    assert len(greentune.json("datasets", "list")) == 3
    other = rows.with_name("other.jsonl")
    other.write_text('{"text": "a", "id": 1}\n{"instruction": "a", "output": "b", "n\\u001b": 1}\n')
    result = greentune("datasets", "upload", str(other))
    assert "2 rows (text 1, instruction 1)" in result.stderr
    assert "not used of its rows: id, n\\x1b" in result.stderr
    assert greentune("datasets", "delete", uploaded).exit_code == 0
    greentune.refused("datasets", "delete", job.dataset, code=5)
    greentune.refused("datasets", "delete", uploaded, code=4)
    assert "FILE: there is no file" in greentune.refused("datasets", "upload", "none.jsonl", code=2)
    assert "FILE: File name too long" in greentune.refused("datasets", "upload", "x" * 256, code=2)


def test_workers_are_shown_with_the_memory_of_their_device(greentune: CommandRunner, database: Database) -> None:
    with database.session() as session:
        WorkerRepository(session).record_heartbeat(
            "gpu", site=Site(zone="FR"), device="NVIDIA H200", memory_bytes=139 * 10**9, at=NOW
        )
    assert "139" in greentune.shown("workers").split()
