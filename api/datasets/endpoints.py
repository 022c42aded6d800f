"""`/datasets`: training rows that jobs may name."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Response, UploadFile

from api.access.principal import PrincipalDep
from api.context import ContextDep, NowDep, SessionDep
from api.datasets.schemas import DatasetOut
from api.datasets.upload import receive
from api.listing import Limit, Listing, listing
from api.problems import Problem, declared
from store.datasets import DatasetRepository
from store.ids import new_id
from store.tables import Dataset

LONGEST_NAME = 200

router = APIRouter(prefix="/datasets", tags=["datasets"])


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    summary="Upload training rows",
    responses=declared(HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
)
def create_dataset(
    file: UploadFile,
    response: Response,
    principal: PrincipalDep,
    context: ContextDep,
    session: SessionDep,
    now: NowDep,
) -> DatasetOut:
    """JSON Lines; each row `{"prompt", "completion"}`, `{"messages": [{"role", "content"}, …]}` or `{"text"}`.

    Every row is checked; errors name the line, up to the first hundred.
    """
    dataset_id = new_id("dataset")
    target = context.settings.dataset_file(dataset_id)
    with receive(file.file, target, max_rows=context.settings.max_dataset_rows) as checked:
        dataset = Dataset(
            id=dataset_id,
            owner=principal.owner,
            name=_display_name(file.filename or ""),
            format="jsonl",
            rows=checked.rows,
            bytes=checked.bytes,
            sha256=checked.sha256,
            blob=dataset_id,
            created_at=now,
        )
        DatasetRepository(session).add(dataset)
    response.headers["Location"] = f"/datasets/{dataset.id}"
    return DatasetOut.of(dataset)


@router.get("", summary="The datasets, newest first")
def list_datasets(
    principal: PrincipalDep,
    session: SessionDep,
    limit: Limit = 50,
    after: Annotated[str | None, Query(description="Only those older than this id")] = None,
) -> Listing[DatasetOut]:
    """What was uploaded, without the rows."""
    return listing(DatasetRepository(session).page(limit=limit, after=after, owner=principal.scope), DatasetOut.of)


@router.get("/{dataset_id}", summary="One dataset", responses=declared(HTTPStatus.NOT_FOUND))
def get_dataset(dataset_id: str, principal: PrincipalDep, session: SessionDep) -> DatasetOut:
    """What was uploaded, without the rows."""
    dataset = DatasetRepository(session).get(dataset_id)
    if dataset is None or not principal.sees(dataset.owner):
        raise Problem(HTTPStatus.NOT_FOUND, f"there is no dataset {dataset_id!r}")
    return DatasetOut.of(dataset)


def _display_name(filename: str) -> str:
    """The last part of whatever path the client sent, fit to be shown; the file itself lies under its id."""
    name = filename.replace("\\", "/").rsplit("/", 1)[-1]
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in name)[:LONGEST_NAME]
