"""Formats of a job's figures, with the digits that the dashboard shows."""

from collections.abc import Callable, Collection, Mapping
from datetime import UTC
from typing import TYPE_CHECKING, Any

from api.figures import UNKNOWN, format_number, format_percent, format_value
from cli.remote.output import format_short_time, replace_unprintable

if TYPE_CHECKING:
    from greentune.models import Eta, Event, Figure, Job

ROUGE_NAMES = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"}


def format_emissions(job: "Job") -> str:
    """Format a job's emissions, and whether they are settled; a dash before any energy is metered."""
    basis = job.emissions_basis
    if basis is None:
        return UNKNOWN
    if job.known_gco2e is None:
        return f"{UNKNOWN} unpriced"
    how = "settled" if basis.status == "settled" else "est."
    unpriced = ", part unpriced" if job.unpriced_kwh else ""
    return f"{format_number(job.known_gco2e)} {how}{mark_unknown_site(basis.sources)}{unpriced}"


def mark_unknown_site(sources: Collection[str | None]) -> str:
    """Return what follows a figure that rests on the intensity of a machine whose site is not set."""
    from runtime.site import SITE_UNKNOWN

    return f", {SITE_UNKNOWN}" if SITE_UNKNOWN in sources else ""


def format_savings(job: "Job") -> str:
    """Format the savings by less work and by moving it in time; a dash before the job is over."""
    if job.less_work_saving is None and job.moved_in_time_saving is None:
        return UNKNOWN
    return f"{format_percent(job.less_work_saving)} work, {format_percent(job.moved_in_time_saving)} time"


def format_eta(expected: "Eta | None") -> str:
    """Format a job's expected end with its 90 % interval."""
    if expected is None:
        return UNKNOWN
    bounds = f"{format_short_time(expected.earliest)} to {format_short_time(expected.latest)}"
    return f"{format_short_time(expected.finishes_at)} ({bounds})"


def measured_or_estimated(*, estimated: bool) -> str:
    """Return "estimated" or "measured", for an intensity."""
    return "estimated" if estimated else "measured"


def format_figure(figure: "Figure | None", format_value: Callable[[float], str] = format_number) -> str:
    """Format an expected value with its bounds."""
    if figure is None:
        return UNKNOWN
    return f"{format_value(figure.expected)} ({format_value(figure.low)} to {format_value(figure.high)})"


def format_rouge(before: Mapping[str, float], after: Mapping[str, float]) -> str:
    """Format each ROUGE measure in per cent, before and after training."""
    return ", ".join(f"{name} {before[key]:.1f} → {after[key]:.1f}" for key, name in ROUGE_NAMES.items())


def format_event(event: "Event") -> str:
    """Format an event on one line."""
    return replace_unprintable(
        f"{event.at.astimezone(UTC):%Y-%m-%d %H:%M:%S}  {event.type}  {_format_event_data(event.data)}".rstrip()
    )


def _format_event_data(data: Mapping[str, Any]) -> str:
    """Format the data, reason first; without `from` and `to`, which the event types show."""
    rest = {name: each for name, each in data.items() if each is not None and name not in ("reason", "from", "to")}
    parts = [str(data["reason"])] if data.get("reason") else []
    return "  ".join([*parts, *(f"{name}={format_value(each)}" for name, each in rest.items())])
