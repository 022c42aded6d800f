"""Looks at one family of checks after the other, and shows what was found."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict

import typer

from cli.doctor import accelerators, carbon, files, meters, packages, servers, service
from cli.doctor.check import Check, State
from cli.errors import CommandError
from cli.remote.output import clean, show_json
from store.settings import Settings

COLOURS: dict[State, str] = {"ok": "green", "warning": "yellow", "failed": "red", "skipped": "bright_black"}


def examine(settings: Settings, *, url: str | None, key: str | None, online: bool, as_json: bool) -> None:
    """Show every check as it is done. Raises `CommandError` where one has failed."""
    families: Sequence[Callable[[], Iterator[Check]]] = (
        packages.checks,
        accelerators.checks,
        meters.checks,
        lambda: servers.checks(settings),
        lambda: files.checks(settings),
        lambda: carbon.checks(settings, online=online),
        lambda: service.checks(url, key, settings.data_dir),
    )
    checks = []
    for look in families:
        for check in look():
            checks.append(check)
            if not as_json:
                _show(check)
    if as_json:
        show_json([asdict(check) for check in checks])
    failed = [check.name for check in checks if check.state == "failed"]
    if failed:
        raise CommandError(f"what the service needs is missing: {', '.join(failed)}")


def _show(check: Check) -> None:
    state = typer.style(f"{check.state:<8}", fg=COLOURS[check.state])
    typer.echo(f"{state} {check.name}: {clean(check.found)}")
    if check.mend:
        typer.echo(f"         → {clean(check.mend)}")
