"""Output of the commands: tables for people, JSON for programs."""

import json
import os
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from api.figures import UNKNOWN

if TYPE_CHECKING:
    from rich.console import Console

# Of lines that are not written to a terminal.
DEFAULT_WIDTH = 240
GAP = 2
KEPT = "\n\t\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"  # though not printable
MIN_LAST_COLUMN_WIDTH = 32

T = TypeVar("T")
Columns = Mapping[str, Callable[[T], str]]
"""For each column of a table its header, and the text of an item's cell."""


def create_console() -> "Console":
    """Return a console that prints texts unchanged, without markup."""
    from rich.console import Console

    found = Console(highlight=False, markup=False, emoji=False)
    if not found.is_terminal and "COLUMNS" not in os.environ:
        found.width = DEFAULT_WIDTH
    return found


def show_json(shown: Any) -> None:
    """Write one JSON document to stdout; answers, alone or within, are written as the service sent them."""
    typer.echo(json.dumps(shown, ensure_ascii=False, indent=2, default=_dump_answer))


def show_json_line(shown: Any) -> None:
    """Write one line of JSON to stdout."""
    typer.echo(json.dumps(shown, ensure_ascii=False, separators=(",", ":"), default=_dump_answer))


def _dump_answer(answer: Any) -> Any:
    return answer.model_dump(mode="json", by_alias=True)


def show_list(items: Iterable[T], columns: Columns[T], *, empty: str, as_json: bool) -> None:
    """Show items as JSON, or as a table with a row for each, or `empty` on stderr where there are none."""
    items = list(items)
    if as_json:
        show_json(items)
    elif items:
        show_table(list(columns), [[cell(item) for cell in columns.values()] for item in items])
    else:
        typer.echo(empty, err=True)


def show_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table with at least one row.

    Only the last column is folded over several lines. A wider table is wrapped by the terminal instead of being cut, as
    a truncated figure would be wrong.
    """
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False)
    widths = [max(map(cell_len, column)) for column in zip(headers, *rows, strict=True)]
    for header, width in zip(headers[:-1], widths[:-1], strict=True):
        made.add_column(header, no_wrap=True, min_width=width)
    made.add_column(headers[-1], overflow="fold")
    for row in rows:
        made.add_row(*(Text(replace_unprintable(cell)) for cell in row))
    screen = create_console()
    needed = sum(widths[:-1]) + GAP * (len(widths) - 1) + min(widths[-1], MIN_LAST_COLUMN_WIDTH)
    screen.width = max(screen.width, needed)
    screen.print(made)


def replace_unprintable(text: str) -> str:
    """Replace the characters that could control the terminal, in a text from the service.

    Tabs and line breaks are kept, and so are spaces of every width, and the joiners of scripts and emoji.
    """
    return "".join(letter if _is_shown(letter) else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _is_shown(letter: str) -> bool:
    return letter.isprintable() or letter in KEPT or unicodedata.category(letter) == "Zs"


def format_short_time(time: datetime | None) -> str:
    """Format a time (UTC) to the minute; with the year where it is not the current one."""
    if time is None:
        return UNKNOWN
    time = time.astimezone(UTC)
    return f"{time:%m-%d %H:%M}" if time.year == datetime.now(UTC).year else f"{time:%Y-%m-%d %H:%M}"
