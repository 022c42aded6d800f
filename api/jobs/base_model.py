"""Resolves the `model` of a submission: a name in the catalogue, or a finished job whose result is trained further."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from api.access.principal import Principal
from api.dependencies import AppContext
from api.http.problems import join_names
from store.lifecycle.status import FINAL, JobStatus
from store.repositories.lineage import MAX_LINEAGE, LineageRepository, ResultRemoved
from store.tables import Job

JOB_PREFIX = "job_"


@dataclass(frozen=True)
class ModelChoice:
    """Name in the catalogue of the model that is trained, and the job whose result of it is trained further."""

    name: str
    job_id: str | None = None


class ModelRefused(ValueError):
    """The model of a submission cannot be trained; the message gives the reason."""


def resolve_model(given: str, *, principal: Principal, context: AppContext, session: Session) -> ModelChoice:
    """Return the model of a submission. Raises `ModelRefused`.

    The results that a job's model is built from are locked against removal until the transaction ends.
    """
    if given in context.catalogue:
        return ModelChoice(given)
    if not given.startswith(JOB_PREFIX):
        raise ModelRefused(f"{given!r} is not in the catalogue: known are {join_names(context.catalogue)}")
    lineage = LineageRepository(session)
    job = session.get(Job, given)
    if job is None or not principal.can_read(job.owner):
        raise ModelRefused(f"there is no job {given!r}")
    if (reason := _explain_unusable(job)) is not None:
        raise ModelRefused(reason)
    if job.model not in context.catalogue:
        raise ModelRefused(f"{given} has trained {job.model!r}, which is no longer in the catalogue")
    if len(lineage.list_bases(job)) + 1 >= MAX_LINEAGE:
        raise ModelRefused(f"{given} is the last of {MAX_LINEAGE} jobs in a row, and no more can follow")
    try:
        lineage.lock_needed_results(job)
    except ResultRemoved as removed:
        needed = "" if removed.job_id == given else f", and the result of {given} is only what changed since"
        raise ModelRefused(f"{removed}{needed}") from removed
    return ModelChoice(job.model, given)


def _explain_unusable(job: Job) -> str | None:
    """Return why a job's result cannot be trained further, by its status and method; its files are not checked.

    None where it can be.
    """
    if job.status is not JobStatus.SUCCEEDED:
        if job.status in FINAL:
            return f"{job.id} is {job.status}, so it has no result"
        return f"{job.id} is {job.status}: its result can be used once it has succeeded"
    if job.method == "prefix":
        return f"{job.id} has trained a prefix, which is not part of the model's weights and cannot be trained further"
    return None
