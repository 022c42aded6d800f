"""`/jobs/{id}/events`: a job's events, as a list or as a stream of server-sent events."""

import random
import time
from collections.abc import AsyncIterator
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from api.access.principal import Principal, PrincipalDep
from api.dependencies import AppContext, AppContextDep, SessionDep
from api.http.pagination import Limit, Listing
from api.http.pagination import to_listing as as_listing
from api.http.problems import problem_responses
from api.jobs.endpoints import NOT_FOUND, JobDep
from api.row_model import RowModel
from store.lifecycle.status import FINAL
from store.repositories.jobs import JobRepository

EVENT_STREAM = "text/event-stream"
KEEP_ALIVE_SECONDS = 15.0
MAX_STREAM_SECONDS = 3600.0
REAUTHORISE_SECONDS = 3.0
RETRY_MS = 2000
END_EVENT = "stream.end"
LAST_EVENT = "Id of the last event received: the stream continues after it"

log = structlog.get_logger()
router = APIRouter(prefix="/jobs/{job_id}", tags=["jobs"], responses=NOT_FOUND)
EventId = Annotated[int | None, Query(ge=0, lt=2**63, description="Only events older than this id")]
STREAM: dict[int | str, dict[str, Any]] = {
    HTTPStatus.OK.value: {
        "content": {
            EVENT_STREAM: {
                "schema": {
                    "type": "string",
                    "description": "Each message has `id`, `event` (the type) and `data` (the event as in the list). "
                    f"`{END_EVENT}` with the job's status is the last one: close the stream then",
                }
            }
        }
    },
    HTTPStatus.NO_CONTENT.value: {"description": "The job is over, and `Last-Event-ID` was its last event"},
}


class EventOut(RowModel):
    """An event in a job's history."""

    id: int
    at: datetime
    type: str
    data: dict[str, Any]


def _accepts_event_stream(request: Request) -> bool:
    accepted = request.headers.get("accept", "").lower().split(",")
    return any(media_type.split(";")[0].strip() == EVENT_STREAM for media_type in accepted)


@router.get(
    "/events",
    summary="List or stream a job's events",
    response_model=Listing[EventOut],
    responses=STREAM | problem_responses(HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE),
)
def list_events(
    request: Request,
    job: JobDep,
    session: SessionDep,
    principal: PrincipalDep,
    context: AppContextDep,
    limit: Limit = 50,
    after: EventId = None,
    last_event_id: Annotated[
        int | None, Header(alias="Last-Event-ID", ge=0, lt=2**63, description=f"{LAST_EVENT}; sent by browsers")
    ] = None,
    last_event: Annotated[
        int | None,
        Query(alias="last_event_id", ge=0, lt=2**63, description=f"{LAST_EVENT}; the header takes precedence"),
    ] = None,
) -> Listing[EventOut] | Response:
    """Changes of status and other events, newest first.

    With `Accept: text/event-stream` the response is a stream: all events in order, or those after `Last-Event-ID`, then
    each new event until the job is over. `limit` and `after` apply to the list. The stream ends within seconds,
    without a last message, once its key is revoked or has expired, or its session was signed out.
    """
    if not _accepts_event_stream(request):
        return as_listing(JobRepository(session).events(job.id, limit=limit, after=after), EventOut.from_row)
    had = last_event if last_event_id is None else last_event_id
    if had is not None and job.status in FINAL and JobRepository(session).newest_event_id(job.id) <= had:
        return Response(status_code=HTTPStatus.NO_CONTENT)  # a browser's EventSource reconnects after any other status
    return _EventStream(context, principal, job.id, after=had or 0)


class _EventStream(EventSourceResponse):
    """Stream that holds a slot of the stream limiter until it has ended or its client has disconnected."""

    def __init__(self, context: AppContext, principal: Principal, job_id: str, *, after: int) -> None:
        super().__init__(
            _stream_messages(context, principal, job_id, after=after),
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )
        self._context, self._owner, self._job_id = context, principal.owner, job_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._context.stream_limiter.acquire(self._owner), self._context.event_feed.subscribe(self._job_id):
            await super().__call__(scope, receive, send)


async def _stream_messages(
    context: AppContext, principal: Principal, job_id: str, *, after: int
) -> AsyncIterator[bytes]:
    """Yield the encoded messages; the stream ends after about an hour at most, and its client reconnects.

    It ends within seconds once the principal's key or session can no longer be used.
    """
    over_at = time.monotonic() + MAX_STREAM_SECONDS * random.uniform(0.9, 1.1)  # noqa: S311  (no secret)
    checked_at = sent_at = time.monotonic()
    yield format_sse_event(retry=RETRY_MS)
    quiet_seconds = min(REAUTHORISE_SECONDS, KEEP_ALIVE_SECONDS)
    async for batch in context.event_feed.stream_batches(job_id, after=after, quiet_seconds=quiet_seconds):
        if time.monotonic() - checked_at >= REAUTHORISE_SECONDS:
            if not await _is_current(context, principal):
                return
            checked_at = time.monotonic()
        for event in batch.events:
            data = EventOut.from_row(event).model_dump_json()
            yield format_sse_event(id=str(event.id), event=event.type, data_str=data)
        if batch.ended:
            yield format_sse_event(event=END_EVENT, data_str=f'{{"status":"{batch.ended}"}}')
        elif not batch.events and time.monotonic() - sent_at < KEEP_ALIVE_SECONDS:
            continue
        elif not batch.events:
            yield KEEPALIVE_COMMENT
        sent_at = time.monotonic()
        if time.monotonic() > over_at:
            return


async def _is_current(context: AppContext, principal: Principal) -> bool:
    """Return whether the principal may still read; True while the database, and so every event, is unavailable."""
    try:
        return await run_in_threadpool(context.authenticator.is_current, principal)
    except (DBAPIError, PoolTimeoutError) as error:
        log.warning("events.unchecked", key=principal.key_id, error=type(error).__name__)
        return True
