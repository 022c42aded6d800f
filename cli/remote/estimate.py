"""`greentune estimate`: a run's time, energy and emissions, started now and in the best window."""

from api.figures import UNKNOWN, format_duration, format_number, format_percent
from cli.remote.connection import field_to_option, report_field_errors
from cli.remote.figures import format_figure
from cli.remote.output import create_console, format_short_time, replace_unprintable, show_json, show_table
from cli.remote.submission import RunRequest, upload_if_file
from greentune.client import Client
from greentune.models import Estimate
from greentune.models import Run as EstimatedRun


def estimate(client: Client, run: RunRequest, *, as_json: bool) -> None:
    """Show an estimate; a file of rows is uploaded first, nothing is queued."""
    dataset = upload_if_file(client, run.dataset)
    with report_field_errors(field_to_option):
        found = client.estimate(run.model, dataset, **run.options)
    if as_json:
        show_json(found)
    else:
        _show(found)


def _show(found: Estimate) -> None:
    now, best = _column(found.now), _column(found.best)
    rows = [(name, now[name], best[name]) for name in now]
    show_table(("", "now", "best window"), rows)
    saving = found.saving
    lines = [
        "saved by the best window: "
        + (
            UNKNOWN
            if saving is None
            else f"{format_number(saving.gco2e)} gCO2e, {format_percent(saving.share)} (estimate)"
        ),
        f"place: {found.place.zone}, {found.place.reason}; intensity: {found.place.basis}",
        f"pace: {found.pace.basis}",
        f"queue: {found.queue.running} running, {found.queue.ahead} ahead; PUE {found.pue:g}",
    ]
    if found.budget is not None:
        kept = {True: "can be kept", False: "cannot be kept", None: "may not be kept"}[found.budget.can_be_kept]
        lines.append(f"budget of {format_number(found.budget.given_gco2e)} gCO2e: {kept}; {found.budget.basis}")
    screen = create_console()
    for line in (*lines, *(f"note: {note}" for note in found.notes)):
        screen.print(replace_unprintable(line), soft_wrap=True)


def _column(run: EstimatedRun) -> dict[str, str]:
    return {
        "starts (UTC)": format_short_time(run.starts_at),
        "ends (UTC)": format_short_time(run.ends_at),
        "computing time": format_figure(run.hours, lambda hours: format_duration(hours * 3600)),
        "mean ρ": format_number(run.rho),
        "FLOPs": format_figure(run.flops, "{:.3g}".format),
        "kWh": format_figure(run.energy_kwh),
        "gCO2e/kWh": format_number(run.gco2e_per_kwh),
        "gCO2e": format_figure(run.emissions_gco2e),
        "meets the deadline": {True: "yes", False: "no", None: UNKNOWN}[run.meets_deadline],
        "reason": run.why,
    }
