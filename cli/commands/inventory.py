"""`greentune models` and `workers`: the service's catalogue and its processes."""

from typing import TYPE_CHECKING

import typer

from api.figures import UNKNOWN, format_number
from cli.options import AsJson, with_client
from cli.remote.output import Columns, format_short_time, show_list

if TYPE_CHECKING:
    from greentune.client import Client
    from greentune.models import Model, Worker

app = typer.Typer()

# A figure that is unknown before a model's first job is a dash.
MODEL_COLUMNS: "Columns[Model]" = {
    "model": lambda model: model.name,
    "parameters": lambda model: UNKNOWN if model.parameters is None else f"{model.parameters:,}",
    "tensors": lambda model: format_number(model.tensors),
    "smallest ρ": lambda model: format_number(model.rho_floor),
    "longest row": lambda model: format_number(model.max_length),
    "licence": lambda model: model.licence,
    "description": lambda model: model.description,
}
WORKER_COLUMNS: "Columns[Worker]" = {
    "worker": lambda worker: worker.id,
    "role": lambda worker: worker.role,
    "state": lambda worker: worker.state,
    "device": lambda worker: worker.device,
    "memory (GB)": lambda worker: UNKNOWN if worker.memory_bytes is None else format_number(worker.memory_bytes / 1e9),
    "zone": lambda worker: worker.zone or UNKNOWN,
    "PUE": lambda worker: format_number(worker.pue),
    "GPUs free": lambda worker: UNKNOWN if worker.gpus is None else f"{worker.gpus_free} of {worker.gpus}",
    "jobs": lambda worker: ", ".join(worker.jobs) or UNKNOWN,
    "last seen (UTC)": lambda worker: format_short_time(worker.last_seen_at),
}


@app.command()
@with_client
def models(client: "Client", as_json: AsJson = False) -> None:
    """Show the models of the service's catalogue."""
    show_list(client.models(), MODEL_COLUMNS, empty="the catalogue has no models", as_json=as_json)


@app.command()
@with_client
def workers(client: "Client", as_json: AsJson = False) -> None:
    """Show the service's processes with their zone, devices, their memory and jobs."""
    show_list(client.workers(), WORKER_COLUMNS, empty="no workers", as_json=as_json)
