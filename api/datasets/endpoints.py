"""`/datasets`: uploads, lists and deletes training rows."""

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Annotated

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from api.access.principal import PrincipalDep
from api.datasets.checking import validate_upload
from api.datasets.form import LONGEST_COLUMNS
from api.datasets.receiving import LONGEST_SENT_NAME, receive_upload, upload_folder
from api.datasets.schemas import UPLOAD_BODY, DatasetOut
from api.datasets.storing import discard_rows, store_dataset
from api.dependencies import AppContextDep, NowDep, SessionDep
from api.http.pagination import Id, Limit, Listing, OlderThan, to_listing
from api.http.problems import Problem, closing_problem, problem_responses
from greencore.dataset.containers import ReadLimits
from greencore.disk import DISK_FULL_ERRNOS
from runtime.ids import new_id
from store.repositories.datasets import DatasetRepository
from store.stored_rows import name_blob
from store.tables import Dataset

JOBS_NAMED = 10
# Validation is CPU-bound, and must not occupy all threads that serve other requests.
validation_limiter = CapacityLimiter(2)

router = APIRouter(prefix="/datasets", tags=["datasets"])


def _dataset(dataset_id: Id, principal: PrincipalDep, session: SessionDep) -> Dataset:
    return principal.require_readable(DatasetRepository(session).get(dataset_id), f"dataset {dataset_id!r}")


DatasetDep = Annotated[Dataset, Depends(_dataset)]


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    summary="Upload training rows",
    openapi_extra={"requestBody": UPLOAD_BODY},
    responses=problem_responses(
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        HTTPStatus.INSUFFICIENT_STORAGE,
    ),
)
async def create_dataset(
    request: Request,
    response: Response,
    principal: PrincipalDep,
    context: AppContextDep,
    now: NowDep,
    name: Annotated[
        str | None,
        Query(max_length=LONGEST_SENT_NAME, description="Display name; default: the name of the form's file"),
    ] = None,
    columns: Annotated[
        str | None,
        Query(
            max_length=LONGEST_COLUMNS,
            description="JSON object of the fields of a row and the columns, or paths with dots, that they are taken "
            'from: `{"prompt": "question", "completion": "data.answer"}`; a form may have it as a field',
        ),
    ] = None,
) -> DatasetOut:
    """JSON Lines, a JSON array, CSV or TSV with a header, or Parquet; each also compressed as a whole by gzip or zstd.

    The container is detected from the content; of a table whose header does not tell, from the file's name or the
    media type. Each row is `{"messages": [{"role", "content"}, …]}`, perhaps with `tools`, `{"conversations": [{"from",
    "value"}, …]}`, `{"prompt", "completion"}`, `{"instruction", "input", "output"}` or `{"text"}`; a table's columns
    are its keys. All rows are validated; errors name the line, element or row, up to the first hundred. A key that
    would change what is learned elsewhere is refused; other unknown keys are named in `contents.ignored_fields`.
    """
    settings = context.settings
    limits = ReadLimits(settings.max_dataset_rows, settings.max_row_bytes, settings.max_upload_bytes)
    with _report_full_disk(), upload_folder(settings) as folder:
        received = await receive_upload(
            request, folder, name=name, columns=columns, max_bytes=settings.max_upload_bytes
        )
        checked = await to_thread.run_sync(validate_upload, received, limits, limiter=validation_limiter)
        dataset = Dataset(
            id=new_id("dataset"),
            owner=principal.owner,
            name=received.name,
            format=checked.format.container,
            compression=checked.format.compression,
            columns=dict(received.columns.sources) or None,
            rows=checked.rows,
            bytes=received.bytes,
            sha256=received.sha256,
            blob=name_blob(checked.blob),
            contents=checked.contents,
            created_at=now,
        )
        await run_in_threadpool(store_dataset, context.database, settings, dataset, checked.file)
    response.headers["Location"] = f"/datasets/{dataset.id}"
    return DatasetOut.from_row(dataset)


@router.get("", summary="List datasets, newest first")
def list_datasets(
    principal: PrincipalDep,
    session: SessionDep,
    limit: Limit = 50,
    after: OlderThan = None,
) -> Listing[DatasetOut]:
    """Metadata and contents summary, without the rows."""
    return to_listing(
        DatasetRepository(session).page(limit=limit, after=after, owner=principal.owner_filter), DatasetOut.from_row
    )


@router.get("/{dataset_id}", summary="Get a dataset", responses=problem_responses(HTTPStatus.NOT_FOUND))
def get_dataset(dataset: DatasetDep) -> DatasetOut:
    """Metadata and contents summary, without the rows."""
    return DatasetOut.from_row(dataset)


@router.delete(
    "/{dataset_id}",
    status_code=HTTPStatus.NO_CONTENT,
    summary="Delete a dataset",
    responses=problem_responses(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
)
def delete_dataset(dataset_id: Id, principal: PrincipalDep, context: AppContextDep, now: NowDep) -> None:
    """Refused while a job that is not over needs its rows. Jobs that are over stay, and cannot be retried."""
    with context.database.session() as session:
        datasets = DatasetRepository(session)
        dataset = principal.require_readable(datasets.lock_for_deletion(dataset_id), f"dataset {dataset_id!r}")
        jobs = datasets.list_open_jobs(dataset_id, limit=JOBS_NAMED + 1)
        if jobs:
            named = ", ".join(jobs[:JOBS_NAMED]) + (" and more" if len(jobs) > JOBS_NAMED else "")
            detail = f"{dataset_id} is needed by jobs that are not over: {named}; cancel them, or wait for their end"
            raise Problem(HTTPStatus.CONFLICT, detail)
        datasets.mark_deleted(dataset, at=now)
    # After the database row: an unreferenced file does no harm, but a dataset without its file would.
    discard_rows(context.database, context.settings, dataset.blob)


@contextmanager
def _report_full_disk() -> Iterator[None]:
    """Raise the 507 for a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL_ERRNOS:
            raise
        detail = f"there is no room for this file: {error.strerror}; delete datasets, or ask the operator for more"
        raise closing_problem(HTTPStatus.INSUFFICIENT_STORAGE, detail) from error
