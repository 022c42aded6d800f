"""`/livez` and `/readyz`: for whoever restarts this process, and for whoever sends it requests."""

from http import HTTPStatus
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from api.context import Context, ContextDep
from api.problems import RETRY_AFTER_SECONDS, FieldProblem, Problem, declared
from migrations.upgrade import current_revision, expected_revision

TIMEOUT_SECONDS = 2

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """All is well."""

    status: Literal["ok"] = "ok"


@router.get("/livez", summary="Whether this process lives")
def livez() -> Health:
    """Asks nothing of anybody: a database that is down is no reason to restart the API."""
    return Health()


@router.get(
    "/readyz",
    summary="Whether this service can do its work",
    responses=declared(HTTPStatus.SERVICE_UNAVAILABLE),
)
def readyz(context: ContextDep) -> Health:
    """Names what is missing: the database, its migrations, or Redis."""
    faults = {"database": _database_fault(context), "redis": _redis_fault(context)}
    errors = [FieldProblem(field=part, message=fault) for part, fault in faults.items() if fault]
    if errors:
        raise Problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "; ".join(f"{error.field}: {error.message}" for error in errors),
            errors=errors,
            headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
        )
    return Health()


def _database_fault(context: Context) -> str | None:
    try:
        with context.database.engine.connect() as connection:
            connection.execute(text(f"SET LOCAL statement_timeout = '{TIMEOUT_SECONDS}s'"))
            revision = current_revision(connection)
    except SQLAlchemyError as error:
        return f"does not answer ({type(error).__name__})"
    if revision != expected_revision():
        return f"is at revision {revision or 'none'}, but {expected_revision()} is needed: run the migrations"
    return None


def _redis_fault(context: Context) -> str | None:
    client = Redis.from_url(
        context.settings.redis_url,
        socket_connect_timeout=TIMEOUT_SECONDS,
        socket_timeout=TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )
    try:
        client.ping()
    except RedisError as error:
        return f"does not answer ({type(error).__name__}): jobs are accepted, but wait"
    finally:
        client.close()
    return None
