"""Whether a budget can be kept at all, before a job is queued."""

from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from greencore.carbon import NoReading
from greencore.carbon.counterfactuals import cleanest_mean
from greencore.policy import Budget
from store.grid import GridRepository
from store.jobs import policy_of
from store.pace import Pace, pace
from store.settings import Settings
from store.tables import Job
from store.workers import WorkerRepository

HOUR = timedelta(hours=1)
# What is assumed of a device that has not run anything may be wrong by as much.
DOUBT = 10.0


class BudgetImpossible(ValueError):
    """A budget that every epoch at `rho_min` in the best hours would exceed.

    `.smallest_gco2e` is the smallest that could be kept.
    """

    def __init__(self, budget_gco2e: float, smallest_gco2e: float, basis: str) -> None:
        super().__init__(
            f"given {budget_gco2e:g} gCO2e: this job emits {smallest_gco2e:.4g} at the least, with every epoch at "
            f"rho_min ({basis})"
        )
        self.smallest_gco2e = smallest_gco2e


def check_budget(session: Session, job: Job, settings: Settings, *, at: datetime) -> None:
    """Raises BudgetImpossible where the job's policy is a budget that it cannot keep; does nothing otherwise.

    The least is every epoch at `rho_min`, begun now, or in the cleanest hours that a gate may wait for; of a job that
    leaves its zone open, in the best zone. Where no intensity is known of any, nothing is refused: the run decides.
    """
    policy = policy_of(job)
    if not isinstance(policy, Budget):
        return
    workers = WorkerRepository(session).alive(since=at - timedelta(seconds=settings.lease_seconds))
    expected = pace(session, job, settings, device=next((worker.device for worker in workers), None))
    if expected is None:
        return
    zones = [job.zone_asked] if job.zone_asked is not None else list(settings.zones)
    hours = expected.epoch_hours * job.epochs * policy.rho_min
    span = hours
    if policy.gate.mode != "none":
        span = (job.deadline - at) / HOUR if job.deadline is not None else hours + policy.gate.max_delay_hours
    found = [least for zone in zones if (least := _least(session, zone, at, hours, max(span, hours))) is not None]
    if not found:
        return
    smallest = min(found) * expected.epoch_kwh * job.epochs * policy.rho_min * settings.pue
    if policy.budget_gco2e < (smallest / DOUBT if expected.assumed else smallest):
        raise BudgetImpossible(policy.budget_gco2e, smallest, _basis(expected, min(found)))


def _least(session: Session, zone: str, at: datetime, hours: float, span: float) -> float | None:
    """The lowest mean intensity that `hours` of computing within `span` hours can have; None where none is known."""
    grid = GridRepository(session)
    signal = grid.signal(zone)
    if signal is None:
        return None
    end = at + span * HOUR
    outlook = grid.knowledge(zone, signal, at, end).outlook_or_newest(at)
    try:
        return cleanest_mean(outlook, at, end, hours).gco2e_per_kwh if hours > 0 else None
    except NoReading:
        return None


def _basis(expected: Pace, intensity: float) -> str:
    return f"{intensity:.4g} gCO2e/kWh; {expected.epoch_kwh:.4g} kWh an epoch at ρ = 1, from {expected.basis}"
