"""`greentune epochs`, `events`, `artifacts` and `download`: a job's epochs, events and result."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.figures import UNKNOWN, format_number, format_size
from cli.errors import CommandError, ExitCode, SettingError
from cli.options import AsJson, JobArgument, with_client
from cli.remote.figures import format_event, mark_unknown_site
from cli.remote.output import Columns, format_short_time, show_json, show_json_line, show_list

if TYPE_CHECKING:
    from greentune.client import Client
    from greentune.models import Artifact, Epoch, EpochIntensity

app = typer.Typer()

EPOCH_COLUMNS: "Columns[Epoch]" = {
    "epoch": lambda epoch: str(epoch.number),
    "started (UTC)": lambda epoch: format_short_time(epoch.started_at),
    "gCO2e/kWh": lambda epoch: _format_intensity(epoch.intensity),
    "ρ asked": lambda epoch: format_number(epoch.rho_asked),
    "FLOPs share": lambda epoch: format_number(epoch.rho_reached),
    "tensors": lambda epoch: (
        UNKNOWN if epoch.tensors_selected is None else f"{epoch.tensors_selected}/{epoch.tensors_total}"
    ),
    "loss": lambda epoch: format_number(epoch.train_loss),
    "held-out": lambda epoch: format_number(epoch.eval_loss),
    "kWh": lambda epoch: format_number(None if epoch.energy is None else epoch.energy.total_kwh),
    "gCO2e": lambda epoch: (
        format_number(epoch.emissions_gco2e)
        + (f" ({format_number(epoch.unpriced_kwh)} kWh unpriced)" if epoch.unpriced_kwh else "")
    ),
    "reason": lambda epoch: epoch.reason,
}
ARTIFACT_COLUMNS: "Columns[Artifact]" = {
    "name": lambda file: file.name,
    "size": lambda file: format_size(file.bytes),
    "created (UTC)": lambda file: format_short_time(file.created_at),
    "SHA-256": lambda file: file.sha256,
}


@app.command()
@with_client
def epochs(client: "Client", job: JobArgument, as_json: AsJson = False) -> None:
    """Show each epoch of a job: its ρ with the reason, tensors trained, loss, energy and emissions."""
    show_list(client.epochs(job), EPOCH_COLUMNS, empty=f"{job} has not started an epoch yet", as_json=as_json)


@app.command()
@with_client
def events(
    client: "Client",
    job: JobArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="All of them, and new ones as they come.")] = False,
    limit: Annotated[int, typer.Option(help="Largest number shown without --follow.", min=1)] = 50,
    as_json: AsJson = False,
) -> None:
    """Show a job's newest events, the earliest first; with --follow and --json a line of JSON for each."""
    if not follow:
        newest = list(client.events(job, most=limit))[::-1]
        if as_json:
            show_json(newest)
        else:
            for event in newest:
                typer.echo(format_event(event))
        return
    try:
        for event in client.events(job, follow=True):
            if as_json:
                show_json_line(event)
            else:
                typer.echo(format_event(event))
    except KeyboardInterrupt:
        raise CommandError(f"stopped following; {job} continues", ExitCode.INTERRUPTED) from None


@app.command()
@with_client
def artifacts(client: "Client", job: JobArgument, as_json: AsJson = False) -> None:
    """List the files of a finished job's result."""
    show_list(client.artifacts(job), ARTIFACT_COLUMNS, empty=f"{job} has no result yet", as_json=as_json)


@app.command()
@with_client
def download(
    client: "Client",
    job: JobArgument,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="One file; else all.", show_default=False)] = None,
    output: Annotated[Path, typer.Option(help="Folder to write to; created if missing.")] = Path(),
    as_json: AsJson = False,
) -> None:
    """Download a finished job's result; each file is verified by its SHA-256."""
    names = [artifact.name for artifact in client.artifacts(job)]
    if name is not None and name not in names:
        there = ", ".join(names) or "none"
        raise CommandError(f"NAME: {job} has no artifact {name!r}: there are {there}", ExitCode.NOT_FOUND)
    if not names:
        raise CommandError(f"{job} has no result yet")
    try:
        output.mkdir(parents=True, exist_ok=True)
        files = [str(client.download(job, each, output)) for each in (names if name is None else [name])]
    except OSError as error:
        raise SettingError(f"--output: {output}: {error.strerror}") from error
    if as_json:
        show_json(files)
    else:
        typer.echo("\n".join(files))


def _format_intensity(intensity: "EpochIntensity") -> str:
    estimated = " est." if intensity.estimated and intensity.gco2e_per_kwh is not None else ""
    return format_number(intensity.gco2e_per_kwh) + estimated + mark_unknown_site([intensity.source])
