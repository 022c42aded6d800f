"""`Idempotency-Key`: executes a request once per key; a repeat gets the first response again."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, Header, Request, Response
from pydantic import BaseModel
from sqlalchemy.orm import Session

from api.access.principal import PrincipalDep
from api.dependencies import AppContextDep, NowDep, SessionDep
from api.http.problems import invalid_field
from store.repositories.idempotency import IdempotencyRepository
from store.tables import IdempotencyKey as StoredResponse

HEADER = "Idempotency-Key"
REPLAYED_HEADER = "Idempotency-Replayed"

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias=HEADER,
        min_length=1,
        max_length=255,
        pattern=r"^[ -~]+$",
        description="Chosen by the client; a repeat of the request with it gets the first response, and does nothing",
    ),
]


@dataclass(frozen=True)
class IdempotentRequest:
    """A request that creates something, executed once per owner and key; without a key, each time it is sent.

    Only successful responses are stored: a refused request may be corrected and sent again under the same key.
    """

    session: Session
    owner: str
    key: str | None
    request_sha256: str
    now: datetime
    retention: timedelta

    def stored_response(self) -> Response | None:
        """Return the stored response of this key, byte for byte; None if the request is to be executed.

        Raises the 422 if the key was used for another request.
        """
        if self.key is None:
            return None
        since = self.now - self.retention
        first = IdempotencyRepository(self.session).find_response(self.owner, self.key, since=since)
        if first is None:
            return None
        if first.request_sha256 != self.request_sha256:
            used = first.created_at.isoformat(timespec="seconds")
            raise invalid_field(
                HEADER, f"was used at {used} for another request: expected the same one, or another key"
            )
        return _json(first.body, first.status, {**first.headers, REPLAYED_HEADER: "true"})

    def respond(self, body: BaseModel, *, status: HTTPStatus, headers: Mapping[str, str]) -> Response:
        """Return a success response, and store it in the request's transaction."""
        text = body.model_dump_json()
        if self.key is not None:
            IdempotencyRepository(self.session).store_response(
                StoredResponse(
                    owner=self.owner,
                    key=self.key,
                    request_sha256=self.request_sha256,
                    status=status,
                    headers=dict(headers),
                    body=text,
                    created_at=self.now,
                )
            )
        return _json(text, status, headers)


def created_responses(
    what: type[BaseModel], headers: Mapping[str, Any] | None = None
) -> dict[int | str, dict[str, Any]]:
    """Declare the 201 and the headers of a route that answers through `IdempotentRequest`."""
    return {
        HTTPStatus.CREATED.value: {
            "model": what,
            "headers": {
                REPLAYED_HEADER: {
                    "description": "Present if this is the first response again",
                    "schema": {"type": "string", "enum": ["true"]},
                },
                **(headers or {}),
            },
        }
    }


async def _idempotent_request(
    request: Request,
    principal: PrincipalDep,
    context: AppContextDep,
    session: SessionDep,
    now: NowDep,
    key: IdempotencyKey = None,
) -> IdempotentRequest:
    digest = "" if key is None else _digest(request, await request.body())
    retention = timedelta(hours=context.settings.idempotency_hours)
    return IdempotentRequest(session, principal.owner, key, digest, now, retention)


# Reads the body, which FastAPI keeps only if it is JSON: not for forms.
IdempotentRequestDep = Annotated[IdempotentRequest, Depends(_idempotent_request)]


def _digest(request: Request, body: bytes) -> str:
    """Return a digest of a request that is the same for every encoding of its JSON."""
    with suppress(ValueError, RecursionError):  # not JSON, which the route refuses
        body = json.dumps(json.loads(body), sort_keys=True, separators=(",", ":")).encode()
    target = f"{request.method} {request.url.path}\n".encode()
    return hashlib.sha256(target + body).hexdigest()


def _json(body: str, status: int, headers: Mapping[str, str]) -> Response:
    return Response(body, status, headers, media_type="application/json")
