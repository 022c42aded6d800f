"""Checks a job's emission budget: one that is certainly too small is refused, any other is reported on."""

from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from api.http.problems import invalid_field
from api.jobs.estimate.placement import predict_placement
from api.jobs.estimate.schemas import BudgetOut
from greencore.policy import Budget, Policy, parse_stored_policy
from greencore.settings.hyperparameters import Hyperparameters
from planning.budget_minimum import MinimumBudget, compute_minimum_budget
from planning.compute_costs import EpochWorkload, WorkloadUnknown, estimate_workload
from planning.epoch_estimate import EpochEstimate
from planning.method_budget import find_certain_method
from planning.placement import list_candidate_pues
from runtime.settings import Settings
from store.repositories.datasets import DatasetRepository
from store.repositories.jobs import NewJob
from store.repositories.workers import WorkerRepository


def refuse_impossible_budget(session: Session, settings: Settings, new: NewJob, *, at: datetime) -> None:
    """Raise the 422 that names the smallest feasible budget if the given one is certainly too small.

    Certain requires a measured epoch estimate, and rows that were tokenised as this job tokenises them.
    """
    policy = parse_stored_policy(new.policy)
    if find_certain_method(new.method, policy) != "greentrainer" or not isinstance(policy, Budget):
        return
    new = replace(new, method="greentrainer")
    try:
        epoch_workload = estimate_job_workload(session, new)
    except WorkloadUnknown:
        return
    _, epoch_estimate = predict_placement(session, settings, new, policy, epoch_workload, at=at)
    smallest = _smallest_budget(session, settings, new, policy, epoch_workload, epoch_estimate, at)
    if smallest is None or not epoch_workload.exact or epoch_estimate.assumed:
        return
    if policy.budget_gco2e < smallest.gco2e / (epoch_workload.spread * epoch_estimate.spread):
        message = (
            f"given {policy.budget_gco2e:g}: the smallest that can be kept is {smallest.gco2e:.4g} ({smallest.basis})"
        )
        if new.policy_name is not None:
            raise invalid_field("policy", f"budget_gco2e of {new.policy_name!r}: {message}")
        raise invalid_field("policy.budget_gco2e", message)


def budget_out(
    session: Session,
    settings: Settings,
    new: NewJob,
    policy: Policy,
    epoch_workload: EpochWorkload,
    epoch_estimate: EpochEstimate,
    *,
    at: datetime,
) -> BudgetOut | None:
    """Return the feasibility of the policy's budget; None for a policy without one."""
    if not isinstance(policy, Budget):
        return None
    given = policy.budget_gco2e
    smallest = _smallest_budget(session, settings, new, policy, epoch_workload, epoch_estimate, at)
    if smallest is None:
        basis = "no reading of any zone is stored yet"
        return BudgetOut(given_gco2e=given, smallest_gco2e=None, can_be_kept=None, basis=basis)
    doubt = epoch_workload.spread * epoch_estimate.spread
    certain = not smallest.gco2e / doubt <= given < smallest.gco2e * doubt
    return BudgetOut(
        given_gco2e=given,
        smallest_gco2e=smallest.gco2e,
        can_be_kept=given >= smallest.gco2e if certain else None,
        basis=smallest.basis if certain else f"too close to tell: {smallest.basis}",
    )


def estimate_job_workload(session: Session, new: NewJob) -> EpochWorkload:
    """Estimate the work of one epoch of a validated submission. Raises `WorkloadUnknown`."""
    dataset = DatasetRepository(session).get(new.dataset_id)
    assert dataset is not None
    return estimate_workload(
        session, dataset, new.model, new.method, Hyperparameters.model_validate(new.hyperparameters)
    )


def _smallest_budget(
    session: Session,
    settings: Settings,
    new: NewJob,
    policy: Budget,
    epoch_workload: EpochWorkload,
    epoch_estimate: EpochEstimate,
    at: datetime,
) -> MinimumBudget | None:
    workers = WorkerRepository(session).list_seen_since(since=at - timedelta(seconds=settings.lease_seconds))
    pues = list_candidate_pues(workers, settings.zones, new.zone)
    return compute_minimum_budget(
        session,
        policy,
        epoch_estimate,
        epochs=epoch_workload.length.whole_epochs,
        pues=pues,
        deadline=new.deadline,
        at=at,
    )
