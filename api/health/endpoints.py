"""`/livez` and `/readyz`: liveness for the supervisor, readiness for the load balancer."""

from http import HTTPStatus
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from api.dependencies import AppContextDep
from api.health.readiness import NEEDED_BY_EVERY_JOB
from api.http.problems import FieldProblem, problem_responses, unavailable

router = APIRouter(tags=["health"])


class Life(BaseModel):
    """This process is alive."""

    status: Literal["ok"] = "ok"


class Warned(BaseModel):
    """A part that is missing although requests can be answered, and the consequence."""

    part: str
    message: str


class Health(BaseModel):
    """Requests can be answered; `warnings` name what keeps jobs from running."""

    status: Literal["ok", "degraded"] = Field(
        description="`degraded` if requests are answered but no job can be scheduled; `warnings` says why"
    )
    warnings: list[Warned]


@router.get("/livez", summary="Check that this process is alive")
def livez() -> Life:
    """Depends on no other service: a database outage is no reason to restart the API."""
    return Life()


@router.get(
    "/readyz",
    summary="Check that this service can do its work",
    responses=problem_responses(HTTPStatus.SERVICE_UNAVAILABLE),
)
async def readyz(context: AppContextDep) -> Health:
    """Names what is missing. Without the database, its migrations or Redis, or if one of them is read-only, the status
    is 503. Anything else that is missing (a scheduler, workers, room in the data folder, models) is a warning, since
    the API can still serve. Without a scheduler or a prepare worker the status is `degraded`: jobs are accepted, and
    wait."""
    report = await context.readiness.report()
    errors = [FieldProblem(field=part, message=fault) for part, fault in report.errors.items()]
    if errors:
        raise unavailable("; ".join(f"{error.field}: {error.message}" for error in errors), errors)
    warnings = [Warned(part=part, message=fault) for part, fault in report.warnings.items()]
    return Health(status="degraded" if NEEDED_BY_EVERY_JOB & report.warnings.keys() else "ok", warnings=warnings)
