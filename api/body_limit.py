"""Refuses request bodies that are too large, by their announced length or by counting."""

from collections.abc import Mapping
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import Problem


class BodyLimit:
    """Middleware that answers 413 to a body of more than `max_bytes`.

    `others` names the calls, by method and path, that have a limit of their own. FastAPI's own limit answers in plain
    text where a length was announced, and this API promises problems.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, others: Mapping[tuple[str, str], int] | None = None) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._others = dict(others or {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        max_bytes = self._others.get((scope["method"], scope["path"]), self._max_bytes)
        announced = Headers(scope=scope).get("content-length", "")
        # Of thousands of digits Python makes no number; nineteen are more than any limit.
        announced_bytes = int(announced[:19]) if announced.isdecimal() else 0
        received_bytes = 0

        async def receive_within_limit() -> Message:
            nonlocal received_bytes
            if announced_bytes > max_bytes:
                raise _too_large(max_bytes)
            message = await receive()
            received_bytes += len(message.get("body", b""))
            if received_bytes > max_bytes:
                raise _too_large(max_bytes)
            return message

        # Raised out of the read, so that it reaches the application's own error handler.
        await self._app(scope, receive_within_limit, send)


def _too_large(max_bytes: int) -> Problem:
    return Problem(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"the body is larger than {max_bytes} bytes, the most that this service takes",
        # What is left of the body is not read, so the connection cannot carry another request.
        headers={"Connection": "close"},
    )
