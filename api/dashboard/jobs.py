"""`/`: the jobs, newest first."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from api.access.principal import PrincipalDep
from api.context import SessionDep
from api.dashboard.page_tags import POLL_SECONDS, page_tag, tagged
from api.jobs.caching import IfNoneMatch, matches, not_modified
from api.jobs.schemas import jobs_out
from api.templating import render
from store.jobs import JobFilter, JobRepository
from store.status import FINAL

JOBS_ON_A_PAGE = 50

router = APIRouter()


@router.get("/")
def jobs_page(
    principal: PrincipalDep,
    session: SessionDep,
    after: Annotated[str | None, Query()] = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """It renews itself while one of the jobs shown has not ended."""
    which = JobFilter(after=after, owner=principal.scope)
    repository = JobRepository(session)
    if if_none_match is not None:
        known = repository.revisions(limit=JOBS_ON_A_PAGE, **which)
        tag = page_tag(principal, known.data, known.has_more)
        if matches(if_none_match, tag):
            return not_modified(tag)
    page = repository.page(limit=JOBS_ON_A_PAGE, **which)
    jobs = jobs_out(session, page.data)
    rendered = render(
        "jobs.html",
        title="Jobs",
        here="jobs",
        principal=principal,
        jobs=jobs,
        older=jobs[-1].id if page.has_more else None,
        poll_seconds=POLL_SECONDS if any(job.status not in FINAL for job in jobs) else None,
    )
    return tagged(rendered, page_tag(principal, [(job.id, job.revision) for job in page.data], page.has_more))
