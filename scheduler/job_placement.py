"""Evaluates a waiting job: the zone where it would run, its gate's decision, and its ETA."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from greencore.carbon import Basis
from greencore.policy.gate.evaluate import GateDecision
from planning.device_fit import explain_unfit_devices, list_fitting_workers
from planning.epoch_estimate import estimate_epoch
from planning.eta import compute_waiting_eta, update_eta
from planning.placement import choose_zone, list_worker_zones
from runtime.settings import Settings
from runtime.site import explain_missing_worker
from scheduler.job_gate import evaluate_job_gate, is_gated
from store.repositories.jobs import whole_epochs
from store.tables import Job, Worker

log = structlog.get_logger()

GATE_NOT_EVALUATED = "the evaluation of its gate failed, and is tried again"


@dataclass(frozen=True)
class Fleet:
    """The live training workers, and the accounting basis of each zone that has a source."""

    workers: Sequence[Worker]
    bases: Mapping[str, Basis]

    def zones(self, signal: str | None = None, emission_factors: str | None = None) -> list[str]:
        """Return the zones with a live worker, filtered by signal and emission factors where given."""
        served = (zone for zone in list_worker_zones(self.workers) if zone in self.bases)
        return [
            zone
            for zone in served
            if signal in (None, self.bases[zone].signal)
            and emission_factors in (None, self.bases[zone].emission_factors)
        ]


def describe_missing_worker(job: Job, served: Collection[str]) -> str:
    """Return the reason of a job that no live worker can run; `served` are the zones that have one."""
    if job.zone_asked is not None:
        return f"waits for a worker in zone {job.zone_asked}{explain_missing_worker(served)}"
    if job.signal is None:
        return "waits for a worker: none is alive"
    factors = {None: "", "lifecycle": " with life-cycle factors"}.get(job.emission_factors, " with direct factors")
    intensity = "an average" if job.signal == "average" else f"a {job.signal}"
    return f"waits for a worker of a zone with {intensity} intensity{factors}: none is alive"


def evaluate_or_skip_job(
    session: Session, job: Job, evaluate: Callable[[], GateDecision | None]
) -> GateDecision | None:
    """Return the decision of `evaluate` for one job, or None, with the reason in the job, where it raised.

    What it wrote is rolled back then, so that one job cannot stop the others. Raises only `DBAPIError`.
    """
    try:
        with session.begin_nested():
            return evaluate()
    except DBAPIError:
        raise
    except Exception as fault:
        log.exception("job.not_looked_at", job=job.id, exc_info=fault)
        job.reason = GATE_NOT_EVALUATED
        return None


def evaluate_waiting_job(
    session: Session, job: Job, fleet: Fleet, settings: Settings, *, at: datetime
) -> GateDecision | None:
    """Place a locked job and evaluate its gate; None, with the reason in the job, where no worker could run it."""
    # A job that was priced on one basis keeps it.
    zones = fleet.zones(job.signal, job.emission_factors) if job.zone_asked is None else fleet.zones()
    possible = [one for one in fleet.workers if one.zone in zones and job.zone_asked in (None, one.zone)]
    if not possible:
        job.reason = describe_missing_worker(job, zones)
        return None
    fleet = replace(fleet, workers=list_fitting_workers(job, possible))
    if not fleet.workers:
        job.reason = explain_unfit_devices(job, possible)
        return None
    zones = fleet.zones()
    estimate = estimate_epoch(session, job, settings, device=job.device or fleet.workers[0].device)
    zone, why = job.zone_asked, "no gate"
    if zone is None and job.energy_kwh > 0 and job.zone in zones:
        zone, why = job.zone, "continues in the zone where it has run"
    if zone is None:
        placement = choose_zone(session, zones, fleet.bases, estimate, whole_epochs(job), at=at)
        assert placement is not None
        zone, why = placement.zone, placement.reason
    job.zone = zone
    if job.signal is None:
        job.signal, job.emission_factors = fleet.bases[zone].signal, fleet.bases[zone].emission_factors
    decision = GateDecision(True, None, 0.0, False, False, False, why)
    if is_gated(job):
        decision = evaluate_job_gate(session, job, estimate, settings, zone=zone, computing=False, at=at)
    gpus = sum(worker.gpus for worker in fleet.workers if worker.zone == zone)
    update_eta(job, compute_waiting_eta(session, job, estimate, gpus=gpus, at=at))
    return decision
