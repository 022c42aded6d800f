"""schemathesis against the running service: no 5xx, and no response that the OpenAPI description does not declare.

A short run from a fixed seed; `SCHEMATHESIS=full`, which `make schemathesis` sets, takes some minutes.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from cli.stack.embedded import LOOPBACK
from greencore.host_network import find_free_port
from runtime.settings import Settings
from store.database import Database
from tests.api.conftest import MODEL, run_to_success
from tests.keys import bearer, new_key

FULL = os.environ.get("SCHEMATHESIS") == "full"
SEED = os.environ.get("SCHEMATHESIS_SEED", "20261124")
ARGUMENTS = (
    ("--max-examples", os.environ.get("N", "200")) if FULL else ("--max-examples", "3", "--phases", "examples,fuzzing")
)
LONGEST_SECONDS = 3600 if FULL else 300
LEFT_OUT = {
    "revoke_key": "it would find the very key of the run, and end it",
}
CHECKS_LEFT_OUT = {
    "ignored_auth": "30 keys that are refused lock an address out for a minute; test_isolation.py asks without one",
}
# These path segments are also valid ids or names for other methods.
ALSO_AN_ID = ("/jobs/estimate", "/policies/simulate")
# Whether a body that fits its schema is taken depends on what is stored, and on how its fields fit each other: a
# dataset, a zone, a deadline to come. Those of which each alone is in order are refused by a 422.
REFUSED_NEVERTHELESS = ["2xx", "303", "304", "401", "403", "404", "409", "413", "415", "416", "422", "429", "503"]


@pytest.fixture
def stored(client: TestClient, alice: TestClient, database: Database, settings: Settings) -> dict[str, list[str]]:
    """Create resources of a user and an operator, such as waiting, finished and cancelled jobs; return their ids."""
    found: dict[str, list[str]] = {
        "job_id": [],
        "dataset_id": [],
        "webhook_id": [],
        "name": ["night", "model.safetensors"],
    }
    for owner in (client, alice):
        rows = {"file": ("rows.jsonl", b'{"prompt": "2 + 2 =", "completion": " 4"}\n{"text": "Leaves are green."}\n')}
        dataset = owner.post("/datasets", files=rows).json()["id"]
        jobs = [
            owner.post("/jobs", json={"model": MODEL, "dataset": dataset, "zone": "FR"}).json()["id"] for _ in "abc"
        ]
        run_to_success(database, settings, jobs[0])
        assert owner.post(f"/jobs/{jobs[1]}/cancel").status_code == 202
        webhook = owner.post("/webhooks", json={"url": "https://example.com/hook"}).json()
        found["job_id"] += jobs
        found["dataset_id"].append(dataset)
        found["webhook_id"].append(webhook["id"])
    night = {"name": "night", "policy": {"kind": "constant", "rho": 0.6, "gate": {"mode": "defer"}}}
    assert client.post("/policies", json=night).status_code == 201
    found["key_id"] = [key["id"] for key in client.get("/keys").json()["data"]]
    found["zone"] = list(settings.zones)
    found["model"] = [MODEL]
    return found


@pytest.fixture
def service(settings: Settings, stored: dict[str, list[str]], tmp_path: Path) -> Iterator[str]:
    """The URL of the service in a separate process, whose log is shown if a test fails."""
    port = find_free_port(LOOPBACK)
    environment = {**os.environ, **settings.environment(), "GREENTUNE_RATE_LIMIT_PER_MINUTE": "1000000"}
    command = [sys.executable, "-m", "uvicorn", "api.main:app", "--port", str(port), "--log-level", "warning"]
    with (tmp_path / "service.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            _wait_for(f"http://{LOOPBACK}:{port}/livez", process)
            yield f"http://{LOOPBACK}:{port}"
        finally:
            process.terminate()
            process.wait(20)
    faults = [line for line in (tmp_path / "service.log").read_text().splitlines() if "Traceback" in line]
    assert faults == [], (tmp_path / "service.log").read_text()[-5000:]


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        assert process.poll() is None, "the service has ended"
        assert time.monotonic() < deadline, "the service does not answer"
        try:
            if httpx.get(url, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)


def configuration(stored: dict[str, list[str]]) -> str:
    """Return the configuration of schemathesis: existing ids, most of the time, and accepted refusals."""
    body = {"body.dataset": "dataset_id", "body.model": "model", "body.zone": "zone", "query.model": "model"}
    taken = {f"path.{name}": name for name in stored if name not in ("model",)} | body
    lines = ["[parameters]"]
    lines += [f'"{place}" = {{ dictionary = "{name}", probability = 0.8 }}' for place, name in taken.items()]
    for name, values in stored.items():
        lines += [f"[dictionaries.{name}]", f"values = {json.dumps(values)}"]
    lines += ["[checks.positive_data_acceptance]", f"expected-statuses = {json.dumps(REFUSED_NEVERTHELESS)}"]
    # Unknown query parameters and headers are ignored, as in HTTP.
    lines += ["[generation]", "allow-extra-parameters = false"]
    for path in ALSO_AN_ID:
        lines += ["[[operations]]", f'include-path = "{path}"', "checks.allow_header_conformance.enabled = false"]
    return "\n".join(lines) + "\n"


def run_schemathesis(
    service: str, key: str, stored: dict[str, list[str]], folder: Path
) -> subprocess.CompletedProcess[str]:
    file = folder / "schemathesis.toml"
    file.write_text(configuration(stored))
    command: list[Any] = [sys.executable, "-m", "schemathesis.cli", "--config-file", file, "--no-color", "run"]
    command += [f"{service}/openapi.json", "--header", f"Authorization: {bearer(key)['Authorization']}"]
    command += ["--seed", SEED, "--continue-on-failure", "--generation-database", "none", "--workers", "2", *ARGUMENTS]
    for operation in LEFT_OUT:
        command += ["--exclude-operation-id", operation]
    command += ["--exclude-checks", ",".join(CHECKS_LEFT_OUT)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=LONGEST_SECONDS, check=False)


@pytest.mark.parametrize("role", ["operator", "user"])
def test_every_response_conforms_to_the_openapi_description(
    role: str, service: str, settings: Settings, stored: dict[str, list[str]], tmp_path: Path
) -> None:
    key = new_key(settings, "alice", "operator" if role == "operator" else "user")

    finished = run_schemathesis(service, key, stored, tmp_path)

    assert finished.returncode == 0, finished.stdout[-20_000:] + finished.stderr[-5_000:]
