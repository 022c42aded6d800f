"""A job's figures in words, with the digits that the dashboard shows."""

from api.figures import number, percent
from cli.remote.output import UNKNOWN, short_time
from greentune.models import Eta, Figure, Job


def emissions(job: Job) -> str:
    """What a job has emitted, and how sure that is; nothing before any energy was metered."""
    basis = job.emissions_basis
    if basis is None:
        return UNKNOWN
    guessed = " est." if basis.estimated or basis.energy_estimated else ""
    return f"{number(job.emissions_gco2e)} {basis.status}{guessed}"


def savings(job: Job) -> str:
    """The two savings apart, once the job is over."""
    if job.less_work_saving is None and job.moved_in_time_saving is None:
        return UNKNOWN
    return f"{percent(job.less_work_saving)} + {percent(job.moved_in_time_saving)}"


def eta(expected: Eta | None) -> str:
    """When a job is expected to be over, and between what bounds in nine cases of ten."""
    if expected is None:
        return UNKNOWN
    bounds = f"{short_time(expected.earliest)} to {short_time(expected.latest)}"
    return f"{short_time(expected.finishes_at)} ({bounds})"


def interval(figure: Figure | None) -> str:
    """An expected value and its bounds."""
    return UNKNOWN if figure is None else f"{number(figure.expected)} ({number(figure.low)} to {number(figure.high)})"
