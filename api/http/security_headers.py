"""Security headers of responses, which restrict what a browser may load, frame or guess."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    # Without a referrer, a browser would also omit the origin of a form.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


# Ignored by browsers except over HTTPS. Subdomains may belong to other services.
HTTPS_ONLY = {"Strict-Transport-Security": "max-age=31536000"}


class SecurityHeadersMiddleware:
    """Middleware that sets `HEADERS` on every response, and `HTTPS_ONLY` over HTTPS."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = HEADERS | HTTPS_ONLY if scope.get("scheme") == "https" else HEADERS

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(headers)
            await send(message)

        await self._app(scope, receive, send_with_headers)
