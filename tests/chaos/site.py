"""A service of real processes, each of which can be killed, stopped and started separately."""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from cli.stack.embedded import LOOPBACK, EmbeddedPostgres, EmbeddedValkey
from cli.stack.processes import ManagedProcess, ProcessSpec, Watchdog, kill_all, list_descendants, python_environment
from greencore.host_network import find_free_port
from migrations.upgrade import upgrade
from runtime.settings import Settings
from runtime.site import Site as MachineSite
from store.database import Database
from tests.acceptance.conftest import write_small_catalogue

PATIENCE_SECONDS = 240.0
LEASE_SECONDS = 3.0
HOUR = "datetime,gco2e_per_kwh\n2026-06-01T00:00:00Z,220\n2026-06-01T01:00:00Z,220\n"
ROWS = "\n".join(json.dumps({"prompt": f"w{n % 60} w1 w2 " * 4, "completion": " w7 w8 w9"}) for n in range(160))
# Every job trains the same rows in the same order, so that all end with the same weights.
JOB: Mapping[str, Any] = {
    "model": "small",
    "zone": "X",
    "method": "greentrainer",
    "policy": {"kind": "constant", "rho": 0.6},
    "hyperparameters": {"epochs": 4, "eval_share": 0.02, "max_new_tokens": 4, "learning_rate": 1e-3},
}
SERVERS = ("postgres", "valkey")
PROGRAMS = ("api", "scheduler", "prepare", "worker")


class ServiceUnderTest:
    """The service in one folder; its processes have the names of `SERVERS` and `PROGRAMS`, or others."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "logs").mkdir()
        day = folder / "hour.csv"
        day.write_text(HOUR)
        self._postgres = EmbeddedPostgres(folder / "postgres")
        self._valkey = EmbeddedValkey(folder / "valkey")
        self._watchdog = Watchdog()
        self._processes: dict[str, ManagedProcess] = {}
        self._postgres.prepare()
        self._valkey.prepare()
        self.settings = Settings(
            database_url=self._postgres.url,
            redis_url=self._valkey.url,
            data_dir=folder / "var",
            catalogue=write_small_catalogue(folder),
            host=LOOPBACK,
            port=find_free_port(LOOPBACK),
            zones={"X": f"trace:{day}"},
            site=MachineSite(zone="X"),
            secret_key="s" * 32,
            open_on_loopback=True,
            rate_limit_per_minute=1_000_000,
            tick_seconds=1.0,
            heartbeat_seconds=0.5,
            lease_seconds=LEASE_SECONDS,
            redispatch_seconds=3.0,
            energy_interval_seconds=1.0,
            # These tests kill workers: that must not fail their jobs.
            max_attempts=1000,
        )
        self.settings.data_dir.mkdir()
        self.database = Database(self.settings.database_url)
        self.client = httpx.Client(base_url=f"http://{LOOPBACK}:{self.settings.port}", timeout=30, trust_env=False)

    def open(self) -> None:
        """Start all processes, and wait until the service is ready."""
        for name in SERVERS:
            self.start(name)
        self.await_server("postgres")
        upgrade(self.settings.database_url)
        for name in PROGRAMS:
            self.start(name)
        self.await_ready()

    def close(self) -> None:
        for name in reversed(list(self._processes)):
            self.kill(name)
        self.client.close()
        self.database.dispose()
        self._watchdog.__exit__()
        self._postgres.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, name: str, *command: str, environment: Mapping[str, str] | None = None) -> ManagedProcess:
        """Start a process by its name; one with a further name runs `command`, a module and its arguments."""
        assert name not in self._processes, f"{name} runs already"
        service = self._service(name, command, environment or {})
        process = ManagedProcess(service, self.folder / "logs" / f"{name}.log", self._watchdog)
        process.start()
        self._processes[name] = process
        return process

    def pid(self, name: str) -> int:
        pid = self._processes[name].pid
        assert pid is not None
        return pid

    def kill(self, name: str) -> None:
        """Kill a process and its descendants by SIGKILL."""
        process = self._processes.pop(name)
        if process.pid is not None:
            below = list_descendants(process.pid)
            os.kill(process.pid, 9) if process.alive else None
            kill_all(below)
            wait_until(f"{name} is dead", lambda: process.poll_exit() is not None or process.pid is None)

    def kill_child(self, name: str) -> bool:
        """Kill the process in which a worker runs its job by SIGKILL; False where it runs none."""
        below = list_descendants(self.pid(name))
        kill_all(below[-1:])
        return bool(below)

    def stop(self, name: str) -> int:
        """Ask a process to stop, and return its exit code, negative for a signal that killed it."""
        popen = self._processes.pop(name)._popen
        assert popen is not None
        popen.send_signal(self._service(name, (), {}).stop_signal)
        return popen.wait(PATIENCE_SECONDS)

    def restart(self, name: str) -> None:
        self.kill(name)
        self.start(name)

    def flush_valkey(self) -> None:
        """Lose every message: the next start finds no data. Only while it is down."""
        shutil.rmtree(self.folder / "valkey" / "appendonlydir", ignore_errors=True)

    def await_server(self, name: str) -> None:
        wait_until(f"{name} answers", self._processes[name].spec.ready)

    def await_ready(self) -> None:
        def ready() -> bool:
            try:
                return self.client.get("/readyz").is_success
            except httpx.TransportError:
                return False

        wait_until("the service is ready", ready)

    def upload(self, rows: str = ROWS) -> str:
        answer = self.client.post("/datasets", files={"file": ("rows.jsonl", rows.encode())})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def submit(self, dataset: str, **changes: Any) -> str:
        answer = self.client.post("/jobs", json={**JOB, "dataset": dataset, **changes})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def job(self, job_id: str) -> dict[str, Any]:
        """Return the job from the API, retried while the API is unavailable."""
        found: dict[str, Any] = {}

        def read() -> bool:
            try:
                answer = self.client.get(f"/jobs/{job_id}")
            except httpx.TransportError:
                return False
            if answer.status_code == 200:
                found.update(answer.json())
            return answer.status_code == 200

        wait_until(f"{job_id} can be read", read)
        return found

    def events(self, job_id: str) -> list[dict[str, Any]]:
        """Return the job's events, oldest first."""
        answer = self.client.get(f"/jobs/{job_id}/events", params={"limit": 200})
        return list(reversed(answer.json()["data"]))

    def wait_for(self, job_id: str, *statuses: str) -> dict[str, Any]:
        """Wait until the job has one of `statuses`, and return it."""
        seen: dict[str, Any] = {}

        def arrived() -> bool:
            seen.update(self.job(job_id))
            assert seen["status"] in statuses or seen["status"] not in ("failed", "cancelled", "succeeded"), seen
            return seen["status"] in statuses

        wait_until(f"{job_id} is {' or '.join(statuses)}", arrived, lambda: seen)
        return seen

    def wait_for_one(self, job_ids: Sequence[str], status: str) -> None:
        """Wait until one of these jobs has this status."""
        wait_until(f"one of {job_ids} is {status}", lambda: any(self.job(job)["status"] == status for job in job_ids))

    def under_way(self, job_id: str, *, epochs: int = 1) -> dict[str, Any]:
        """Wait until the job is some steps past `epochs` whole epochs, and return it."""
        seen: dict[str, Any] = {}

        def trains() -> bool:
            seen.update(self.job(job_id))
            progress = seen["progress"]
            steps = (progress["steps"] or 1) / progress["epochs"]
            return bool(seen["status"] == "running" and progress["steps_done"] > epochs * steps + 3)

        wait_until(f"{job_id} has done {epochs} epoch(s) and some steps", trains, lambda: seen)
        return seen

    def _service(self, name: str, command: tuple[str, ...], environment: Mapping[str, str]) -> ProcessSpec:
        if name == "postgres":
            return self._postgres.process_spec()
        if name == "valkey":
            return self._valkey.process_spec()
        known: dict[str, tuple[str, ...]] = {
            "api": ("uvicorn", "api.main:app", "--host", LOOPBACK, "--port", str(self.settings.port)),
            "scheduler": ("scheduler",),
            "prepare": ("worker", "prepare"),
            "worker": ("tests.slow_worker", "train"),
        }
        return ProcessSpec(
            name=name,
            command=[sys.executable, "-m", *(command or known[name])],
            ready=lambda: True,
            environment={
                **self.settings.environment(),
                "HF_HUB_OFFLINE": "1",
                "OMP_NUM_THREADS": "1",
                **python_environment(),
                **environment,
            },
        )


def wait_until(what: str, done: Callable[[], bool], about: Callable[[], object] = lambda: "") -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not done():
        assert time.monotonic() < deadline, f"waited {PATIENCE_SECONDS:g} s in vain until {what} {about()}"
        time.sleep(0.2)
