"""Telemetry of each request until the end of its response: its id, one log line, one span, and the metrics."""

import re
import time
from http import HTTPStatus

import structlog
from opentelemetry.trace import Span, StatusCode
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.access.principal import Principal
from api.http.problems import REQUEST_ID_HEADER
from api.metrics.requests import RequestMetrics
from runtime.ids import new_id
from runtime.tracing import span

WELL_FORMED_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
# Successful probes are not logged.
PROBES = frozenset({"/livez", "/readyz", "/metrics"})
STATIC = "/static"
UNROUTED = "unrouted"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"
CLIENT_CLOSED_REQUEST = 499  # by convention: the client disconnected before the response

log = structlog.get_logger()


class RequestIdMiddleware:
    """Middleware that sets `request.state.request_id` to a well-formed `X-Request-Id`, or to a new id."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        request_id = given if WELL_FORMED_REQUEST_ID.fullmatch(given) else new_id("request")
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        # After an error the id stays bound: the server logs the error in this context, after this middleware.
        tokens = structlog.contextvars.bind_contextvars(request_id=request_id)
        await self._app(scope, receive, send_with_id)
        structlog.contextvars.reset_contextvars(**tokens)


class TelemetryMiddleware:
    """Outermost middleware but for the proxy and the request id: logs, traces and counts requests.

    A request is identified by its route's template, never its path, and by the id of its key, never the key. One that
    was refused before it reached a route counts as `unrouted`.
    """

    def __init__(self, app: ASGIApp, *, metrics: RequestMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, method = time.perf_counter(), scope["method"]
        method = method if method in METHODS else OTHER
        status = 0

        def record_response(with_status: int) -> None:
            nonlocal status
            status = int(with_status)
            self._metrics.in_flight.dec()
            seconds = time.perf_counter() - begun
            self._metrics.record_response(method, _route(scope), status, seconds=seconds)

        async def send_and_record(message: Message) -> None:
            if message["type"] == "http.response.start":
                record_response(message["status"])
            await send(message)

        self._metrics.in_flight.inc()
        with span(method, kind="server", parent=Headers(scope=scope).get("traceparent")) as opened:
            try:
                await self._app(scope, receive, send_and_record)
            except Exception:
                if not status:  # an outer handler responds
                    record_response(HTTPStatus.INTERNAL_SERVER_ERROR)
                raise
            finally:
                if not status:
                    record_response(CLIENT_CLOSED_REQUEST)
                _describe_span(opened, scope, method, status)
                _log_request(scope, method, status, seconds=time.perf_counter() - begun)


def _log_request(scope: Scope, method: str, status: int, *, seconds: float) -> None:
    route = _route(scope)
    if status < HTTPStatus.BAD_REQUEST and (route in PROBES or route == STATIC):
        return
    state = scope.get("state", {})
    principal = state.get("principal")
    key = principal.key_id if isinstance(principal, Principal) else state.get("refused_key_id")
    log.info("request", method=method, route=route, status=status, seconds=round(seconds, 4), key=key)


def _describe_span(opened: Span, scope: Scope, method: str, status: int) -> None:
    route = _route(scope)
    opened.update_name(f"{method} {route}")
    opened.set_attributes(
        {
            "http.request.method": method,
            "http.route": route,
            "http.response.status_code": status,
            "greentune.request_id": scope["state"]["request_id"],
        }
    )
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        opened.set_status(StatusCode.ERROR, str(status))


def _route(scope: Scope) -> str:
    """Return the template of the route, such as `/jobs/{job_id}`; for a mounted folder, its path."""
    path = getattr(scope.get("route"), "path", None)
    if path is not None:
        return str(path)
    if scope.get("path", "").startswith(f"{STATIC}/"):
        return STATIC
    return UNROUTED
