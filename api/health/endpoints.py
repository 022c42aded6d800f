"""`/livez` and `/readyz`: for whoever restarts this process, and for whoever sends it requests."""

from http import HTTPStatus
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from api.dependencies import AppContextDep
from api.health.readiness import NEEDED_BY_EVERY_JOB
from api.http.problems import RETRY_AFTER_SECONDS, FieldProblem, Problem, problem_responses

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

    status: Literal["ok", "degraded"] = Field(
        description="`degraded` while requests are answered and no job can be scheduled; `warnings` says why"
    )
    warnings: list[Warned]


@router.get("/livez", summary="Whether this process lives")
def livez() -> Life:
    """Asks nothing of anybody: a database that is down is no reason to restart the API."""
    return Life()


@router.get(
    "/readyz",
    summary="Whether this service can do its work",
    responses=problem_responses(HTTPStatus.SERVICE_UNAVAILABLE),
)
async def readyz(context: AppContextDep) -> Health:
    """Names what is missing. Without the database, its migrations or Redis, or while one of them takes no writes, it is
    a 503; whatever else is missing (a scheduler, workers, room in the data folder, models) is a warning, since the API
    can serve all the same. Without a scheduler or a prepare worker the status is `degraded`: jobs are accepted, and
    wait."""
    report = await context.readiness.report()
    errors = [FieldProblem(field=part, message=fault) for part, fault in report.errors.items()]
    if errors:
        raise Problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "; ".join(f"{error.field}: {error.message}" for error in errors),
            errors=errors,
            headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
        )
    warnings = [Warned(part=part, message=fault) for part, fault in report.warnings.items()]
    return Health(status="degraded" if NEEDED_BY_EVERY_JOB & report.warnings.keys() else "ok", warnings=warnings)
