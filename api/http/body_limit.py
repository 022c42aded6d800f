"""Limits request bodies by their size, announced or counted, and by their number of values."""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.problems import FieldProblem, Problem, closing_problem

# Separators of JSON values and form fields. Each value costs far more memory and time than its bytes.
SEPARATORS = (b",", b"&")


@dataclass(frozen=True)
class BodyLimits:
    """Limits of a body; `max_values` is None if it is read as a file."""

    max_bytes: int
    max_values: int | None


class BodyLimitMiddleware:
    """Middleware that answers 413 to a body of more bytes than `default` allows, and 422 to one of more values.

    Values are counted by their separators as the body arrives, since parsing it would block the event loop. `overrides`
    maps calls, by method and path, to other limits. FastAPI's own limit answers an announced length in plain text, and
    this API promises problems.
    """

    def __init__(
        self, app: ASGIApp, *, default: BodyLimits, overrides: Mapping[tuple[str, str], BodyLimits] | None = None
    ) -> None:
        self._app = app
        self._default = default
        self._overrides = dict(overrides or {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limits = self._overrides.get((scope["method"], scope["path"]), self._default)
        announced = Headers(scope=scope).get("content-length", "")
        # `int` refuses thousands of digits; nineteen exceed any limit.
        announced_bytes = int(announced[:19]) if announced.isdecimal() else 0
        received_bytes = received_separators = 0

        async def receive_within_limit() -> Message:
            nonlocal received_bytes, received_separators
            if announced_bytes > limits.max_bytes:
                raise _too_large(limits.max_bytes)
            message = await receive()
            body = message.get("body", b"")
            received_bytes += len(body)
            if received_bytes > limits.max_bytes:
                raise _too_large(limits.max_bytes)
            if limits.max_values is not None:
                received_separators += sum(body.count(separator) for separator in SEPARATORS)
                if received_separators >= limits.max_values:
                    raise _too_many(limits.max_values)
            return message

        # Raised by `receive`, so that the application's error handler answers.
        await self._app(scope, receive_within_limit, send)


def _too_large(max_bytes: int) -> Problem:
    detail = f"the body is larger than {max_bytes} bytes, the most that this service takes"
    return closing_problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)


def _too_many(values: int) -> Problem:
    message = f"contains more than {values:,} values, counted by separators: expected fewer"
    errors = [FieldProblem(field="body", message=message)]
    return closing_problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"body: {message}", errors)
