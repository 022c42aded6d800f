"""`/`: the jobs that match the URL's filter, newest first."""

from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from api.charts import loss_curves
from api.dashboard.jobs.list_filter import LABEL_FIELD, read_filter
from api.dashboard.jobs.list_rows import Totals, build_rows
from api.dashboard.page import POLL_SECONDS, Page, PageDep
from api.http.content_negotiation import prefers_html
from api.http.problems import invalid_fields
from api.jobs.schemas import jobs_out
from runtime.site import UNKNOWN_ZONE
from store.intensity.readings import GridRepository
from store.lifecycle.status import FINAL, JobStatus
from store.repositories.jobs import MAX_OPEN_COUNT, JobRepository
from store.tables import IntensityReading

JOBS_ON_A_PAGE = 50
IDLE_POLL_SECONDS = 20  # where all jobs shown are over: new ones are submitted, and emissions are settled

router = APIRouter()


@router.get("/")
def jobs_page(request: Request, page: PageDep) -> Response:
    """Render the jobs; the page polls less often where all of them are over."""
    asked = read_filter(request.query_params.multi_items())
    if asked.errors and not prefers_html(request):
        raise invalid_fields(asked.errors)
    shown = asked.filter
    if asked.needs_redirect and not asked.errors:
        return RedirectResponse(shown.link, HTTPStatus.SEE_OTHER)
    repository, owner = JobRepository(page.session), page.principal.owner_filter
    which = shown.to_store(owner=owner)
    readings = _readings(page)
    counts = repository.count_open(owner=owner)
    shown_readings = [[zone, r.start.isoformat(), r.gco2e_per_kwh, r.estimated] for zone, r in readings.items()]
    tag_parts = [shown.link, counts, shown_readings]
    if page.if_none_match is not None and not asked.errors:
        known = repository.revisions(limit=JOBS_ON_A_PAGE, **which)
        page.check_etag(*tag_parts, known.data, known.has_more)
    values: dict[str, Any] = {
        "title": "Jobs",
        "here": "jobs",
        "filter": shown,
        "errors": {error.field: error.message for error in asked.errors},
        "label_field": LABEL_FIELD,
        "statuses": list(JobStatus),
        "zones": [*sorted(page.context.settings.zones), UNKNOWN_ZONE],
        "counts": counts,
        "most": MAX_OPEN_COUNT,
    }
    if asked.errors:
        status = HTTPStatus.UNPROCESSABLE_ENTITY
        return page.render("jobs.html", **values, status=status, rows=[], older=None, poll_seconds=None)
    found = repository.page(limit=JOBS_ON_A_PAGE, **which)
    page.check_etag(*tag_parts, [(job.id, job.revision) for job in found.data], found.has_more)
    jobs = jobs_out(page.session, found.data)
    return page.render(
        "jobs.html",
        **values,
        rows=build_rows(jobs, readings, loss_curves(page.session, [job.id for job in jobs]), now=page.now),
        totals=Totals.of(jobs),
        older=shown.older_link(jobs[-1].id) if found.has_more else None,
        poll_seconds=POLL_SECONDS if any(job.status not in FINAL for job in jobs) else IDLE_POLL_SECONDS,
    )


def _readings(page: Page) -> dict[str, IntensityReading]:
    """Return the newest reading of each zone that has one within the stale limit."""
    settings = page.context.settings
    found = GridRepository(page.session).newest_readings([*sorted(settings.zones), UNKNOWN_ZONE], at=page.now)
    return {zone: found[zone] for zone in sorted(found) if found[zone].end + settings.stale_limit >= page.now}
