"""The methods that the paper compares with, which have no ρ: what their epochs say in a decision's place."""

from dataclasses import replace

from greencore.policy import RhoDecision
from store.tables import Job

TRAINED_PARTS = {
    "full": "every tensor",
    "lora": "its adapter",
    "prefix": "its prefix",
    "top2": "the output embedding and the last normalisation",
    "bitfit": "the biases",
}


def fixed_method_decision(job: Job, decision: RhoDecision) -> RhoDecision:
    """The decision as it is for "greentrainer"; for another method with the share of full FLOPs that it costs as ρ.

    The share is what preparing the job reckoned; the intensity stays that of the decision.
    """
    if job.method == "greentrainer":
        return decision
    estimate = job.estimate or {}
    spent, full = estimate.get("method_flops"), estimate.get("full_flops")
    rho = spent / full if spent and full else 1.0
    known = decision.intensity_gco2e_per_kwh
    about = "" if known is None else f"{known:.6g} gCO2e/kWh ({decision.source}); "
    reason = f"{about}{job.method} trains {TRAINED_PARTS.get(job.method, 'a fixed part')}, and no ρ is set"
    return replace(decision, rho=rho, reason=reason, ends_run=False)
