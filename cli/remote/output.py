"""Output of the commands: tables for people, JSON for programs."""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from api.figures import UNKNOWN
from greentune.models import Answer

# Of lines that are not written to a terminal.
DEFAULT_WIDTH = 240
GAP = 2
MIN_LAST_COLUMN_WIDTH = 32

T = TypeVar("T")


def create_console() -> Console:
    """Return a console that prints texts unchanged, without markup."""
    found = Console(highlight=False, markup=False, emoji=False)
    if not found.is_terminal and "COLUMNS" not in os.environ:
        found.width = DEFAULT_WIDTH
    return found


def show_json(shown: Any) -> None:
    """Write one JSON document to stdout."""
    typer.echo(json.dumps(to_json(shown), ensure_ascii=False, indent=2))


def show_json_line(shown: Any) -> None:
    """Write one line of JSON to stdout."""
    typer.echo(json.dumps(to_json(shown), ensure_ascii=False, separators=(",", ":")))


def to_json(shown: Any) -> Any:
    """Return answers, alone or in lists and mappings, as the JSON values that the service sent."""
    if isinstance(shown, Answer):
        return shown.model_dump(mode="json", by_alias=True)
    if isinstance(shown, list | tuple):
        return [to_json(each) for each in shown]
    return {name: to_json(each) for name, each in shown.items()} if isinstance(shown, dict) else shown


def show_list(
    items: Sequence[T], headers: Sequence[str], row: Callable[[T], Sequence[str]], *, empty: str, as_json: bool
) -> None:
    """Show items as JSON, or as a table with a row for each."""
    if as_json:
        show_json(items)
    else:
        show_table(headers, map(row, items), empty=empty)


def show_table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str = "") -> None:
    """Print a table, or `empty` on stderr where there are no rows.

    Only the last column is folded over several lines. A wider table is wrapped by the terminal instead of being cut, as
    a truncated figure would be wrong.
    """
    rows = list(rows)
    if not rows:
        typer.echo(empty, err=True)
        return
    made = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False)
    widths = [max(map(cell_len, column)) for column in zip(headers, *rows, strict=True)]
    for header, width in zip(headers[:-1], widths[:-1], strict=True):
        made.add_column(header, no_wrap=True, min_width=width)
    made.add_column(headers[-1], overflow="fold")
    for row in rows:
        made.add_row(*map(safe_text, row))
    screen = create_console()
    needed = sum(widths[:-1]) + GAP * (len(widths) - 1) + min(widths[-1], MIN_LAST_COLUMN_WIDTH)
    screen.width = max(screen.width, needed)
    screen.print(made)


def safe_text(text: str) -> Text:
    """Return text from the service without control characters, which could control the terminal."""
    return Text(replace_unprintable(text))


def replace_unprintable(text: str) -> str:
    """Replace the characters of a text that cannot be printed."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "�" for letter in text)


def format_short_time(time: datetime | None) -> str:
    """Format a time (UTC) to the minute; with the year where it is not the current one."""
    if time is None:
        return UNKNOWN
    time = time.astimezone(UTC)
    return f"{time:%m-%d %H:%M}" if time.year == datetime.now(UTC).year else f"{time:%Y-%m-%d %H:%M}"
