"""`greentune datasets`: list, upload, preview and delete training rows."""

from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from api.figures import UNKNOWN, format_forms, format_size
from cli.columns import map_columns, parse_columns
from cli.commands.submission import upload_if_file
from cli.errors import SettingError
from cli.options import AsJson, ColumnOptions, is_file, with_client
from cli.remote.connection import field_to_option, report_field_errors
from cli.remote.output import Columns, format_short_time, show_json, show_list
from greentune.errors import StillCounting

if TYPE_CHECKING:
    from greentune.client import Client
    from greentune.models import Dataset, LearnedText

T = TypeVar("T")

DatasetArgument = Annotated[str, typer.Argument(metavar="ID", help="As `greentune datasets list` shows it.")]
PREVIEWED_ROWS, MAX_ROWS = 10, 100

app = typer.Typer(help="List, upload, preview and delete training rows.", no_args_is_help=True)

COLUMNS: "Columns[Dataset]" = {
    "dataset": lambda dataset: dataset.id,
    "name": lambda dataset: dataset.name,
    "format": lambda dataset: dataset.format,
    "rows": lambda dataset: f"{dataset.rows:,}",
    "forms": lambda dataset: format_forms(dataset.contents.forms) if dataset.contents else UNKNOWN,
    "size": lambda dataset: format_size(dataset.bytes),
    "uploaded (UTC)": lambda dataset: format_short_time(dataset.created_at),
}


@app.command("list")
@with_client
def list_datasets(
    client: "Client",
    limit: Annotated[int, typer.Option(help="Largest number shown.", min=1)] = 50,
    as_json: AsJson = False,
) -> None:
    """List uploads, the newest first."""
    show_list(islice(client.datasets(), limit), COLUMNS, empty="no datasets", as_json=as_json)


@app.command()
@with_client
def upload(
    client: "Client",
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON Lines, a JSON array, CSV, TSV or Parquet.")],
    column: ColumnOptions = None,
    as_json: AsJson = False,
) -> None:
    """Upload rows, and show the id of the dataset; every row is validated."""
    if not is_file(file, "FILE"):
        raise SettingError(f"FILE: there is no file {file}")
    dataset_id = upload_if_file(client, str(file), map_columns(parse_columns(column)), option="FILE")
    if as_json:
        show_json(client.dataset(dataset_id))
    else:
        typer.echo(dataset_id)


@app.command()
@with_client
def preview(
    client: "Client",
    dataset: DatasetArgument,
    row: Annotated[
        int | None, typer.Option(help="Only this row, by its number in an upload's errors.", min=1, metavar="N")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Show the rows as this model reads them, with what it learns marked.")
    ] = None,
    prompt_format: Annotated[str | None, typer.Option(help="As of a job, with --model.")] = None,
    train_on: Annotated[str | None, typer.Option(help="As of a job, with --model.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show a dataset's first rows, as they were uploaded, or with --model as they are learned.

    Learned tokens are styled in a terminal, and within ⟦ and ⟧ elsewhere.
    """
    from cli.remote.rows_view import show_learned_text, show_rows

    if model is None:
        for option, value in (("--prompt-format", prompt_format), ("--train-on", train_on)):
            if value is not None:
                raise SettingError(f"{option}: expected --model beside it")
        rows = client.dataset_rows(dataset, most=PREVIEWED_ROWS if row is None else MAX_ROWS)
        chosen = _pick(rows, [each.number for each in rows], row)
        if as_json:
            show_json(chosen)
        else:
            show_rows(chosen)
        return
    with report_field_errors(field_to_option):
        learned = _wait_for_learned_text(client, dataset, model, prompt_format, train_on)
    learned = learned.model_copy(update={"rows": _pick(learned.rows, [each.line for each in learned.rows], row)})
    if as_json:
        show_json(learned)
    else:
        show_learned_text(learned)


@app.command()
@with_client
def delete(client: "Client", dataset: DatasetArgument) -> None:
    """Delete a dataset that no unfinished job needs."""
    client.delete_dataset(dataset)
    typer.echo(f"{dataset}: deleted", err=True)


def _wait_for_learned_text(
    client: "Client", dataset: str, model: str, prompt_format: str | None, train_on: str | None
) -> "LearnedText":
    request = partial(client.learned_text, dataset, model, prompt_format=prompt_format, train_on=train_on)
    try:
        return request(timeout=0)
    except StillCounting:
        typer.echo("a prepare worker tokenises the rows; Ctrl-C stops the wait, not the worker", err=True)
    return request()


def _pick(rows: Sequence[T], numbers: Sequence[int], row: int | None) -> list[T]:
    """Return the row of a number, or all of them. Raises `SettingError` where it is not among them."""
    chosen = [each for each, number in zip(rows, numbers, strict=True) if row in (None, number)]
    if row is not None and not chosen:
        raise SettingError(
            f"--row: {row} is not among the {len(numbers)} rows that can be shown, {numbers[0]}–{numbers[-1]}"
        )
    return chosen
