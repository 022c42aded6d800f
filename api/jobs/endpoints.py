"""`/jobs`: submits jobs, lists them, returns a job with its epochs and checkpoints, and acts on it."""

import re
from datetime import datetime
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy.orm import Session

from api.access.principal import Principal, PrincipalDep
from api.dependencies import AppContextDep, NowDep, SessionDep
from api.http.etags import CACHED_RESPONSES, RevalidationDep
from api.http.idempotency import IdempotentRequestDep, created_responses
from api.http.pagination import Id, Limit, Listing, OlderThan, complete_listing, to_listing
from api.http.problems import Problem, invalid_field, problem_responses
from api.jobs.budget_check import refuse_impossible_budget
from api.jobs.history.epoch_schemas import EpochOut
from api.jobs.request import LONGEST_METADATA, MAX_METADATA, JobRequest
from api.jobs.schemas import CheckpointOut, JobOut, job_etag, job_list_etag, jobs_out
from api.jobs.submission import validate_submission
from store.lifecycle.actions import ActionRefused, request_action
from store.lifecycle.checkpoints import list_job_checkpoints
from store.lifecycle.status import Action, JobStatus
from store.repositories.jobs import JobFilter, JobRepository
from store.tables import Job

METADATA_FILTER = re.compile(r"metadata\[(.+)\]")
METADATA_PARAMETER = {
    "name": "metadata",
    "in": "query",
    "style": "deepObject",
    "explode": True,
    "description": "Only jobs whose metadata contain all of these, such as `?metadata[team]=speech`",
    "schema": {
        "type": "object",
        "maxProperties": MAX_METADATA,
        "additionalProperties": {"type": "string", "maxLength": LONGEST_METADATA},
    },
}

router = APIRouter(prefix="/jobs", tags=["jobs"])


def _job(job_id: Id, principal: PrincipalDep, session: SessionDep) -> Job:
    return principal.require_readable(JobRepository(session).get(job_id), f"job {job_id!r}")


JobDep = Annotated[Job, Depends(_job)]
NOT_FOUND = problem_responses(HTTPStatus.NOT_FOUND)
REFUSALS = problem_responses(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)


@router.post(
    "", status_code=HTTPStatus.CREATED, summary="Submit a fine-tuning run", responses=created_responses(JobOut)
)
def create_job(
    request: JobRequest,
    idempotent_request: IdempotentRequestDep,
    principal: PrincipalDep,
    context: AppContextDep,
    session: SessionDep,
    now: NowDep,
) -> Response:
    """Responds as soon as the job is stored; preparing it and waiting for its gate follow."""
    if (first := idempotent_request.stored_response()) is not None:
        return first
    new = validate_submission(request, principal=principal, context=context, session=session, now=now)
    refuse_impossible_budget(session, context.settings, new, at=now)
    job = JobRepository(session).add(new, at=now)
    return idempotent_request.respond(
        JobOut.of_job(job, None), status=HTTPStatus.CREATED, headers={"Location": f"/jobs/{job.id}"}
    )


@router.get(
    "",
    summary="List jobs, newest first",
    responses={**problem_responses(HTTPStatus.FORBIDDEN), **CACHED_RESPONSES},
    openapi_extra={"parameters": [METADATA_PARAMETER]},
)
def list_jobs(
    request: Request,
    principal: PrincipalDep,
    session: SessionDep,
    revalidation: RevalidationDep,
    status: Annotated[JobStatus | None, Query(description="Only jobs with this status")] = None,
    zone: Annotated[Id | None, Query(description="Only jobs in this zone")] = None,
    name: Annotated[Id | None, Query(description="Only jobs with exactly this name")] = None,
    model: Annotated[Id | None, Query(description="Only jobs of this model")] = None,
    owner: Annotated[Id | None, Query(description="Only jobs of this owner; for operators")] = None,
    limit: Limit = 50,
    after: OlderThan = None,
) -> Listing[JobOut]:
    """Only jobs that match all filters."""
    labels = {
        match[1]: value
        for key, value in request.query_params.multi_items()
        if (match := METADATA_FILTER.fullmatch(key))
    }
    if len(labels) > MAX_METADATA or any(len(value) > LONGEST_METADATA for value in labels.values()):
        expected = f"expected at most {MAX_METADATA} of them, each of at most {LONGEST_METADATA} characters"
        raise invalid_field("metadata", f"more than a job can have: {expected}")
    which = JobFilter(
        after=after,
        owner=principal.filter_owner(owner),
        status=status,
        zone=zone,
        name=name,
        model=model,
        labels=labels,
    )
    jobs = JobRepository(session)
    if revalidation.has_copy:
        known = jobs.revisions(limit=limit, **which)
        revalidation.check(job_list_etag(known.data, has_more=known.has_more))
    page = jobs.page(limit=limit, **which)
    revalidation.check(job_list_etag([(job.id, job.revision) for job in page.data], has_more=page.has_more))
    return Listing(data=jobs_out(session, page.data), has_more=page.has_more)


@router.get("/{job_id}", summary="Get a job", responses={**NOT_FOUND, **CACHED_RESPONSES})
def get_job(job_id: Id, principal: PrincipalDep, session: SessionDep, revalidation: RevalidationDep) -> JobOut:
    """Progress, gate, ρ, energy and emissions; savings and evaluation once the job has ended."""
    if revalidation.has_copy:
        revision = JobRepository(session).revision(job_id)
        if revision is not None and principal.can_read(revision.owner):
            revalidation.check(job_etag(revision.number))
    job = _job(job_id, principal, session)
    revalidation.check(job_etag(job.revision))
    return jobs_out(session, [job])[0]


@router.get("/{job_id}/epochs", summary="List a job's epochs with their decisions and costs", responses=NOT_FOUND)
def list_epochs(
    job: JobDep,
    session: SessionDep,
    limit: Limit = 200,
    after: Annotated[int, Query(ge=0, lt=2**31, description="Only epochs after this number")] = 0,
) -> Listing[EpochOut]:
    """In ascending order."""
    jobs = JobRepository(session)
    page = jobs.epoch_page(job.id, limit=limit, after=after)
    costs = jobs.epoch_costs(job.id, epochs=[epoch.number for epoch in page.data])
    return to_listing(page, lambda epoch: EpochOut.of(epoch, costs.get(epoch.number)))


@router.get("/{job_id}/checkpoints", summary="List a job's checkpoints, newest first", responses=NOT_FOUND)
def list_checkpoints(job: JobDep, session: SessionDep) -> Listing[CheckpointOut]:
    """Only the last ones, since older ones are removed; a worker would continue from the first one listed."""
    return complete_listing(
        [CheckpointOut.from_row(checkpoint) for checkpoint in list_job_checkpoints(session, job.id)]
    )


@router.post("/{job_id}/cancel", status_code=HTTPStatus.ACCEPTED, summary="Cancel a job", responses=REFUSALS)
def cancel_job(job: JobDep, principal: PrincipalDep, session: SessionDep, now: NowDep) -> JobOut:
    """Its worker stops at the next step, and is terminated if it does not; without a worker the job ends at once."""
    return _request_action(session, job, Action.CANCEL, principal, now)


@router.post("/{job_id}/pause", status_code=HTTPStatus.ACCEPTED, summary="Pause a job", responses=REFUSALS)
def pause_job(job: JobDep, principal: PrincipalDep, session: SessionDep, now: NowDep) -> JobOut:
    """The job's worker saves a checkpoint first. The deadline stays the same."""
    return _request_action(session, job, Action.PAUSE, principal, now)


@router.post("/{job_id}/resume", status_code=HTTPStatus.ACCEPTED, summary="Resume a paused job", responses=REFUSALS)
def resume_job(job: JobDep, principal: PrincipalDep, session: SessionDep, now: NowDep) -> JobOut:
    """The job continues from its last checkpoint; its gate plans again, and may wait as long as before."""
    return _request_action(session, job, Action.RESUME, principal, now)


@router.post("/{job_id}/retry", status_code=HTTPStatus.ACCEPTED, summary="Retry a job", responses=REFUSALS)
def retry_job(job: JobDep, principal: PrincipalDep, session: SessionDep, now: NowDep) -> JobOut:
    """A failed or cancelled job continues from its last checkpoint, and keeps its energy and emissions."""
    return _request_action(session, job, Action.RETRY, principal, now)


def _request_action(session: Session, job: Job, action: Action, principal: Principal, now: datetime) -> JobOut:
    locked = JobRepository(session).lock(job.id)
    assert locked is not None, "jobs are never deleted"
    try:
        request_action(session, locked, action, by=principal.owner, at=now)
    except ActionRefused as refused:
        raise Problem(HTTPStatus.CONFLICT, str(refused)) from refused
    return jobs_out(session, [locked])[0]
