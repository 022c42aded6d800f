"""A job's figures in words, with the digits that the dashboard shows."""

from api.figures import UNKNOWN, format_duration, format_number, format_percent
from cli.remote.output import format_short_time
from greentune.models import Eta, Figure, Job
from runtime.site import SITE_UNKNOWN


def format_emissions(job: Job) -> str:
    """What a job has emitted, and whether its price is final; a dash before any energy was metered."""
    basis = job.emissions_basis
    if basis is None:
        return UNKNOWN
    if job.known_gco2e is None:
        return f"{UNKNOWN} unpriced"
    how = "settled" if basis.status == "settled" else "est."
    unknown = f", {SITE_UNKNOWN}" if SITE_UNKNOWN in basis.sources else ""
    return f"{format_number(job.known_gco2e)} {how}{unknown}" + (", part unpriced" if job.unpriced_kwh else "")


def format_savings(job: Job) -> str:
    """The savings by less work and by moving it in time, apart, once the job is over."""
    if job.less_work_saving is None and job.moved_in_time_saving is None:
        return UNKNOWN
    return f"{format_percent(job.less_work_saving)} work, {format_percent(job.moved_in_time_saving)} time"


def format_eta(expected: Eta | None) -> str:
    """When a job is expected to be over, and between what bounds in nine cases of ten."""
    if expected is None:
        return UNKNOWN
    bounds = f"{format_short_time(expected.earliest)} to {format_short_time(expected.latest)}"
    return f"{format_short_time(expected.finishes_at)} ({bounds})"


def format_hours(hours: Figure) -> str:
    """A length of time and its bounds."""
    expected, low, high = (format_duration(value * 3600) for value in (hours.expected, hours.low, hours.high))
    return f"{expected} ({low} to {high})"


def measured_or_estimated(*, estimated: bool) -> str:
    """Whether an intensity was measured."""
    return "estimated" if estimated else "measured"


def format_figure(figure: Figure | None) -> str:
    """An expected value and its bounds."""
    return (
        UNKNOWN
        if figure is None
        else f"{format_number(figure.expected)} ({format_number(figure.low)} to {format_number(figure.high)})"
    )
