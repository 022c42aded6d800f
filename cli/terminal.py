"""Prints lines to a terminal that may have been closed; shared by serve and the demonstration."""

from contextlib import suppress

import typer


def print_line(line: str) -> None:
    """Show a line; a terminal that is gone is no reason to leave processes behind."""
    with suppress(OSError):
        typer.echo(line)
