"""Formats of a job's figures, with the digits that the dashboard shows."""

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

from api.figures import UNKNOWN, format_number, format_percent
from cli.remote.output import format_short_time

if TYPE_CHECKING:
    from greentune.models import Eta, Figure, Job

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
