"""Predicted peak memory of a job that does not exist yet, from a prepared job, beside the largest live device's."""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from greencore.hyperparameters import Hyperparameters
from greencore.policy import Policy, parse_stored_policy
from planning.compute_costs import LAYOUT_PARAMETERS, ROW_PARAMETERS
from runtime.settings import Settings
from store.repositories.workers import WorkerRepository
from store.tables import Dataset, Job

# Jobs on the same rows that agree in these, in method and in highest ρ take the same memory.
MEMORY_PARAMETERS = (
    *ROW_PARAMETERS,
    *LAYOUT_PARAMETERS,
    *("batch_size", "micro_batch_size", "precision", "optimizer", "attention", "lora", "adaptive"),
)


@dataclass(frozen=True)
class PredictedMemory:
    """Peak bytes of a step, None until an equal job was prepared, and those of the largest device of a live worker."""

    peak_bytes: int | None
    device_bytes: int | None
    basis: str


def find_predicted_memory(
    session: Session,
    settings: Settings,
    dataset: Dataset,
    *,
    model: str,
    method: str,
    policy: Policy,
    hyperparameters: Hyperparameters,
    zone: str | None,
) -> PredictedMemory:
    """Return the peak memory of the newest prepared job that takes as much; its preparation traced a step."""
    workers = WorkerRepository(session).list_live(within=timedelta(seconds=settings.lease_seconds))
    device = max(
        (worker.memory_bytes for worker in workers if worker.memory_bytes and zone in (None, worker.zone)), default=None
    )
    wanted = hyperparameters.model_dump(mode="json")
    query = (
        select(Job)
        .join(Dataset, Dataset.id == Job.dataset_id)
        .where(Dataset.blob == dataset.blob, Job.model == model, Job.method == method, Job.estimate.is_not(None))
        .order_by(Job.id.desc())
        .limit(20)
    )
    for job in session.scalars(query):
        peak = (job.estimate or {}).get("peak_memory_bytes")
        given = Hyperparameters.model_validate(job.hyperparameters).model_dump(mode="json")
        _, highest = parse_stored_policy(job.policy).rho_range
        alike = all(given[name] == wanted[name] for name in MEMORY_PARAMETERS)
        if peak is not None and alike and (method != "greentrainer" or highest == policy.rho_range[1]):
            return PredictedMemory(peak, device, "the traced step of a job with the same model, rows and settings")
    return PredictedMemory(None, device, "predicted as the job is prepared, from a traced step")
