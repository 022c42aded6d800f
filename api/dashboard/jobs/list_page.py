"""`/`: the jobs that match the URL's filter, newest first."""

from datetime import datetime
from http import HTTPStatus

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy.orm import Session

from api.access.principal import PrincipalDep
from api.charts import loss_curves
from api.dashboard.jobs.list_filter import LABEL_FIELD, read_filter
from api.dashboard.jobs.list_rows import Totals, build_rows
from api.dashboard.page_tags import POLL_SECONDS, page_etag, with_etag
from api.dependencies import AppContext, AppContextDep, NowDep, SessionDep
from api.http.content_negotiation import prefers_html
from api.http.etags import IfNoneMatch, matches_etag, not_modified_response
from api.http.problems import invalid_fields
from api.jobs.schemas import jobs_out
from api.templating import render_page
from runtime.site import UNKNOWN_ZONE
from store.intensity.readings import GridRepository
from store.lifecycle.status import FINAL, JobStatus
from store.repositories.jobs import MAX_OPEN_COUNT, JobRepository
from store.tables import IntensityReading

JOBS_ON_A_PAGE = 50
IDLE_POLL_SECONDS = 20  # where all jobs shown are over: new ones are submitted, and emissions are settled

router = APIRouter()


@router.get("/")
def jobs_page(
    request: Request,
    principal: PrincipalDep,
    context: AppContextDep,
    session: SessionDep,
    now: NowDep,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Render the jobs; the page polls less often where all of them are over."""
    asked = read_filter(request.query_params.multi_items())
    if asked.errors and not prefers_html(request):
        raise invalid_fields(asked.errors)
    shown = asked.filter
    if asked.needs_redirect and not asked.errors:
        return RedirectResponse(shown.link, HTTPStatus.SEE_OTHER)
    repository = JobRepository(session)
    which = shown.to_store(owner=principal.owner_filter)
    readings = _readings(session, context, now)
    counts = JobRepository(session).count_open(owner=principal.owner_filter)
    tag_parts = [
        shown.link,
        counts,
        [[zone, r.start.isoformat(), r.gco2e_per_kwh, r.estimated] for zone, r in readings.items()],
    ]
    if if_none_match is not None and not asked.errors:
        known = repository.revisions(limit=JOBS_ON_A_PAGE, **which)
        tag = page_etag(principal, *tag_parts, known.data, known.has_more)
        if matches_etag(if_none_match, tag):
            return not_modified_response(tag)
    values = {
        "title": "Jobs",
        "here": "jobs",
        "principal": principal,
        "filter": shown,
        "errors": {error.field: error.message for error in asked.errors},
        "label_field": LABEL_FIELD,
        "statuses": list(JobStatus),
        "zones": [*sorted(context.settings.zones), UNKNOWN_ZONE],
        "counts": counts,
        "most": MAX_OPEN_COUNT,
    }
    if asked.errors:
        refused = render_page("jobs.html", **values, rows=[], older=None, poll_seconds=None)
        refused.status_code = HTTPStatus.UNPROCESSABLE_ENTITY
        return refused
    page = repository.page(limit=JOBS_ON_A_PAGE, **which)
    jobs = jobs_out(session, page.data)
    curves = loss_curves(session, [job.id for job in jobs])
    rendered = render_page(
        "jobs.html",
        **values,
        rows=build_rows(jobs, readings, curves, now=now),
        totals=Totals.of(jobs),
        older=shown.older_link(jobs[-1].id) if page.has_more else None,
        poll_seconds=POLL_SECONDS if any(job.status not in FINAL for job in jobs) else IDLE_POLL_SECONDS,
    )
    return with_etag(
        rendered, page_etag(principal, *tag_parts, [(job.id, job.revision) for job in page.data], page.has_more)
    )


def _readings(session: Session, context: AppContext, now: datetime) -> dict[str, IntensityReading]:
    """Return the newest reading of each zone that has one within the stale limit."""
    found = GridRepository(session).newest_readings([*sorted(context.settings.zones), UNKNOWN_ZONE], at=now)
    return {zone: found[zone] for zone in sorted(found) if found[zone].end + context.settings.stale_limit >= now}
