"""Runs all families of checks, and shows their results."""

from dataclasses import asdict
from itertools import chain

import typer

from cli.doctor import carbon, files, hardware, packages, servers, service
from cli.doctor.check import CheckResult, CheckState
from cli.errors import CommandError
from cli.remote.output import replace_unprintable, show_json
from runtime.settings import Settings

COLOURS: dict[CheckState, str] = {"ok": "green", "warning": "yellow", "failed": "red", "skipped": "bright_black"}


def run_doctor(settings: Settings, *, url: str | None, key: str | None, online: bool, as_json: bool) -> None:
    """Show the result of each check at once. Raises `CommandError` where one has failed."""
    checks = []
    for check in chain(
        packages.run_checks(),
        hardware.run_checks(),
        servers.run_checks(settings),
        files.run_checks(settings),
        carbon.run_checks(settings, online=online),
        service.run_checks(url, key, settings.data_dir),
    ):
        checks.append(check)
        if not as_json:
            _show(check)
    if as_json:
        show_json([asdict(check) for check in checks])
    failed = [check.name for check in checks if check.state == "failed"]
    if failed:
        raise CommandError(f"what the service needs is missing: {', '.join(failed)}")


def _show(check: CheckResult) -> None:
    state = typer.style(f"{check.state:<8}", fg=COLOURS[check.state])
    typer.echo(f"{state} {check.name}: {replace_unprintable(check.found)}")
    if check.mend:
        typer.echo(f"         → {replace_unprintable(check.mend)}")
