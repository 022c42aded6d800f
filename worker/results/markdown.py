"""Markdown in which nobody's text can be anything but text."""

import re
import unicodedata
from collections.abc import Iterable, Sequence


def code_span(text: object) -> str:
    """A text as a code span, in which nothing is markup; it stays one line and one cell of a table.

    What is not visible (control characters, line separators, marks that turn the direction of writing) is shown as
    a space.
    """
    line = to_one_line(text)
    if not line:
        return "–"
    fence = "`" * (max(map(len, re.findall("`+", line)), default=0) + 1)
    padding = " " if "`" in (line[0], line[-1]) else ""
    return f"{fence}{padding}{line}{padding}{fence}".replace("|", "\\|")


def format_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown already."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def to_one_line(text: object) -> str:
    """The text without what could end a line or hide a part of it."""
    visible = "".join(" " if unicodedata.category(sign)[0] in "CZ" else sign for sign in str(text))
    return " ".join(visible.split())
