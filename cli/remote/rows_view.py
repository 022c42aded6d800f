"""Rows of a dataset in the terminal: as they were uploaded, or as a model reads them, with what is learned marked."""

from rich.console import Console
from rich.text import Text

from cli.remote.output import create_console, replace_unprintable
from greentune.models import LearnedRow, LearnedText, Row, Segment

LEARNED = "bold green underline"
# Where the output is no terminal.
OPENING, CLOSING = "⟦", "⟧"


def show_rows(rows: list[Row]) -> None:
    """Print rows as they were uploaded, each text below its field or role."""
    console = create_console()
    for place, row in enumerate(rows):
        _print(console, _title(place, f"row {row.number}", row.form))
        for text in row.texts:
            name = text.role or text.field
            if text.role and not text.field.endswith(".content"):
                name += f" {text.field.rpartition('.')[2]}"
            cut = f" (the first {len(text.text)} of {text.characters:,} characters)" if text.cut else ""
            _print(console, Text(f"{name}{cut}:", style="dim"))
            _print(console, Text(replace_unprintable(text.text)))


def show_learned_text(learned: LearnedText) -> None:
    """Print rows as a model reads them: learned tokens are styled in a terminal, and within brackets elsewhere."""
    console = create_console()
    for place, row in enumerate(learned.rows):
        _print(console, _title(place, f"row {row.line}", _describe(row)))
        for number, example in enumerate(row.examples, start=1):
            if len(row.examples) > 1:
                _print(console, Text(f"example {number} of {len(row.examples)}:", style="dim"))
            _print(console, _mark(example, styled=console.is_terminal))


def _describe(row: LearnedRow) -> str:
    if row.error is not None:
        return row.error
    if not row.examples:
        return "nothing of it is learned: it is left out"
    cut = ", only the first are shown" if row.is_cut else ""
    return f"{row.learned_tokens:,} of {row.tokens:,} tokens learned{cut}"


def _mark(example: list[Segment], *, styled: bool) -> Text:
    text = Text()
    for segment in example:
        shown = replace_unprintable(segment.text)
        if segment.learned and not styled:
            text.append(f"{OPENING}{shown}{CLOSING}")
        else:
            text.append(shown, style=LEARNED if segment.learned else None)
    return text


def _title(place: int, name: str, description: str) -> Text:
    """Return the title of a row, after a blank line except for the first."""
    return Text.assemble("\n" if place else "", (name, "bold"), ": ", replace_unprintable(description))


def _print(console: Console, text: Text) -> None:
    # Long lines are left to the terminal: a text is shown as it is.
    console.print(text, soft_wrap=True)
