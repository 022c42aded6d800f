"""`greentune epochs`, `artifacts` and `download`."""

from pathlib import Path

import typer

from api.figures import UNKNOWN, format_number, format_size
from cli.errors import CommandError, NotFound, SettingError
from cli.remote.output import format_short_time, show_json, show_list
from greentune.client import Client
from greentune.models import Artifact, Epoch
from runtime.site import SITE_UNKNOWN

EPOCH_HEADERS = (
    "epoch",
    "started (UTC)",
    "gCO2e/kWh",
    "ρ asked",
    "FLOPs share",
    "tensors",
    "loss",
    "held-out",
    "kWh",
    "gCO2e",
    "reason",
)


def show_epochs(client: Client, job_id: str, *, as_json: bool) -> None:
    """Show a line for each epoch: ρ with its reason, tensors, loss, energy and emissions."""
    epochs = list(client.epochs(job_id))
    show_list(epochs, EPOCH_HEADERS, _epoch, empty=f"{job_id} has not started an epoch yet", as_json=as_json)


def show_artifacts(client: Client, job_id: str, *, as_json: bool) -> None:
    """Show the files of the result."""
    headers = ("name", "size", "created (UTC)", "SHA-256")

    def row(file: Artifact) -> tuple[str, ...]:
        return file.name, format_size(file.bytes), format_short_time(file.created_at), file.sha256

    show_list(client.artifacts(job_id), headers, row, empty=f"{job_id} has no result yet", as_json=as_json)


def download(client: Client, job_id: str, name: str | None, folder: Path, *, as_json: bool) -> None:
    """Write one file of the result, or all, into a folder; existing files are replaced."""
    names = [artifact.name for artifact in client.artifacts(job_id)]
    if name is not None and name not in names:
        raise NotFound(f"NAME: {job_id} has no artifact {name!r}: there are {', '.join(names) or 'none'}")
    wanted = names if name is None else [name]
    if not wanted:
        raise CommandError(f"{job_id} has no result yet")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = [client.download(job_id, each, folder) for each in wanted]
    except OSError as error:
        raise SettingError(f"--output: {folder}: {error.strerror}") from error
    if as_json:
        show_json([str(file) for file in files])
    else:
        for file in files:
            typer.echo(file)


def _epoch(epoch: Epoch) -> tuple[str, ...]:
    guessed = " est." if epoch.intensity.estimated and epoch.intensity.gco2e_per_kwh is not None else ""
    guessed += f", {SITE_UNKNOWN}" if epoch.intensity.source == SITE_UNKNOWN else ""
    tensors = UNKNOWN if epoch.tensors_selected is None else f"{epoch.tensors_selected}/{epoch.tensors_total}"
    return (
        str(epoch.number),
        format_short_time(epoch.started_at),
        f"{format_number(epoch.intensity.gco2e_per_kwh)}{guessed}",
        format_number(epoch.rho_asked),
        format_number(epoch.rho_reached),
        tensors,
        format_number(epoch.train_loss),
        format_number(epoch.eval_loss),
        format_number(None if epoch.energy is None else epoch.energy.total_kwh),
        format_number(epoch.emissions_gco2e)
        + (f" ({format_number(epoch.unpriced_kwh)} kWh unpriced)" if epoch.unpriced_kwh else ""),
        epoch.reason,
    )
