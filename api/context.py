"""What every endpoint may ask for: settings, catalogue, clock, and a session that the request owns."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.orm import Session

from api.access.authenticator import Authenticator
from api.access.rate_limits import RateLimits
from api.access.sessions import Sessions
from api.event_seats import EventSeats
from greencore.clock import Clock
from store.catalogue import CatalogueEntry
from store.database import Database
from store.event_feed import EventFeed
from store.settings import Settings


@dataclass(frozen=True)
class Context:
    """What an application is made with, for as long as it lives."""

    settings: Settings
    database: Database
    catalogue: Mapping[str, CatalogueEntry]
    clock: Clock
    authenticator: Authenticator
    sessions: Sessions
    limits: RateLimits
    event_feed: EventFeed
    event_seats: EventSeats


def _context(request: Request) -> Context:
    context = request.app.state.context
    assert isinstance(context, Context)
    return context


ContextDep = Annotated[Context, Depends(_context)]


def _session(context: ContextDep) -> Iterator[Session]:
    with context.database.session() as session:
        yield session


def _now(context: ContextDep) -> datetime:
    return context.clock()


# Ends, and thereby commits, before the response is sent: an answer must not run ahead of what it promises.
SessionDep = Annotated[Session, Depends(_session, scope="function")]
NowDep = Annotated[datetime, Depends(_now)]
