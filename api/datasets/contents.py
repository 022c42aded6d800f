"""`/datasets/{id}/preview`, `/tokens` and `/learned`: a dataset's first rows, its token counts, and what is learned."""

from collections.abc import Iterator
from datetime import timedelta
from http import HTTPStatus
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi.responses import JSONResponse

from api.datasets.endpoints import DatasetDep
from api.datasets.schemas import CountingOut, LearnedTextOut, RowOut, TokenCountsOut
from api.dependencies import AppContextDep, NowDep
from api.http.openapi import SECONDS_SCHEMA
from api.http.pagination import Id, Listing
from api.http.problems import Problem, invalid_field, join_names, problem_responses
from greencore.dataset import InvalidRow
from greencore.settings.value_types import FormatName, TrainOn
from store.repositories.token_statistics import CountRequest, TokenStatisticsRepository
from store.stored_rows import enumerate_stored_rows
from store.tables import TokenStatistics

RETRY_AFTER_SECONDS = 2
# After a failure, tokens are counted again only after this time, when its cause may be gone.
ERROR_RETRY_AFTER = timedelta(minutes=5)

router = APIRouter(
    prefix="/datasets/{dataset_id}", tags=["datasets"], responses=problem_responses(HTTPStatus.NOT_FOUND)
)


@router.get("/preview", summary="Preview a dataset's first rows")
def preview_dataset(
    dataset: DatasetDep,
    context: AppContextDep,
    limit: Annotated[int, Query(ge=1, le=100, description="Maximum number of rows")] = 10,
) -> Listing[RowOut]:
    """Long texts are truncated; `characters` is their full length."""
    rows = list(islice(_rows(context.settings.dataset_file(dataset.blob)), limit + 1))
    return Listing(data=rows[:limit], has_more=len(rows) > limit)


COUNTED: dict[int | str, dict[str, Any]] = {
    HTTPStatus.ACCEPTED.value: {
        "model": CountingOut,
        "description": "Counting in progress; repeat the request",
        "headers": {"Retry-After": {"description": "Seconds to wait", "schema": SECONDS_SCHEMA}},
    },
    **problem_responses(HTTPStatus.CONFLICT),
}


def _request_counts(
    dataset: DatasetDep,
    model: Annotated[Id, Query(description="Name of a model from `GET /models`")],
    context: AppContextDep,
    now: NowDep,
    prompt_format: Annotated[FormatName, Query(description="As in a job's hyperparameters")] = "plain",
    train_on: Annotated[TrainOn, Query(description="As in a job's hyperparameters")] = "assistant",
) -> TokenStatistics:
    """Return the statistics of the dataset's tokens, and start the count where they are missing."""
    if model not in context.catalogue:
        raise invalid_field("model", f"{model!r} is not in the catalogue: known are {join_names(context.catalogue)}")
    wanted = CountRequest(dataset.id, model, prompt_format, train_on)
    with context.database.session() as session:
        return TokenStatisticsRepository(session).request_counts(wanted, at=now, error_lifetime=ERROR_RETRY_AFTER)


StatisticsDep = Annotated[TokenStatistics, Depends(_request_counts)]


@router.get("/tokens", summary="Count a dataset's tokens for a model", response_model=TokenCountsOut, responses=COUNTED)
def count_tokens(found: StatisticsDep) -> TokenCountsOut | JSONResponse:
    """The first call starts the count, of rows as in training without a limit on their length."""
    if found.error is not None:
        raise Problem(HTTPStatus.CONFLICT, f"the tokens cannot be counted: {found.error}")
    if found.counts is not None and found.counted_at is not None:
        return TokenCountsOut(model=found.model, counted_at=found.counted_at, **found.counts)
    return _counting(found)


@router.get(
    "/learned",
    summary="Preview what a model learns of a dataset's first rows",
    response_model=LearnedTextOut,
    responses=COUNTED,
)
def preview_learned_text(found: StatisticsDep) -> LearnedTextOut | JSONResponse:
    """The text of the first twenty rows as training renders it, with the learned tokens marked.

    The first call starts the same count as `/tokens`. Rows are not cut to a job's `max_length`, but shown up to 4,000
    tokens; a row that the model cannot use has an error instead.
    """
    if found.preview is not None:
        return LearnedTextOut(
            model=found.model, prompt_format=found.prompt_format, train_on=found.train_on, rows=found.preview["rows"]
        )
    if found.error is not None:
        raise Problem(HTTPStatus.CONFLICT, f"the rows cannot be tokenised: {found.error}")
    return _counting(found)


def _counting(found: TokenStatistics) -> JSONResponse:
    return JSONResponse(
        CountingOut(model=found.model, asked_at=found.asked_at).model_dump(mode="json"),
        status_code=HTTPStatus.ACCEPTED,
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
    )


def _rows(file: Path) -> Iterator[RowOut]:
    try:
        for number, row in enumerate_stored_rows(file):
            yield RowOut.of(number, row)
    except FileNotFoundError as error:
        detail = "the rows of this dataset are missing from this service's data: upload them again"
        raise Problem(HTTPStatus.NOT_FOUND, detail) from error
    except InvalidRow as error:
        detail = f"the rows of this dataset are damaged in this service's data: {error}; upload them again"
        raise Problem(HTTPStatus.NOT_FOUND, detail) from error
