"""`greentune serve` as a whole: every process real, started once for the module."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest

from cli.embedded import LOOPBACK, free_port

if TYPE_CHECKING:
    from tests.cli.conftest import Greentune, Run

Gone = Callable[[list[psutil.Process]], None]


@dataclass(frozen=True)
class Served:
    """A service that stands."""

    command: "Greentune"
    url: str
    data_dir: Path


@pytest.fixture(scope="module")
def data_dir() -> Iterator[Path]:
    with TemporaryDirectory(prefix="greentune-test-", ignore_cleanup_errors=True) as folder:
        yield Path(folder) / "var"


@pytest.fixture(scope="module")
def served(greentune: "Run", data_dir: Path) -> Served:
    return serve(greentune, data_dir)


def serve(greentune: "Run", data_dir: Path) -> Served:
    # No model, so that none is measured in the background.
    catalogue = data_dir.with_name("catalogue.toml")
    catalogue.touch()
    command = greentune(
        "serve",
        "--data-dir",
        str(data_dir),
        "--port",
        str(free_port(LOOPBACK)),
        environment={"GREENTUNE_CATALOGUE": str(catalogue)},
    )
    line = command.wait_for("GreenTune is at ")
    return Served(command, line.split("GreenTune is at ")[1].split()[0], data_dir)


def test_it_is_ready_when_it_says_so(served: Served) -> None:
    assert get(f"{served.url}/readyz").json() == {"status": "ok"}
    for name in ("postgres", "valkey", "api", "scheduler", "prepare-worker", "train-worker"):
        assert f"{name}: ready after" in served.command.output
        assert (served.data_dir / "logs" / f"{name}.log").is_file()


def test_a_second_one_on_the_same_folder_is_refused(served: Served, greentune: "Run") -> None:
    second = greentune("serve", "--data-dir", str(served.data_dir), "--port", str(free_port(LOOPBACK)))
    assert second.finish() == 2
    assert f"--data-dir (GREENTUNE_DATA_DIR): {served.data_dir}" in second.output
    assert f"process {served.command.process.pid}" in second.output
    assert get(f"{served.url}/readyz").is_success


def test_a_killed_process_is_started_again(served: Served) -> None:
    scheduler = only(served, "-m scheduler")
    api = only(served, "uvicorn")
    scheduler.kill()
    api.kill()
    served.command.wait_for("scheduler: started again")
    served.command.wait_for("api: started again")
    assert only(served, "-m scheduler") != scheduler
    deadline = time.monotonic() + 30
    while not answers(f"{served.url}/readyz"):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_ctrl_c_ends_it_in_order_and_leaves_no_process_behind(served: Served, gone: Gone) -> None:
    policy = {"name": "kept", "policy": {"kind": "constant", "rho": 0.6}}
    answer = httpx.post(f"{served.url}/policies", json=policy, trust_env=False)
    assert answer.status_code == 201, answer.text
    family = served.command.family()
    assert {"postgres", "valkey-server"} <= {process.name() for process in family}
    assert served.command.end(signal.SIGINT) == 0
    assert served.command.lines[-1] == "stopped"
    gone(family)
    assert "database system is shut down" in (served.data_dir / "logs" / "postgres.log").read_text()


def test_it_goes_on_with_what_was_stored_and_a_kill_leaves_no_process_behind(
    served: Served, greentune: "Run", gone: Gone
) -> None:
    again = serve(greentune, served.data_dir)
    assert "kept" in get(f"{again.url}/policies").text
    family = again.command.family()
    again.command.end(signal.SIGKILL)
    gone(family)


def only(served: Served, words: str) -> psutil.Process:
    """The one running process with these words in its command line."""
    found = []
    for process in served.command.family():
        with suppress(psutil.NoSuchProcess):  # ended meanwhile, or ended and not yet reaped
            if words in " ".join(process.cmdline()):
                found.append(process)
    [process] = found
    return process


def get(url: str) -> httpx.Response:
    return httpx.get(url, timeout=10, trust_env=False)


def answers(url: str) -> bool:
    try:
        return get(url).is_success
    except httpx.HTTPError:
        return False
