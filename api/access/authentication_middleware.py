"""Authenticates every request by key, session or local access, except for the public paths named here."""

from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.access import provenance
from api.access.authenticator import KeyRefused
from api.access.principal import Principal, find_principal
from api.access.rate_limits import network_of
from api.access.sessions import SESSION_COOKIE
from api.dependencies import AppContext
from api.http import problems
from api.http.content_negotiation import prefers_html
from api.http.problems import Problem

# Probes, the sign-in page and its static files need no key.
PUBLIC_PATHS = ("/livez", "/readyz")
SIGN_IN = "/sign-in"
STATIC = "/static/"
LOCAL_OPERATOR = Principal("local", "operator")


class AuthenticationMiddleware:
    """Middleware that sets `request.state.principal` before the body is read.

    A request without a principal is answered 401 or, if a browser requests a page, redirected to `/sign-in`. Counts
    requests against the rate limits, and makes responses `no-store` unless their route says otherwise.
    `request.state.credentials_presented` tells the audit log that a key or a session was presented.
    """

    def __init__(self, app: ASGIApp, *, context: AppContext) -> None:
        self._app, self._context = app, context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PUBLIC_PATHS or scope["path"].startswith(STATIC):
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        headers: Mapping[str, str] = {}
        refusal: Response | None = None
        try:
            if request.url.path != SIGN_IN:
                request.state.principal = await self._principal(request)
            headers = self._context.rate_limiter.count_request(_rate_limit_subject(request))
        except Exception as error:  # noqa: BLE001  (raised again unless it has a response)
            refusal = self._refusal(request, error)

        async def send_uncached(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = MutableHeaders(scope=message)
                own.setdefault("Cache-Control", "no-store")
                for name, value in headers.items():
                    own.setdefault(name, value)
            await send(message)

        await (refusal or self._app)(scope, receive, send_uncached)

    async def _principal(self, request: Request) -> Principal:
        """Return the request's principal. Raises the 401, 403 or 429 for a request without one."""
        address = network_of(provenance.client_address(request))
        authorization, cookie = request.headers.get("authorization"), request.cookies.get(SESSION_COOKIE)
        request.state.credentials_presented = authorization is not None or cookie is not None
        try:
            if authorization is not None:
                return await self._authenticate_key(authorization)
            if cookie is not None:
                return await self._authenticate_session(request, cookie)
        except KeyRefused as refused:
            # Only refused keys are limited: a client with a valid key may share its address with one that guesses.
            self._context.rate_limiter.check_failures(address)
            self._context.rate_limiter.count_failure(address)
            if authorization is not None or not self._is_open(request):
                request.state.refused_key_id = refused.key_id
                raise _unauthorized(str(refused), error="invalid_token") from refused
        if self._is_open(request):
            return LOCAL_OPERATOR
        raise _unauthorized("send a key as `Authorization: Bearer gtk_…`: operators create keys with POST /keys")

    async def _authenticate_key(self, authorization: str) -> Principal:
        scheme, _, text = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise KeyRefused(f"expected `Authorization: Bearer gtk_…`, not the scheme {scheme[:20]!r}")
        known = self._context.authenticator.cached_key_principal(text.strip())
        if known is not None:
            return known
        return await run_in_threadpool(self._context.authenticator.authenticate_key, text.strip())

    async def _authenticate_session(self, request: Request, cookie: str) -> Principal:
        session = self._context.session_cookies.read(cookie)
        if session is None:
            raise KeyRefused("this session is over: sign in again at /sign-in")
        principal = self._context.authenticator.cached_session_principal(session)
        if principal is None:
            principal = await run_in_threadpool(self._context.authenticator.authenticate_session, session)
        if not provenance.has_safe_method(request) and not provenance.is_same_origin(request):
            request.state.refused_key_id = principal.key_id
            raise Problem(
                HTTPStatus.FORBIDDEN,
                "a session may change data only from a page of this service: programs send a key as "
                "`Authorization: Bearer gtk_…`",
            )
        return principal

    def _is_open(self, request: Request) -> bool:
        return self._context.settings.open_on_loopback and provenance.is_local_request(request)

    def _refusal(self, request: Request, error: Exception) -> Response:
        """Return the response to a refused request, and count an unauthenticated one by its address."""
        unauthorized = isinstance(error, Problem) and error.status_code == HTTPStatus.UNAUTHORIZED
        if unauthorized:
            try:
                self._context.rate_limiter.count_request(_rate_limit_subject(request))
            except Problem as too_many:
                return problems.respond_to_error(request, too_many)
        if unauthorized and prefers_html(request):
            next_path = provenance.requested_path(request) if provenance.has_safe_method(request) else "/"
            return RedirectResponse(f"{SIGN_IN}?next={quote(next_path, safe='')}", HTTPStatus.SEE_OTHER)
        return problems.respond_to_error(request, error)


def _rate_limit_subject(request: Request) -> str:
    """Return the subject whose requests are counted together: the key, else the address."""
    principal = find_principal(request)
    if principal is not None and principal.key_id is not None:
        return f"key {principal.key_id}"
    return f"address {network_of(provenance.client_address(request))}"


def _unauthorized(detail: str, *, error: str | None = None) -> Problem:
    challenge = 'Bearer realm="greentune"' + (f', error="{error}"' if error else "")
    return Problem(HTTPStatus.UNAUTHORIZED, detail, headers={"WWW-Authenticate": challenge})
