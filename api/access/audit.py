"""Audit log of each request that may change something, and of each refused key or session."""

from http import HTTPStatus

import structlog
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.access.principal import find_principal
from api.access.provenance import client_address, has_safe_method, requested_path
from greencore.clock import Clock
from store.database import Database
from store.repositories.audit import AuditRepository
from store.tables import AuditEntry

LONGEST_TARGET = 500
REFUSED_STATUSES = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)

log = structlog.get_logger()


class AuditMiddleware:
    """Middleware that writes an audit record once the status of a response is known, before it is sent.

    The record has its own transaction: it stays if the request's is rolled back. Requests refused by a rate limit are
    not recorded, so that records cannot be used to fill the disk. A record that cannot be written is logged in full,
    and the response is sent nevertheless.
    """

    def __init__(self, app: ASGIApp, *, database: Database, clock: Clock) -> None:
        self._app = app
        self._database = database
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        written = False

        async def write(status: int) -> None:
            nonlocal written
            if not written and _is_notable(request, status):
                await run_in_threadpool(self._write, request, status)
            written = True

        async def send_after_writing(message: Message) -> None:
            if message["type"] == "http.response.start":
                await write(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, send_after_writing)
        except Exception:
            await write(HTTPStatus.INTERNAL_SERVER_ERROR)
            raise

    def _write(self, request: Request, status: int) -> None:
        principal = find_principal(request)
        route = request.scope.get("route")
        record = {
            "at": self._clock(),
            "key_id": principal.key_id if principal else getattr(request.state, "refused_key_id", None),
            "owner": principal.owner if principal else None,
            "role": principal.role if principal else None,
            "action": f"{request.method} {getattr(route, 'path', '')}".rstrip(),
            "target": requested_path(request).partition("?")[0][:LONGEST_TARGET],
            "status": status,
            "request_id": request.state.request_id,
            "address": client_address(request),
        }
        try:
            with self._database.session() as session:
                AuditRepository(session).add(AuditEntry(**record))
        except SQLAlchemyError as error:
            log.error("audit.unwritten", error=type(error).__name__, record=record)


def _is_notable(request: Request, status: int) -> bool:
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return False
    if find_principal(request) is not None and not has_safe_method(request):
        return True
    return status in REFUSED_STATUSES and getattr(request.state, "credentials_presented", False) is True
