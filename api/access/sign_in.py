"""`/sign-in` and `/sign-out`: start and end a browser's session with a key."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from api.access.authenticator import KeyRefused
from api.access.principal import PrincipalDep
from api.access.provenance import client_address, is_same_origin, safe_redirect_path
from api.access.rate_limits import network_of
from api.access.sessions import SESSION_COOKIE, BrowserSession
from api.dependencies import AppContext, AppContextDep
from api.http.problems import Problem
from api.templating import render_page
from store.repositories.keys import KeyRepository

router = APIRouter(include_in_schema=False)


@router.get("/sign-in")
def sign_in_page(next_path: Annotated[str, Query(alias="next")] = "/") -> HTMLResponse:
    """Return the form for a key."""
    return _page(next_path)


@router.post("/sign-in")
def sign_in(
    request: Request,
    context: AppContextDep,
    key: Annotated[str, Form()] = "",
    next_path: Annotated[str, Form(alias="next")] = "/",
) -> Response:
    """Start a session and redirect to the requested page."""
    address = network_of(client_address(request))
    if not is_same_origin(request):
        raise Problem(HTTPStatus.FORBIDDEN, "the form of /sign-in is only accepted from that page")
    context.rate_limiter.check_failures(address)
    request.state.credentials_presented = True
    try:
        principal = context.authenticator.authenticate_key(key.strip())
    except KeyRefused as refused:
        context.rate_limiter.count_failure(address)
        request.state.refused_key_id = refused.key_id
        return _page(next_path, error=str(refused), status=HTTPStatus.UNAUTHORIZED)
    assert principal.key_id is not None, "a key's principal names it"
    request.state.principal = principal
    response = RedirectResponse(safe_redirect_path(next_path), HTTPStatus.SEE_OTHER)
    previous = context.session_cookies.read(request.cookies.get(SESSION_COOKIE, ""))
    if previous is not None:
        _end(context, previous)
    context.session_cookies.set_cookie(request, response, principal.key_id)
    return response


@router.post("/sign-out")
def sign_out(principal: PrincipalDep, context: AppContextDep) -> Response:
    """End this browser's session, for every copy of its cookie; other API processes notice within seconds."""
    response = RedirectResponse("/sign-in", HTTPStatus.SEE_OTHER)
    if principal.session is not None:
        _end(context, principal.session)
    context.session_cookies.clear_cookie(response)
    return response


def _end(context: AppContext, session: BrowserSession) -> None:
    with context.database.session() as transaction:
        KeyRepository(transaction).end_session(session.id, expires_at=session.expires_at)
    context.authenticator.forget_session(session)


def _page(next_path: str, *, error: str | None = None, status: HTTPStatus = HTTPStatus.OK) -> HTMLResponse:
    next_path = safe_redirect_path(next_path)
    return render_page("sign_in.html", status=status, title="Sign in", next_path=next_path, error=error)
