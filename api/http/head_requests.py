"""Answers HEAD as GET without the body, on every path that takes GET (RFC 9110, 9.3.2)."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class HeadMiddleware:
    """Middleware that runs the application's GET for a HEAD, and cancels it once the headers are sent.

    An event stream would never end by itself, and a file of gigabytes need not be read. The headers are those of GET,
    `Content-Length` included.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        answered = asyncio.Event()

        async def send_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                # Outer middleware sees the request as it was sent.
                scope["method"] = "HEAD"
                await send(message)
            elif not answered.is_set():
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                answered.set()
                await asyncio.Event().wait()  # until it is cancelled

        scope["method"] = "GET"
        running = asyncio.ensure_future(self._app(scope, receive, send_headers))
        waiting = asyncio.ensure_future(answered.wait())
        try:
            await asyncio.wait((running, waiting), return_when=asyncio.FIRST_COMPLETED)
        finally:
            scope["method"] = "HEAD"
            running.cancel()
            waiting.cancel()
            await asyncio.wait((running, waiting))
        if not running.cancelled():
            running.result()  # raises what the application raised
