"""How the commands show things: tables for people, JSON for programs."""

import json
import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from api.figures import UNKNOWN
from greentune.models import Answer

# Where nobody looks at it, a line is as long as it needs to be.
DEFAULT_WIDTH = 240
GAP = 2
MIN_LAST_COLUMN_WIDTH = 32


def create_console() -> Console:
    """Takes texts as they are: what others wrote holds no markup."""
    found = Console(highlight=False, markup=False, emoji=False)
    if not found.is_terminal and "COLUMNS" not in os.environ:
        found.width = DEFAULT_WIDTH
    return found


def show_json(shown: Any) -> None:
    """One JSON document on stdout."""
    typer.echo(json.dumps(to_json(shown), ensure_ascii=False, indent=2))


def show_json_line(shown: Any) -> None:
    """One line of JSON on stdout, at once."""
    typer.echo(json.dumps(to_json(shown), ensure_ascii=False, separators=(",", ":")))


def to_json(shown: Any) -> Any:
    """Answers, alone or in lists, as the service sent them."""
    if isinstance(shown, Answer):
        return shown.model_dump(mode="json", by_alias=True)
    if isinstance(shown, list | tuple):
        return [to_json(each) for each in shown]
    return {name: to_json(each) for name, each in shown.items()} if isinstance(shown, dict) else shown


def show_table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str = "") -> None:
    """A row a thing; `empty` where there is none.

    Only the last column runs over several lines: a table that is wider than the terminal is wrapped by it, since a
    figure that is cut is another figure.
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
    """A text of others, without what would steer the terminal."""
    return Text(replace_unprintable(text))


def replace_unprintable(text: str) -> str:
    """A text in which every character can be shown."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "�" for letter in text)


def format_short_time(time: datetime | None) -> str:
    """A time in UTC, to the minute; the year only where it is not this one."""
    if time is None:
        return UNKNOWN
    time = time.astimezone(UTC)
    return f"{time:%m-%d %H:%M}" if time.year == datetime.now(UTC).year else f"{time:%Y-%m-%d %H:%M}"
