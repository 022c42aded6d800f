"""`greentune serve` with all of its processes, started once for the module."""

import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import pytest

from cli.stack.data_folder import discover_service
from cli.stack.embedded import LOOPBACK
from greencore.host_network import find_free_port
from tests.keys import bearer

if TYPE_CHECKING:
    from tests.cli.conftest import GreentuneProcess, Run

FIRST_KEY = "the first operator key, shown this once: "

Gone = Callable[[list[psutil.Process]], None]


@dataclass(frozen=True)
class Served:
    """A running service."""

    command: "GreentuneProcess"
    url: str
    data_dir: Path
    key: str


@pytest.fixture(scope="module")
def data_dir() -> Iterator[Path]:
    with TemporaryDirectory(prefix="greentune-test-", ignore_cleanup_errors=True) as folder:
        # Characters that URLs, connection strings and shells interpret.
        yield Path(folder) / "My Data 100%+&ü" / "var"


@pytest.fixture(scope="module")
def served(greentune: "Run", data_dir: Path) -> Served:
    return serve(greentune, data_dir)


def serve(greentune: "Run", data_dir: Path) -> Served:
    # No model, so that none is measured in the background.
    data_dir.parent.mkdir(exist_ok=True)
    catalogue = data_dir.with_name("catalogue.toml")
    catalogue.touch()
    command = greentune(
        "serve",
        "--data-dir",
        str(data_dir),
        "--port",
        str(find_free_port(LOOPBACK)),
        environment={
            "GREENTUNE_CATALOGUE": str(catalogue),
            "GREENTUNE_ELECTRICITY_MAPS_TOKEN": "a provider's token",
        },
    )
    line = command.wait_for("GreenTune is at ")
    shown = [line for line in command.lines if FIRST_KEY in line]
    key = shown[0].removeprefix(FIRST_KEY) if shown else ""
    return Served(command, line.split("GreenTune is at ")[1].split()[0], data_dir, key)


@pytest.mark.fault(number=11)
def test_without_a_site_it_warns_and_its_worker_is_in_no_known_zone(served: Served) -> None:
    assert "warning: GREENTUNE_SITE is not set: training on this machine is priced at the world's mean" in (
        served.command.output
    )

    def of(path: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = get(f"{served.url}{path}", served.key).json()["data"]
        return found

    [worker] = [one for one in of("/workers") if one["role"] == "train"]
    assert (worker["zone"], worker["pue"]) == ("site-unknown", 1.0)
    zones = {one["zone"]: one["workers"] for one in of("/zones")}
    assert zones.pop("site-unknown") == 1
    assert set(zones.values()) == {0}


def test_the_service_is_ready_when_serve_shows_its_address(served: Served) -> None:
    assert get(f"{served.url}/readyz").json()["status"] == "ok"
    for name in ("postgres", "valkey", "api", "scheduler", "prepare-worker", "train-worker"):
        assert f"{name}: ready after" in served.command.output
        assert (served.data_dir / "logs" / f"{name}.log").is_file()


@pytest.mark.fault(number=19)
def test_a_scheduler_leads_where_the_folders_name_has_spaces(served: Served) -> None:
    log = (served.data_dir / "logs" / "scheduler.log").read_text()
    assert " " in str(served.data_dir)
    assert "scheduler.leads" in log
    assert "database.unreachable" not in log


def test_the_first_key_is_shown_once_and_never_logged(served: Served) -> None:
    assert [line for line in served.command.lines if "gtk_" in line] == [FIRST_KEY + served.key]
    assert get(f"{served.url}/keys", served.key).status_code == 200
    assert get(f"{served.url}/keys").status_code == 401
    for log in (served.data_dir / "logs").iterdir():
        assert "gtk_" not in log.read_text(errors="replace")


@pytest.mark.fault(number=18)
def test_files_of_the_service_are_private_to_its_account(served: Served) -> None:
    rows = {"file": ("rows.jsonl", b'{"text": "Leaves are green."}')}
    assert httpx.post(f"{served.url}/datasets", files=rows, headers=bearer(served.key)).status_code == 201

    folders = [served.data_dir / name for name in ("datasets", "logs", "valkey")]
    written = [path for folder in folders for path in (folder, *folder.rglob("*"))]
    assert len(written) > 8
    assert [path for path in written if path.stat().st_mode & 0o077 and not path.is_socket()] == []
    for name in ("secret-key", "service-url", "stack.lock"):
        assert (served.data_dir / name).stat().st_mode & 0o077 == 0, name
    for path in (served.data_dir, served.data_dir / "postgres"):
        assert path.stat().st_mode & 0o066 == 0, "others may pass through for PostgreSQL's account at most"


@pytest.mark.fault(number=20)
def test_the_size_of_a_requests_headers_is_limited(served: Served) -> None:
    url = httpx.URL(served.url)
    with socket.create_connection((url.host, url.port or 80), timeout=20) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n")
        with suppress(ConnectionError):
            for _ in range(100):
                connection.sendall(b"X-Header: value\r\n" * 1000)
        with suppress(ConnectionError):
            assert connection.recv(64).startswith(b"HTTP/1.1 400")
            while connection.recv(4096):
                pass
    assert get(f"{served.url}/livez").is_success


def test_workers_are_started_without_any_secret(served: Served) -> None:
    secret = served.data_dir / "secret-key"
    assert secret.stat().st_mode & 0o077 == 0
    for name, is_told in (
        ("uvicorn", True),
        ("-m scheduler", True),
        ("worker prepare", False),
        ("worker train", False),
    ):
        told = "\n".join(f"{key}={value}" for key, value in running(served, name)[0].environ().items())
        assert (secret.read_text().strip() in told) is is_told, name
        assert ("a provider's token" in told) is (name == "-m scheduler"), name


def test_commands_find_the_service_of_their_data_folder(served: Served, greentune: "Run") -> None:
    assert discover_service(served.data_dir) == served.url
    environment = {"GREENTUNE_DATA_DIR": str(served.data_dir), "GREENTUNE_KEY": served.key}
    command = greentune("workers", environment=environment)
    assert command.finish() == 0
    assert "prepare" in command.output


def test_keys_are_created_and_revoked_beside_a_running_service(served: Served, greentune: "Run") -> None:
    folder = ("--data-dir", str(served.data_dir))
    create = greentune("keys", "create", "--owner", "carol", *folder)
    assert create.finish() == 0, create.output
    key = next(line for line in create.lines if line.startswith("gtk_"))
    assert get(f"{served.url}/jobs", key).status_code == 200
    assert get(f"{served.url}/keys", key).status_code == 403

    listed = greentune("keys", "list", *folder)
    assert listed.finish() == 0, listed.output
    [line] = [line for line in listed.lines if "\tcarol\t" in line]
    assert key not in listed.output

    assert greentune("keys", "revoke", line.split("\t")[0], *folder).finish() == 0
    deadline = time.monotonic() + 10
    while get(f"{served.url}/jobs", key).status_code != 401:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_second_service_in_the_same_folder_is_refused(served: Served, greentune: "Run") -> None:
    second = greentune("serve", "--data-dir", str(served.data_dir), "--port", str(find_free_port(LOOPBACK)))
    assert second.finish() == 2
    assert f"--data-dir (GREENTUNE_DATA_DIR): {served.data_dir}" in second.output
    assert f"process {served.command.process.pid}" in second.output
    assert get(f"{served.url}/readyz").is_success


def test_a_killed_process_is_restarted(served: Served) -> None:
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


def test_ctrl_c_stops_every_process(served: Served, assert_gone: Gone) -> None:
    policy = {"name": "kept", "policy": {"kind": "constant", "rho": 0.6}}
    answer = httpx.post(f"{served.url}/policies", json=policy, headers=bearer(served.key), trust_env=False)
    assert answer.status_code == 201, answer.text
    family = served.command.process_tree()
    assert {"postgres", "valkey-server"} <= {process.name() for process in family}
    assert served.command.end(signal.SIGINT) == 0
    assert served.command.lines[-1] == "stopped"
    assert_gone(family)
    assert "database system is shut down" in (served.data_dir / "logs" / "postgres.log").read_text()


def test_a_restart_keeps_stored_data_and_a_kill_stops_every_process(
    served: Served, greentune: "Run", assert_gone: Gone
) -> None:
    again = serve(greentune, served.data_dir)
    assert again.key == "", "the first key is shown once"
    assert "kept" in get(f"{again.url}/policies", served.key).text
    family = again.command.process_tree()
    again.command.end(signal.SIGKILL)
    assert_gone(family)


def only(served: Served, words: str) -> psutil.Process:
    """Return the only running process with these words in its command line."""
    [process] = running(served, words)
    return process


def running(served: Served, words: str) -> list[psutil.Process]:
    """Return the running processes with these words in their command line, parents first."""
    found = []
    for process in served.command.process_tree():
        with suppress(psutil.NoSuchProcess):  # ended meanwhile, or ended and not yet reaped
            if words in " ".join(process.cmdline()):
                found.append(process)
    return found


def get(url: str, key: str = "") -> httpx.Response:
    return httpx.get(url, headers=bearer(key) if key else None, timeout=10, trust_env=False)


def answers(url: str) -> bool:
    try:
        return get(url).is_success
    except httpx.HTTPError:
        return False
