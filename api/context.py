"""What every endpoint may ask for: settings, catalogue, clock, and a session that the request owns."""

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated

from anyio import Semaphore
from fastapi import Depends, Request
from sqlalchemy.orm import Session

from api.access.authenticator import Authenticator
from api.access.rate_limits import RateLimits
from api.access.sessions import Sessions
from api.event_seats import EventSeats
from api.health.readiness import Readiness
from api.metrics.requests import RequestMetrics
from greencore.clock import Clock
from store.catalogue import CatalogueEntry
from store.database import Database
from store.event_feed import EventFeed
from store.settings import Settings

# A request keeps its connection while it waits for a thread. Without a bound below the pool's size (15) a burst of
# requests would hold all connections and wait for threads, and all threads would wait for connections.
SESSIONS_AT_ONCE = 10
READING = ("GET", "HEAD")


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
    request_metrics: RequestMetrics
    readiness: Readiness
    turns: Semaphore = field(default_factory=lambda: Semaphore(SESSIONS_AT_ONCE))


def _context(request: Request) -> Context:
    context = request.app.state.context
    assert isinstance(context, Context)
    return context


ContextDep = Annotated[Context, Depends(_context)]


async def _turn(context: ContextDep) -> AsyncIterator[None]:
    async with context.turns:
        yield


def _session(
    request: Request, context: ContextDep, _: Annotated[None, Depends(_turn, scope="function")]
) -> Iterator[Session]:
    # What a GET answers is of one moment: two statements of different ones would give one ETag two bodies.
    reads = request.method in READING
    with context.database.snapshot() if reads else context.database.session() as session:
        yield session


def _now(context: ContextDep) -> datetime:
    return context.clock()


# Ends, and thereby commits, before the response is sent: an answer must not run ahead of what it promises. Of a GET it
# is for reading alone: what one has to write, it writes in a session of its own.
SessionDep = Annotated[Session, Depends(_session, scope="function")]
NowDep = Annotated[datetime, Depends(_now)]
