"""Rows of a job's epoch and event tables, newest first, and the pages of older rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse
from sqlalchemy.orm import Session

from api.dashboard.jobs.event_sentences import describe_event
from api.dashboard.page import Page, PageDep
from api.jobs.endpoints import JobDep
from api.jobs.history.epoch_schemas import EpochOut
from api.jobs.schemas import jobs_out
from store.repositories.jobs import JobRepository
from store.tables import Job

ROWS = 50

router = APIRouter()


@dataclass(frozen=True)
class RowPage:
    """Rows, newest first; `older` is the cursor of the next page, None on the last."""

    data: Sequence[Any]
    older: int | None


def newest_epoch(job: Job) -> int:
    """Return the number of the running epoch, or of the next."""
    return job.epochs_done + 1


def epoch_rows(session: Session, job_id: str, *, before: int) -> RowPage:
    """Return the epochs numbered below `before`; numbers count from 1 without a gap."""
    repository = JobRepository(session)
    page = repository.epoch_page(job_id, limit=ROWS, after=max(0, before - 1 - ROWS))
    shown = [epoch for epoch in reversed(page.data) if epoch.number < before]
    costs = repository.epoch_costs(job_id, epochs=[epoch.number for epoch in shown])
    rows = [EpochOut.of(epoch, costs.get(epoch.number)) for epoch in shown]
    return RowPage(rows, rows[-1].number if rows and rows[-1].number > 1 else None)


def event_rows(session: Session, job_id: str, *, before: int | None = None) -> RowPage:
    """Return the events with ids below `before`, each with its sentence; the newest without it."""
    page = JobRepository(session).events(job_id, limit=ROWS, after=before)
    rows = [(event, describe_event(event.type, event.data)) for event in page.data]
    return RowPage(rows, page.data[-1].id if page.has_more else None)


@router.get("/dashboard/jobs/{job_id}/epochs")
def older_epochs(
    row: JobDep, page: PageDep, after: Annotated[int | None, Query(ge=1, lt=2**31)] = None
) -> HTMLResponse:
    """Render the epochs before number `after`; the newest without it."""
    return _render(page, row, "epochs", epoch_rows(page.session, row.id, before=after or newest_epoch(row) + 1))


@router.get("/dashboard/jobs/{job_id}/events")
def older_events(
    row: JobDep, page: PageDep, after: Annotated[int | None, Query(ge=1, lt=2**63)] = None
) -> HTMLResponse:
    """Render the events before id `after`; the newest without it."""
    return _render(page, row, "events", event_rows(page.session, row.id, before=after))


def _render(page: Page, row: Job, what: str, rows: RowPage) -> HTMLResponse:
    [job] = jobs_out(page.session, [row])
    shown: dict[str, Any] = {"job": job, "what": what, what: rows}
    return page.render("job/older.html", title=f"Older {what} of {job.id}", here="job", **shown)
