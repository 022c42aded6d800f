"""`/jobs/{id}/cancel`, `/pause`, `/resume`, `/retry`: actions on a job."""

from datetime import datetime
from http import HTTPStatus

from fastapi import APIRouter
from sqlalchemy.orm import Session

from api.access.principal import Principal, PrincipalDep
from api.dependencies import NowDep, SessionDep
from api.http.problems import Problem, problem_responses
from api.jobs.endpoints import JobDep
from api.jobs.schemas import JobOut, jobs_out
from store.lifecycle.actions import ActionRefused, request_action
from store.lifecycle.status import Action
from store.repositories.jobs import JobRepository
from store.tables import Job

router = APIRouter(prefix="/jobs", tags=["jobs"])
REFUSALS = problem_responses(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)


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
