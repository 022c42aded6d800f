"""`/jobs/{id}/evaluations`: the evaluations of a job during training."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from api.dependencies import SessionDep
from api.http.pagination import Limit, Listing, to_listing
from api.jobs.endpoints import NOT_FOUND, JobDep
from api.row_model import RowModel
from store.repositories.jobs import JobRepository
from store.tables import Evaluation

router = APIRouter(prefix="/jobs/{job_id}", tags=["jobs"], responses=NOT_FOUND)


class RougeOut(RowModel):
    """Mean ROUGE F1 in per cent of the completions of a sample of the held-out rows, the same in each evaluation."""

    rouge1: float
    rouge2: float
    rouge_l: float
    rows: int


class EvaluationOut(RowModel):
    """One evaluation on the held-out rows. All but the loss are null for jobs of earlier versions."""

    step: int = Field(description="Optimiser steps done when it was made")
    epoch: float = Field(description="Epochs done, a fraction within one")
    at: datetime
    loss: float = Field(description="Loss of a held-out token, in nats")
    accuracy: float | None = Field(description="Share of the learned tokens that the model ranks first, in [0, 1]")
    rouge: RougeOut | None = Field(description="Null where no held-out row has a prompt")
    rows: int | None = Field(description="Held-out rows")
    seconds: float | None
    energy_kwh: float | None = Field(description="Energy that the evaluation used; part of the job's")
    best: bool = Field(description="Whether its loss is the lowest so far")

    @classmethod
    def of(cls, row: Evaluation, *, best_step: int | None) -> "EvaluationOut":
        """Build from a row; `best_step` is that of the job's best evaluation."""
        rouge = None
        if row.rouge1 is not None:
            rouge = RougeOut.from_row(row, rows=row.rouge_rows)
        return cls.from_row(row, rouge=rouge, best=row.step == best_step)


@router.get("/evaluations", summary="List a job's evaluations during training")
def list_evaluations(
    job: JobDep,
    session: SessionDep,
    limit: Limit = 200,
    after: Annotated[int, Query(ge=0, lt=2**31, description="Only evaluations after this step")] = 0,
) -> Listing[EvaluationOut]:
    """In ascending order of their step; those before and after training are in the job's `evaluation`."""
    page = JobRepository(session).evaluation_page(job.id, limit=limit, after=after)
    best_step = job.best["step"] if job.best else None
    return to_listing(page, lambda row: EvaluationOut.of(row, best_step=best_step))
