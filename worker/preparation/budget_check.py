"""Checks before a job is queued whether its budget can be kept."""

from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from greencore.policy import Budget
from planning.budget_minimum import compute_minimum_budget
from planning.epoch_estimate import estimate_epoch
from planning.placement import list_candidate_pues
from runtime.settings import Settings
from store.repositories.jobs import get_job_policy, whole_epochs
from store.repositories.workers import WorkerRepository
from store.tables import Job


class BudgetInfeasible(ValueError):
    """A budget that the job exceeds even with every epoch at `rho_min` in the cleanest hours."""

    def __init__(self, budget_gco2e: float, smallest_gco2e: float, basis: str) -> None:
        super().__init__(
            f"given {budget_gco2e:g} gCO2e: this job emits at least {smallest_gco2e:.4g}, with every epoch at "
            f"rho_min ({basis})"
        )


def check_budget(session: Session, job: Job, settings: Settings, *, at: datetime) -> None:
    """Raise `BudgetInfeasible` where the job's policy is a budget that it cannot keep.

    The minimum has every epoch at `rho_min`, started now or in the cleanest hours that a gate may wait for; for a job
    without a requested zone, in the best zone with a worker. Where no intensity is known, no budget is refused: the
    run decides.
    """
    policy = get_job_policy(job)
    if not isinstance(policy, Budget):
        return
    workers = WorkerRepository(session).list_seen_since(since=at - timedelta(seconds=settings.lease_seconds))
    estimate = estimate_epoch(session, job, settings, device=next((worker.device for worker in workers), None))
    if estimate is None:
        return
    smallest = compute_minimum_budget(
        session,
        policy,
        estimate,
        epochs=whole_epochs(job),
        pues=list_candidate_pues(workers, settings.zones, job.zone_asked),
        deadline=job.deadline,
        at=at,
    )
    if smallest is not None and policy.budget_gco2e < smallest.certain_gco2e:
        raise BudgetInfeasible(policy.budget_gco2e, smallest.gco2e, smallest.basis)
