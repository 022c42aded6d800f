"""`/jobs/{id}/checkpoints`: checkpoints from which a job can continue."""

from datetime import datetime

from fastapi import APIRouter
from pydantic import Field

from api.dependencies import SessionDep
from api.http.pagination import Listing, complete_listing
from api.jobs.endpoints import NOT_FOUND, JobDep
from api.row_model import RowModel
from store.lifecycle.checkpoints import list_job_checkpoints

router = APIRouter(prefix="/jobs", tags=["jobs"])


class CheckpointOut(RowModel):
    """A checkpoint that is complete on disk."""

    name: str
    attempt: int = Field(description="Attempt that wrote it")
    step: int = Field(description="Optimiser steps done when it was written")
    epochs_done: int
    bytes: int
    created_at: datetime


@router.get("/{job_id}/checkpoints", summary="List a job's checkpoints, newest first", responses=NOT_FOUND)
def list_checkpoints(job: JobDep, session: SessionDep) -> Listing[CheckpointOut]:
    """Only the last ones, since older ones are removed; a worker would continue from the first one listed."""
    return complete_listing(
        [CheckpointOut.from_row(checkpoint) for checkpoint in list_job_checkpoints(session, job.id)]
    )
