"""FastAPI dependencies of the endpoints: application context, database session, and clock."""

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated

from anyio import Semaphore
from fastapi import Depends, Request
from sqlalchemy.orm import Session

from api.access.authenticator import Authenticator
from api.access.rate_limits import RateLimiter
from api.access.sessions import SessionCookies
from api.health.readiness import Readiness
from api.http.stream_limiter import StreamLimiter
from api.metrics.requests import RequestMetrics
from greencore.clock import Clock
from runtime.catalogue import CatalogueEntry
from runtime.settings import Settings
from store.database import Database
from store.event_feed import EventFeed

# A request keeps its connection while it waits for a thread. Without a bound below the pool's size (15) a burst of
# requests would hold all connections and wait for threads, and all threads would wait for connections.
MAX_CONCURRENT_SESSIONS = 10
READ_METHODS = ("GET", "HEAD")


@dataclass(frozen=True)
class AppContext:
    """Objects that one application shares among all its requests."""

    settings: Settings
    database: Database
    catalogue: Mapping[str, CatalogueEntry]
    clock: Clock
    authenticator: Authenticator
    session_cookies: SessionCookies
    rate_limiter: RateLimiter
    event_feed: EventFeed
    stream_limiter: StreamLimiter
    request_metrics: RequestMetrics
    readiness: Readiness
    session_slots: Semaphore = field(default_factory=lambda: Semaphore(MAX_CONCURRENT_SESSIONS))


def _context(request: Request) -> AppContext:
    context = request.app.state.context
    assert isinstance(context, AppContext)
    return context


AppContextDep = Annotated[AppContext, Depends(_context)]


async def _hold_session_slot(context: AppContextDep) -> AsyncIterator[None]:
    async with context.session_slots:
        yield


def _session(
    request: Request, context: AppContextDep, _: Annotated[None, Depends(_hold_session_slot, scope="function")]
) -> Iterator[Session]:
    # A GET reads one snapshot: statements that see different states would give one ETag two bodies.
    reads = request.method in READ_METHODS
    with context.database.snapshot() if reads else context.database.session() as session:
        yield session


def _now(context: AppContextDep) -> datetime:
    return context.clock()


# Commits before the response is sent, so that no response reports what is not stored. Read-only in a GET, which writes
# in a separate session if it must.
SessionDep = Annotated[Session, Depends(_session, scope="function")]
NowDep = Annotated[datetime, Depends(_now)]
