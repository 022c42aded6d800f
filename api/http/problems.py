"""Errors as RFC 9457 problem details: one exception to raise, and one format for every error response.

A browser that requests a page gets the same problem as HTML.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel, Field
from sqlalchemy.exc import DataError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api.http.content_negotiation import prefers_html
from api.http.security_headers import HEADERS as SECURITY_HEADERS
from api.templating import render_page
from greencore.settings.validation_faults import describe_fault, merge_union_faults
from store.database import describe_outage

log = structlog.get_logger()

MEDIA_TYPE = "application/problem+json"
REQUEST_ID_HEADER = "X-Request-Id"
RETRY_AFTER_SECONDS = 5
MAX_FAULTS = 100
LONGEST_FIELD = 200
LONGEST_MESSAGE = 1000

STATUS_DESCRIPTIONS: Mapping[HTTPStatus, str] = {
    HTTPStatus.BAD_REQUEST: "The request cannot be read",
    HTTPStatus.UNAUTHORIZED: "No key, or one that is unknown, expired or revoked",
    HTTPStatus.FORBIDDEN: "Requires an operator's key; or a session was used from outside this service's pages",
    HTTPStatus.NOT_FOUND: "Does not exist, or belongs to another owner",
    HTTPStatus.CONFLICT: "Not possible in the current state; `detail` says why",
    HTTPStatus.GONE: "Has been removed",
    HTTPStatus.PRECONDITION_FAILED: "Not the version that `If-Match` or `If-None-Match` requires; nothing is done",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body is larger than the limit",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "The media type of the body is not supported",
    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE: "The range is beyond the file",
    HTTPStatus.UNPROCESSABLE_ENTITY: "The request is invalid; `errors` names each field and says what is expected",
    HTTPStatus.TOO_MANY_REQUESTS: "More requests than a key or an address may make",
    HTTPStatus.SERVICE_UNAVAILABLE: "A required service, such as the database, is unavailable",
}


class FieldProblem(BaseModel):
    """A fault: the path of the field, such as `policy.steps[1].rho`, and what is expected there."""

    field: str
    message: str


class ProblemBody(BaseModel):
    """An error as of RFC 9457; `errors` lists the first hundred faults by field.

    `request_id` is present for faults of the service, and identifies them in its log.
    """

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[FieldProblem] = Field(default=[], max_length=MAX_FAULTS)
    error_count: int | None = Field(default=None, description="Number of faults, if `errors` holds only a part")
    request_id: str | None = None


class Problem(HTTPException):
    """An error response, to be raised."""

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        *,
        errors: Sequence[FieldProblem] = (),
        error_count: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, detail, headers)
        self.errors = list(errors)
        self.error_count = len(self.errors) if error_count is None else error_count


class ProblemResponse(JSONResponse):
    """Response whose body is a problem."""

    media_type = MEDIA_TYPE

    def render(self, content: Any) -> bytes:
        """Encode as JSON in UTF-8; an unpaired surrogate, which a field's name may contain, becomes a question mark."""
        return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def invalid_field(field: str, message: str) -> Problem:
    """Return the 422 for one field."""
    return invalid_fields([FieldProblem(field=field, message=message)])


def invalid_fields(errors: Sequence[FieldProblem], *, count: int | None = None) -> Problem:
    """Return the 422 for one or more fields; its detail repeats the first.

    `count` is the number of faults if `errors` holds only the first ones.
    """
    count = len(errors) if count is None else count
    more = f" (and {count - 1} more)" if count > 1 else ""
    first = f"{_truncate(errors[0].field, LONGEST_FIELD)}: {_truncate(errors[0].message, LONGEST_MESSAGE)}"
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"{first}{more}", errors=errors, error_count=count)


def closing_problem(status: HTTPStatus, detail: str, errors: Sequence[FieldProblem] = ()) -> Problem:
    """Return a problem that closes the connection, which cannot carry another request if the body is not read."""
    return Problem(status, detail, errors=errors, headers={"Connection": "close"})


def unavailable(detail: str, errors: Sequence[FieldProblem] = ()) -> Problem:
    """Return the 503 with the usual time to wait."""
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, errors=errors, headers=headers)


def problem_responses(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """Declare the problems of a route for the OpenAPI description."""
    return {status.value: {"model": ProblemBody, "description": status_description(status)} for status in statuses}


def status_description(status: HTTPStatus) -> str:
    """Return the description of a problem's status."""
    return STATUS_DESCRIPTIONS.get(status, status.phrase)


def install_problem_handlers(app: FastAPI) -> None:
    """Answer every error of the application as a problem."""
    for error, handler in HANDLERS.items():
        app.add_exception_handler(error, handler)
    # Starlette raises the error again once this is sent, so that the server's log holds it.
    detail = "unexpected error: see the service's log"
    app.add_exception_handler(Exception, _respond_always(HTTPStatus.INTERNAL_SERVER_ERROR, detail))


def respond_to_error(request: Request, error: Exception) -> Response:
    """Return the response to an error raised in a middleware, beyond the handlers; re-raise an unexpected one."""
    for kind, handler in HANDLERS.items():
        if isinstance(error, kind):
            return handler(request, error)
    raise error


def document_problems(openapi: dict[str, Any]) -> None:
    """Correct an OpenAPI description: media type of problems, 413 only with a body, 422 only with input."""
    for path in openapi["paths"].values():
        for operation in path.values():
            if not operation.get("parameters") and "requestBody" not in operation:
                operation["responses"].pop("422", None)
            if "requestBody" in operation:
                too_large = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
                answer = {**operation["responses"]["422"], "description": status_description(too_large)}
                operation["responses"].setdefault(str(too_large.value), answer)
            for status, response in operation["responses"].items():
                content = response.get("content", {})
                if int(status) >= HTTPStatus.BAD_REQUEST and "application/json" in content:
                    response["content"] = {MEDIA_TYPE: content["application/json"]}


def join_names(names: Iterable[str]) -> str:
    """List the known names in the message on an unknown one: "FR, SE", or "none"."""
    return ", ".join(sorted(names)) or "none"


def field_path(location: Sequence[int | str]) -> str:
    """Format a location: `("policy", "steps", 1, "rho")` as `policy.steps[1].rho`."""
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def _respond(
    request: Request,
    status: int,
    detail: str,
    errors: Sequence[FieldProblem] = (),
    headers: Mapping[str, str] | None = None,
    *,
    count: int = 0,
) -> Response:
    shown = [
        FieldProblem(field=_truncate(error.field, LONGEST_FIELD), message=_truncate(error.message, LONGEST_MESSAGE))
        for error in errors[:MAX_FAULTS]
    ]
    detail = _truncate(detail, LONGEST_FIELD + 2 * LONGEST_MESSAGE)
    body = ProblemBody(title=HTTPStatus(status).phrase, status=status, detail=detail, errors=shown)
    body.error_count = count if count > len(shown) else None
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR and hasattr(request.state, "request_id"):
        body.request_id = request.state.request_id
        # The response to an unexpected error bypasses the middleware that sets it.
        headers = {**(headers or {}), REQUEST_ID_HEADER: request.state.request_id}
    if prefers_html(request):
        return _render_problem_page(request, body, headers)
    left_out = {name for name in ("errors", "error_count", "request_id") if not getattr(body, name)}
    return ProblemResponse(body.model_dump(exclude=left_out), status, headers)


def _truncate(text: str, longest: int) -> str:
    """Limit the length of text that repeats what was sent."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _render_problem_page(request: Request, body: ProblemBody, headers: Mapping[str, str] | None) -> Response:
    """Render a problem as a page, with the navigation of the signed-in user."""
    known = {"principal": request.state.principal} if hasattr(request.state, "principal") else {}
    shown = json.loads(bytes(ProblemResponse(body.model_dump()).body))  # which replaces what cannot be encoded
    # The response to an unexpected error bypasses the middleware that sets the security headers, too.
    all_headers = {**SECURITY_HEADERS, **(headers or {})}
    return render_page(
        "problem.html", status=body.status, headers=all_headers, title=body.title, problem=shown, **known
    )


def _handle_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error, Problem):
        return _respond(request, error.status_code, error.detail, error.errors, error.headers, count=error.error_count)
    if error.status_code == HTTPStatus.BAD_REQUEST and isinstance(error.__cause__, ValueError | RecursionError):
        # FastAPI's, for a body that is not text, is nested too deeply, or has a number of thousands of digits.
        return _handle_http_exception(request, invalid_field("body", f"not JSON that can be read: {error.__cause__}"))
    # Starlette's own errors contain only the phrase of their status.
    if error.status_code == HTTPStatus.NOT_FOUND:
        return _respond(request, error.status_code, f"there is nothing at {request.url.path}", headers=error.headers)
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = _allowed_methods(request)
        detail = f"{request.url.path} does not take {request.method}, only {allowed}"
        return _respond(request, error.status_code, detail, headers={"Allow": allowed})
    return _respond(request, error.status_code, error.detail, headers=error.headers)


def _allowed_methods(request: Request) -> str:
    """Return the methods of all routes at the path of a request; Starlette names those of the first one only."""
    routes = iter_route_contexts(request.app.routes)
    here = [route for route in routes if route.methods and route.path_regex.match(request.url.path)]
    methods = {method for route in here for method in route.methods or ()}
    return ", ".join(sorted(methods | {"HEAD"} if "GET" in methods else methods))


def validation_problem(faults: Sequence[Mapping[str, Any]], *, count: int) -> Problem:
    """Return the 422 for the first of `count` faults of pydantic; locations begin with their source, such as `body`."""
    merged = merge_union_faults(faults)
    return invalid_fields(
        [_field_problem(each) for each in merged[:MAX_FAULTS]], count=count - len(faults) + len(merged)
    )


def _handle_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = error.errors()
    return _handle_http_exception(request, validation_problem(faults, count=len(faults)))


def _field_problem(details: Mapping[str, Any]) -> FieldProblem:
    source, *location = details["loc"]
    if details["type"] == "json_invalid":
        message = f"not JSON: {details['ctx']['error']} at character {location[0]}"
        return FieldProblem(field="body", message=message)
    if source == "body" and not location and details["type"] != "value_error":
        return FieldProblem(field="body", message="expected a JSON object, sent as application/json")
    return FieldProblem(field=field_path(location) or str(source), message=describe_fault(details))


def _respond_always(status: HTTPStatus, detail: str) -> Callable[[Request, Exception], Response]:
    return lambda request, error: _respond(request, status, detail)


def _handle_database_outage(request: Request, error: Exception) -> Response:
    log.warning("database.unavailable", reason=describe_outage(error), error=str(getattr(error, "orig", error)).strip())
    detail = f"the database {describe_outage(error)}: try again in a moment"
    return _handle_http_exception(request, unavailable(detail))


HANDLERS: Mapping[type[Exception], Callable[[Request, Exception], Response]] = {
    HTTPException: _handle_http_exception,
    RequestValidationError: _handle_validation_error,
    IntegrityError: _respond_always(
        HTTPStatus.CONFLICT,
        "data that this request depends on was changed at the same time: read it again, and repeat the request",
    ),
    DataError: _respond_always(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "the request contains a value that cannot be stored, such as the character NUL",
    ),
    OperationalError: _handle_database_outage,
    InterfaceError: _handle_database_outage,
    PoolTimeoutError: _handle_database_outage,
}
