"""`/sign-in` and `/sign-out`: a browser's way to use a key without holding on to it."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from api.access.authenticator import KeyRefused
from api.access.principal import PrincipalDep
from api.access.provenance import address_of, from_own_page, local_path
from api.access.rate_limits import network_of
from api.access.sessions import COOKIE, BrowserSession
from api.context import Context, ContextDep
from api.problems import Problem
from api.templating import render
from store.keys import KeyRepository

router = APIRouter(include_in_schema=False)


@router.get("/sign-in")
def sign_in_page(onwards: Annotated[str, Query(alias="next")] = "/") -> HTMLResponse:
    """A form for a key."""
    return _page(onwards)


@router.post("/sign-in")
def sign_in(
    request: Request,
    context: ContextDep,
    key: Annotated[str, Form()] = "",
    onwards: Annotated[str, Form(alias="next")] = "/",
) -> Response:
    """Begins a session and goes on to the page that was asked for."""
    address = network_of(address_of(request))
    if not from_own_page(request):
        raise Problem(HTTPStatus.FORBIDDEN, "the form of /sign-in is sent from that page alone")
    context.limits.check_failures(address)
    request.state.named = True
    try:
        principal = context.authenticator.by_text(key.strip())
    except KeyRefused as refused:
        context.limits.failed(address)
        request.state.refused_key_id = refused.key_id
        return _page(onwards, error=str(refused), status=HTTPStatus.UNAUTHORIZED)
    assert principal.key_id is not None, "a key's principal names it"
    request.state.principal = principal
    response = RedirectResponse(local_path(onwards), HTTPStatus.SEE_OTHER)
    previous = context.sessions.read(request.cookies.get(COOKIE, ""))
    if previous is not None:
        _end(context, previous)
    context.sessions.begin(request, response, principal.key_id)
    return response


@router.post("/sign-out")
def sign_out(principal: PrincipalDep, context: ContextDep) -> Response:
    """Ends the session of this browser, for every copy of its cookie: other API processes notice in seconds."""
    response = RedirectResponse("/sign-in", HTTPStatus.SEE_OTHER)
    if principal.session is not None:
        _end(context, principal.session)
    context.sessions.end(response)
    return response


def _end(context: Context, session: BrowserSession) -> None:
    with context.database.session() as transaction:
        KeyRepository(transaction).end_session(session.id, expires_at=session.expires_at)
    context.authenticator.forget_session(session)


def _page(onwards: str, *, error: str | None = None, status: HTTPStatus = HTTPStatus.OK) -> HTMLResponse:
    page = render("sign_in.html", title="Sign in", onwards=local_path(onwards), error=error)
    page.status_code = status
    return page
