"""`/jobs/{id}/checkpoints`: what a job would go on from."""

from datetime import datetime

from fastapi import APIRouter
from pydantic import BaseModel, Field

from api.dependencies import SessionDep
from api.http.pagination import Listing, complete_listing
from api.jobs.endpoints import NOT_FOUND, JobDep
from store.lifecycle.checkpoints import list_job_checkpoints
from store.tables import Checkpoint

router = APIRouter(prefix="/jobs", tags=["jobs"])


class CheckpointOut(BaseModel):
    """A checkpoint that is complete on disk."""

    name: str
    attempt: int = Field(description="Of the worker that wrote it")
    step: int = Field(description="Optimiser steps done by then")
    epochs_done: int
    bytes: int
    created_at: datetime

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "CheckpointOut":
        """As recorded."""
        return cls(
            name=checkpoint.name,
            attempt=checkpoint.attempt,
            step=checkpoint.step,
            epochs_done=checkpoint.epochs_done,
            bytes=checkpoint.bytes,
            created_at=checkpoint.created_at,
        )


@router.get("/{job_id}/checkpoints", summary="The checkpoints of a job, newest first", responses=NOT_FOUND)
def list_checkpoints(job: JobDep, session: SessionDep) -> Listing[CheckpointOut]:
    """Of the last ones, since older ones are removed; the first listed is the one that a worker would go on from."""
    return complete_listing([CheckpointOut.of(checkpoint) for checkpoint in list_job_checkpoints(session, job.id)])
