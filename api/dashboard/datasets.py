"""`/dashboard/datasets`: the list with the upload, and a page for each dataset."""

from typing import Annotated, get_args

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from api.dashboard.page import POLL_SECONDS, Page, PageDep
from api.datasets.contents import preview_dataset
from api.datasets.endpoints import DatasetDep
from api.datasets.schemas import DatasetOut, RowOut
from api.http.pagination import Id
from api.http.problems import Problem
from greencore.settings.value_types import FormatName, TrainOn
from store.lifecycle.status import FINAL
from store.repositories.datasets import DatasetRepository
from store.repositories.token_statistics import TokenStatisticsRepository
from store.tables import Dataset, TokenStatistics

LISTED = 50
ROWS_SHOWN = 10
JOBS_SHOWN = 50

router = APIRouter()


@router.get("/dashboard/datasets")
def datasets_page(
    page: PageDep, after: Annotated[Id | None, Query(description="Only datasets older than this id")] = None
) -> HTMLResponse:
    """Render the datasets that the principal sees, newest first."""
    found = DatasetRepository(page.session).page(limit=LISTED, after=after, owner=page.principal.owner_filter)
    page.check_etag([dataset.id for dataset in found.data], found.has_more)
    return page.render(
        "datasets.html",
        title="Datasets",
        here="datasets",
        datasets=[(dataset.owner, DatasetOut.from_row(dataset)) for dataset in found.data],
        after=after,
        older=found.data[-1].id if found.has_more else None,
        max_upload_bytes=page.context.settings.max_upload_bytes,
    )


@router.get("/dashboard/datasets/{dataset_id}")
def dataset_page(dataset: DatasetDep, page: PageDep) -> HTMLResponse:
    """Render a dataset: its forms, token statistics by model, the jobs that use it, and its first rows."""
    counts = TokenStatisticsRepository(page.session).list_of_dataset(dataset.id)
    jobs = DatasetRepository(page.session).list_jobs(
        dataset.id, limit=JOBS_SHOWN + 1, owner=page.principal.owner_filter
    )
    counting = any(each.counted_at is None for each in counts)
    rows, damage = _first_rows(dataset, page)
    page.check_etag(dataset.id, [_version(each) for each in counts], [(job.id, job.revision) for job in jobs], damage)
    shown = jobs[:JOBS_SHOWN]
    return page.render(
        "dataset.html",
        title=dataset.name or dataset.id,
        here="dataset",
        dataset=DatasetOut.from_row(dataset),
        owner=dataset.owner,
        counts=counts,
        models=list(page.context.catalogue),
        prompt_formats=get_args(FormatName),
        learned_turns=get_args(TrainOn),
        jobs=shown,
        more_jobs=len(jobs) > JOBS_SHOWN,
        rows=rows,
        damage=damage,
        poll_seconds=POLL_SECONDS if counting or any(job.status not in FINAL for job in shown) else None,
    )


def _first_rows(dataset: Dataset, page: Page) -> tuple[list[RowOut], str | None]:
    """Return the first rows, or why they cannot be shown."""
    try:
        return preview_dataset(dataset, page.context, limit=ROWS_SHOWN).data, None
    except Problem as problem:
        return [], problem.detail


def _version(counted: TokenStatistics) -> list[str | None]:
    settings = (counted.model, counted.prompt_format, counted.train_on)
    times = (counted.asked_at, counted.counted_at)
    states = (counted.error, None if counted.preview is None else "previewed")
    return [*settings, *states, *(None if time is None else time.isoformat() for time in times)]
