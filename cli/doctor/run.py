"""Looks at one family of checks after the other, and shows what was found."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict

import typer

from cli.doctor import accelerators, carbon, files, meters, packages, servers, service
from cli.doctor.check import CheckResult, CheckState
from cli.errors import CommandError
from cli.remote.output import replace_unprintable, show_json
from runtime.settings import Settings

COLOURS: dict[CheckState, str] = {"ok": "green", "warning": "yellow", "failed": "red", "skipped": "bright_black"}


def run_doctor(settings: Settings, *, url: str | None, key: str | None, online: bool, as_json: bool) -> None:
    """Show every check as it is done. Raises `CommandError` where one has failed."""
    families: Sequence[Callable[[], Iterator[CheckResult]]] = (
        packages.run_checks,
        accelerators.run_checks,
        meters.run_checks,
        lambda: servers.run_checks(settings),
        lambda: files.run_checks(settings),
        lambda: carbon.run_checks(settings, online=online),
        lambda: service.run_checks(url, key, settings.data_dir),
    )
    checks = []
    for run_family in families:
        for check in run_family():
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
