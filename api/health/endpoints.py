"""`/livez` and `/readyz`: for whoever restarts this process, and for whoever sends it requests."""

from http import HTTPStatus
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from api.context import ContextDep
from api.problems import RETRY_AFTER_SECONDS, FieldProblem, Problem, declared

router = APIRouter(tags=["health"])


class Life(BaseModel):
    """This process lives."""

    status: Literal["ok"] = "ok"


class Warned(BaseModel):
    """A part that is missing while requests can be answered, and what follows from that."""

    part: str
    message: str


class Health(BaseModel):
    """Requests can be answered; `warnings` name what keeps jobs from being done."""

    status: Literal["ok"] = "ok"
    warnings: list[Warned]


@router.get("/livez", summary="Whether this process lives")
def livez() -> Life:
    """Asks nothing of anybody: a database that is down is no reason to restart the API."""
    return Life()


@router.get(
    "/readyz",
    summary="Whether this service can do its work",
    responses=declared(HTTPStatus.SERVICE_UNAVAILABLE),
)
async def readyz(context: ContextDep) -> Health:
    """Names what is missing. Without the database, its migrations or Redis it is a 503; whatever else is missing (a
    scheduler, workers, room in the data folder, models) is a warning, since the API can serve all the same."""
    report = await context.readiness.report()
    errors = [FieldProblem(field=part, message=fault) for part, fault in report.errors.items()]
    if errors:
        raise Problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "; ".join(f"{error.field}: {error.message}" for error in errors),
            errors=errors,
            headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
        )
    return Health(warnings=[Warned(part=part, message=fault) for part, fault in report.warnings.items()])
