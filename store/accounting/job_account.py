"""Computes the counterfactual emissions of a finished job, and attributes its savings to their causes."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from sqlalchemy.orm import Session

from greencore.carbon import NoReading
from greencore.carbon.accounting.counterfactuals import Counterfactual, estimate_counterfactuals
from greencore.carbon.accounting.run_parts import total_hours
from greencore.carbon.accounting.savings import attribute_savings
from runtime.settings import Settings
from store.accounting.emissions import EmissionsRepository
from store.accounting.work_breakdown import attribute_energy
from store.intensity.readings import GridRepository, get_job_basis
from store.lifecycle.status import JobStatus
from store.tables import Job


def compute_counterfactuals(session: Session, job: Job, settings: Settings) -> dict[str, Any]:
    """Return counterfactuals and savings by name, for `jobs.counterfactuals`; or the reason that they are `missing`."""
    begins, ends = job.ready_at or job.created_at, job.finished_at
    if job.status is not JobStatus.SUCCEEDED:
        return _missing(f"the job {_describe_end(job)} without a result, so there is nothing to compare")
    unpriced_kwh = EmissionsRepository(session).get_unpriced_energy(job.id).energy_kwh
    if unpriced_kwh > 0:
        return _missing(f"{unpriced_kwh:.4g} of its {job.energy_kwh:.4g} kWh have no price, so nothing can be compared")
    attribution = attribute_energy(session, job)
    if (
        ends is None
        or attribution.flops_share is None
        or not any(part.in_epoch and part.hours > 0 for part in attribution.parts)
    ):
        return _missing("no epoch was finished, so there is nothing to compare")
    if job.zone is None:
        return _missing("its zone is unknown")
    ends = max(ends, begins)
    longest = begins + timedelta(hours=total_hours(attribution.parts) / min(1.0, attribution.flops_share))
    until = max(ends, longest, job.deadline or ends, begins + timedelta(seconds=1))
    series = GridRepository(session).series_with_fallback(job.zone, get_job_basis(job), begins, until, settings)
    try:
        estimates = estimate_counterfactuals(
            attribution.parts,
            share=attribution.flops_share,
            earliest_start=begins,
            deadline=job.deadline,
            finished=ends,
            series=series,
        )
        saved = attribute_savings(
            attribution.parts,
            full_gco2e=estimates[0].emissions_gco2e,
            earliest_start=begins,
            series=series,
            gate_gco2e=attribution.gate_gco2e,
            lost_gco2e=attribution.lost_gco2e,
        )
    except NoReading as error:
        return _missing(str(error))
    return {
        **{estimate.name: _to_json(estimate) for estimate in estimates},
        **{f"{name}_saving": share for name, share in asdict(saved).items()},
    }


def _missing(why: str) -> dict[str, Any]:
    return {"missing": why}


def _describe_end(job: Job) -> str:
    return "was cancelled" if job.status is JobStatus.CANCELLED else "failed"


def _to_json(estimate: Counterfactual) -> Mapping[str, Any]:
    return {**asdict(estimate), "start": estimate.start.isoformat(), "end": estimate.end.isoformat()}
