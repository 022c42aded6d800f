"""`/jobs`: submit a run, and read how it fares."""

import re
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from api.access.principal import PrincipalDep
from api.context import ContextDep, NowDep, SessionDep
from api.jobs.request import JobRequest
from api.jobs.schemas import EpochOut, EventOut, JobOut, jobs_out
from api.jobs.submission import check
from api.listing import Limit, Listing, whole
from api.listing import listing as as_listing
from api.problems import Problem, declared
from store.jobs import JobRepository
from store.status import JobStatus
from store.tables import Job

METADATA_FILTER = re.compile(r"metadata\[(.+)\]")
METADATA_PARAMETER = {
    "name": "metadata",
    "in": "query",
    "style": "deepObject",
    "explode": True,
    "description": "Only jobs whose metadata hold all of these, as in `?metadata[team]=speech`",
    "schema": {"type": "object", "additionalProperties": {"type": "string"}},
}

router = APIRouter(prefix="/jobs", tags=["jobs"])


def _job(job_id: str, principal: PrincipalDep, session: SessionDep) -> Job:
    job = JobRepository(session).get(job_id)
    if job is None or not principal.sees(job.owner):
        raise Problem(HTTPStatus.NOT_FOUND, f"there is no job {job_id!r}")
    return job


JobDep = Annotated[Job, Depends(_job)]
NOT_FOUND = declared(HTTPStatus.NOT_FOUND)


@router.post("", status_code=HTTPStatus.CREATED, summary="Submit a fine-tuning run")
def create_job(
    request: JobRequest,
    response: Response,
    principal: PrincipalDep,
    context: ContextDep,
    session: SessionDep,
    now: NowDep,
) -> JobOut:
    """Answered as soon as the job is stored; preparing it, and waiting for a green hour, come after."""
    new = check(request, principal=principal, context=context, session=session, now=now)
    job = JobRepository(session).add(new, at=now)
    response.headers["Location"] = f"/jobs/{job.id}"
    return JobOut.of_job(job, None)


@router.get("", summary="The jobs, newest first", openapi_extra={"parameters": [METADATA_PARAMETER]})
def list_jobs(
    request: Request,
    principal: PrincipalDep,
    session: SessionDep,
    status: JobStatus | None = None,
    zone: str | None = None,
    limit: Limit = 50,
    after: Annotated[str | None, Query(description="Only those older than this id")] = None,
) -> Listing[JobOut]:
    """All filters have to hold."""
    labels = {
        match[1]: value
        for name, value in request.query_params.multi_items()
        if (match := METADATA_FILTER.fullmatch(name))
    }
    page = JobRepository(session).page(
        limit=limit, after=after, owner=principal.scope, status=status, zone=zone, labels=labels
    )
    return Listing(data=jobs_out(session, page.data), has_more=page.has_more)


@router.get("/{job_id}", summary="One job", responses=NOT_FOUND)
def get_job(job: JobDep, session: SessionDep) -> JobOut:
    """Its progress, its gate, its ρ, its energy and emissions; what it saved and its evaluation once it has ended."""
    return jobs_out(session, [job])[0]


@router.get("/{job_id}/epochs", summary="What each epoch did, why, and at what cost", responses=NOT_FOUND)
def list_epochs(job: JobDep, session: SessionDep) -> Listing[EpochOut]:
    """All of them at once, in order."""
    jobs = JobRepository(session)
    costs = jobs.epoch_costs(job.id)
    return whole([EpochOut.of(epoch, costs.get(epoch.number)) for epoch in jobs.epochs(job.id)])


@router.get("/{job_id}/events", summary="A job's history, newest first", responses=NOT_FOUND)
def list_events(
    job: JobDep,
    session: SessionDep,
    limit: Limit = 50,
    after: Annotated[int | None, Query(ge=0, lt=2**63, description="Only those older than this id")] = None,
) -> Listing[EventOut]:
    """One event for each change of status, and for each thing worth telling in between."""
    return as_listing(JobRepository(session).events(job.id, limit=limit, after=after), EventOut.of)
