"""Lines on a terminal that may be gone."""

from contextlib import suppress

import typer


def print_line(line: str) -> None:
    """Show a line; a terminal that is gone is no reason to leave processes behind."""
    with suppress(OSError):
        typer.echo(line)
