"""Views of a job in `greentune watch`: the live display, progress lines, and the summary."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from api.figures import UNKNOWN, format_number, format_percent
from cli.remote.figures import format_eta, format_event, mark_unknown_site, measured_or_estimated
from cli.remote.output import format_short_time, replace_unprintable
from greentune.models import Epoch, Event, Intensity, Job


@dataclass(frozen=True)
class Snapshot:
    """A job, its newest epoch, and before the first one the intensity in force in its zone."""

    job: Job
    epoch: Epoch | None
    intensity: Intensity | None


def list_figures(snapshot: Snapshot) -> list[tuple[str, str]]:
    """Return every figure as (name, text), with the digits that the dashboard shows."""
    job = snapshot.job
    progress = job.progress
    of_steps = "" if progress.steps is None else f", step {progress.steps_done} of {progress.steps}"
    shown = [
        ("state", job.status + (f": {job.reason}" if job.reason else "")),
        ("done", f"{format_percent(progress.share)}, epoch {progress.epochs_done} of {progress.epochs}{of_steps}"),
        ("ETA (UTC)", format_eta(job.eta)),
        ("gate", _gate(job)),
        ("ρ", format_number(job.rho)),
        ("loss", format_number(job.loss)),
        ("best evaluation", _best(job)),
        ("intensity", _intensity(snapshot)),
        ("energy", _energy(job)),
        ("emissions", _emissions(job)),
    ]
    if job.less_work_saving is not None or job.moved_in_time_saving is not None:
        saved = [f"{format_percent(job.less_work_saving)} by less work"]
        saved.append(f"{format_percent(job.moved_in_time_saving)} by moving it in time")
        others = (
            ("waiting for a worker", job.queueing_saving),
            ("pauses of its owner", job.owner_pause_saving),
            ("work done twice", job.lost_work_saving),
        )
        saved += [f"{format_percent(share)} by {name}" for name, share in others if share]
        shown.append(("saved", f"{', '.join(saved)} (estimates)"))
    return shown


def format_progress_line(snapshot: Snapshot) -> str:
    """Format the known figures on one line."""
    job = snapshot.job
    known = [f"{name} {value}" for name, value in list_figures(snapshot)[1:] if value != UNKNOWN]
    return "  ".join([job.status, *known])


def format_summary(snapshot: Snapshot) -> list[str]:
    """Return a line for each known figure of a job that is over."""
    return [f"{name}: {value}" for name, value in list_figures(snapshot) if value != UNKNOWN]


def render_snapshot(snapshot: Snapshot, events: Sequence[Event]) -> Group:
    """Render the job and its newest events for the live display."""
    job = snapshot.job
    grid = Table.grid(padding=(0, 2))
    grid.add_row("", ProgressBar(total=1.0, completed=job.progress.share, width=60))
    for name, value in list_figures(snapshot):
        grid.add_row(Text(name, style="dim"), Text(replace_unprintable(value)))
    title = (
        (f"{job.name}  " if job.name else "")
        + f"{job.id}  {job.model}, {job.method}"
        + (f", {job.zone}" if job.zone else "")
    )
    return Group(Text(replace_unprintable(title)), grid, *(Text(format_event(event), style="dim") for event in events))


def _gate(job: Job) -> str:
    gate = job.gate
    if gate is None:
        return UNKNOWN
    state = "open" if gate.opens else f"closed until {format_short_time(gate.until)}"
    forced = ", forced by the deadline" if gate.forced else ""
    return f"{state}{forced}: {gate.reason}"


def _best(job: Job) -> str:
    best = job.best
    return UNKNOWN if best is None else f"loss {format_number(best.loss)} after step {best.step}"


def _intensity(snapshot: Snapshot) -> str:
    """Format the intensity that decided the newest epoch's ρ; before the first epoch the one in force."""
    epoch = snapshot.epoch
    reading, when = (snapshot.intensity, "now") if epoch is None else (epoch.intensity, f"of epoch {epoch.number}")
    if reading is None or reading.gco2e_per_kwh is None:
        return UNKNOWN
    how = measured_or_estimated(estimated=reading.estimated)
    return f"{format_number(reading.gco2e_per_kwh)} gCO2e/kWh, {how}, {reading.source}, {when}"


def _energy(job: Job) -> str:
    basis = job.emissions_basis
    if basis is None:
        return UNKNOWN
    evaluations = f", {format_number(job.evaluation_kwh)} of it in evaluations" if job.evaluation_kwh else ""
    return (
        f"{format_number(job.energy_kwh)} kWh"
        + (", estimated" if basis.energy_estimated else ", metered")
        + evaluations
    )


def _emissions(job: Job) -> str:
    basis = job.emissions_basis
    if basis is None:
        return UNKNOWN
    guessed = mark_unknown_site(basis.sources) + (", from estimated intensities" if basis.estimated else "")
    missing = f", without {format_number(job.unpriced_kwh)} unpriced kWh" if job.unpriced_kwh else ""
    return f"{format_number(job.known_gco2e)} gCO2e, {basis.status}{guessed}{missing}"
