"""Checks of Python and the packages against the requirements of this version of GreenTune."""

import platform
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, metadata, requires, version

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from cli.doctor.check import CheckResult

PROJECT = "greentune"
SERVICE = "service"
# Purpose of each part of the packages, and how to install it.
PARTS = {
    SERVICE: ("the API, the scheduler and this command", "run `make setup`, which installs requirements.lock"),
    "training": ("workers and `greentune train`", "run `make setup`, or install greentune[training]"),
    "embedded": ("`greentune serve` without servers of your own", "run `make setup`, or install greentune[embedded]"),
    "charts": ("the dashboard's charts", "run `make setup`, or install greentune[charts]"),
}


def run_checks() -> Iterator[CheckResult]:
    """Check the version of the interpreter, and of every required package."""
    try:
        wanted = metadata(PROJECT)["Requires-Python"]
    except PackageNotFoundError:
        yield CheckResult("packages", "failed", "GreenTune is not installed here", "run `make setup`")
        return
    running = platform.python_version()
    found = f"{running} (required: {wanted})"
    if SpecifierSet(wanted).contains(running, prereleases=True):
        yield CheckResult("python", "ok", found)
    else:
        yield CheckResult("python", "failed", found, "install a newer Python, then `make setup`")
    requirements = list(map(Requirement, requires(PROJECT) or ()))
    for part, (what, command) in PARTS.items():
        yield _part(part, what, command, [each for each in requirements if _is_required_by(each, part)])


def _is_required_by(requirement: Requirement, part: str) -> bool:
    """Return whether a package is required by this part alone."""
    if requirement.marker is None:
        return part == SERVICE
    return part != SERVICE and requirement.marker.evaluate({"extra": part})


def _part(part: str, what: str, command: str, requirements: list[Requirement]) -> CheckResult:
    name, faults = f"packages: {part}", [fault for each in requirements if (fault := _fault(each))]
    if not faults:
        return CheckResult(name, "ok", f"all {len(requirements)} needed for {what}")
    if part != SERVICE and not any(_installed_version(each) for each in requirements):
        return CheckResult(name, "skipped", f"not installed: this machine is not for {what}", command)
    return CheckResult(name, "failed", "; ".join(faults), command)


def _installed_version(requirement: Requirement) -> str | None:
    with suppress(PackageNotFoundError):
        return version(requirement.name)
    return None


def _fault(requirement: Requirement) -> str | None:
    found = _installed_version(requirement)
    if found is None:
        return f"{requirement.name} is missing (required: {requirement.specifier})"
    if requirement.specifier.contains(found, prereleases=True):
        return None
    return f"{requirement.name} {found} (required: {requirement.specifier})"
