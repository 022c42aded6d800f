"""Streams job events as they are written: one connection per process listens, and wakes the job's followers.

A notification only triggers a read of the table, in which the events of a job become visible in the order of their ids.
A lost notification therefore delays an event but never skips it.
"""

import asyncio
import contextvars
import random
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psycopg
import structlog
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from store.database import Database, connection_arguments
from store.lifecycle.status import FINAL, JobStatus
from store.tables import Event, Job
from store.tables.jobs import EVENT_CHANNEL

log = structlog.get_logger()

CHECK_SECONDS = 15.0
# Between two attempts to listen, each followed by a check for new events.
RECONNECT_SECONDS = 1.0
MAX_BATCH_EVENTS = 200
READERS = 2


@dataclass(frozen=True)
class EventBatch:
    """Events of a job in the order of their ids.

    `ended` is the job's final status in the batch that completes its events; None before.
    """

    events: Sequence[Event]
    ended: JobStatus | None


class _FollowedJob:
    """State that the followers of one job share: wake-up, pending reads, newest known event."""

    def __init__(self) -> None:
        self.followers = 0
        self.newest = 0
        self.unread = False  # a read has failed; the next check repeats it
        self.woken = asyncio.Event()
        self.reads: dict[int, asyncio.Future[EventBatch | None]] = {}

    def wake(self) -> None:
        """Make every follower read again, discarding reads that began before."""
        self.reads.clear()
        self.unread = False
        self.woken.set()
        self.woken = asyncio.Event()


class EventFeed:
    """Streams events to any number of followers in one event loop.

    While there are followers, one connection listens. A read uses a thread and a connection of `database` briefly, and
    is shared by followers of a job that are at the same event; a waiting follower holds neither. One query over all
    followed jobs finds events without a notification: every `CHECK_SECONDS`, after each reconnection of the listener,
    and every `RECONNECT_SECONDS` while it cannot connect.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection_arguments = connection_arguments(database.url)
        self._jobs: dict[str, _FollowedJob] = {}
        self._readers: ThreadPoolExecutor | None = None
        self._listener: asyncio.Task[None] | None = None
        self._listens = False
        self._closing = False

    @contextmanager
    def subscribe(self, job_id: str) -> Iterator[None]:
        """Follow a job within this context, which `stream_batches` requires."""
        if not self._jobs:
            self._open()
        followed = self._jobs.setdefault(job_id, _FollowedJob())
        followed.followers += 1
        try:
            yield
        finally:
            followed.followers -= 1
            if not followed.followers:
                del self._jobs[job_id]
            if not self._jobs:
                self._release()

    async def stream_batches(self, job_id: str, *, after: int, quiet_seconds: float) -> AsyncIterator[EventBatch]:
        """Yield every event of a followed job with an id above `after`, future ones included.

        Yields an empty EventBatch after `quiet_seconds` without events. Ends when the job has ended and its events are
        complete, or the feed is closed. Waits while the database is unavailable.
        """
        followed = self._jobs[job_id]
        while not self._closing:
            woken = followed.woken  # taken before the read, so that a later write wakes again
            batch = await self._read(followed, job_id, after)
            if batch is not None and (batch.events or batch.ended):
                if batch.events:
                    after = batch.events[-1].id
                yield batch
                if batch.ended:
                    return
                continue
            while not woken.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(woken.wait(), quiet_seconds)
                    break
                yield EventBatch((), None)

    def close(self) -> None:
        """End every stream; no job can be followed afterwards."""
        self._closing = True
        for followed in self._jobs.values():
            followed.wake()

    def _open(self) -> None:
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="event-feed")
        # An empty context: the listener's log lines belong to no request.
        self._listener = asyncio.get_running_loop().create_task(self._listen(), context=contextvars.Context())

    def _release(self) -> None:
        assert self._listener is not None
        assert self._readers is not None
        self._listener.cancel()
        self._readers.shutdown(wait=False)
        self._listener = self._readers = None

    async def _read(self, followed: _FollowedJob, job_id: str, after: int) -> EventBatch | None:
        reads = followed.reads
        read = reads.get(after)
        if read is None:
            read = asyncio.get_running_loop().run_in_executor(self._readers, self._load_batch, job_id, after)
            reads[after] = read
            read.add_done_callback(lambda done: reads.pop(after) if reads.get(after) is done else None)
        batch = await asyncio.shield(read)
        if batch is None:
            followed.unread = True
        elif batch.events:
            followed.newest = max(followed.newest, batch.events[-1].id)
        return batch

    def _load_batch(self, job_id: str, after: int) -> EventBatch | None:
        """Return the batch of events after `after`; None where the database is unavailable."""
        try:
            with self._database.session() as session:
                # The status first: the event that ended the job is committed with it, so the next query reads it.
                status = session.scalar(select(Job.status).where(Job.id == job_id))
                query = select(Event).where(Event.job_id == job_id, Event.id > after).order_by(Event.id)
                events = session.scalars(query.limit(MAX_BATCH_EVENTS)).all()
        except (DBAPIError, PoolTimeoutError) as error:
            log.warning("events.unread", job=job_id, error=str(error).strip())
            return None
        over = status in FINAL and len(events) < MAX_BATCH_EVENTS
        return EventBatch(events, status if over else None)

    async def _listen(self) -> None:
        """Wake followers until cancelled: by notifications, or by polling while none can be received."""
        logged: str | None = None
        while True:
            try:
                await self._listen_on_one_connection()
            except (psycopg.Error, SQLAlchemyError) as error:
                why = str(error).strip()
                if self._listens or why != logged:  # once per outage, not once per attempt
                    log.warning("events.unheard", error=why, polled_every_s=RECONNECT_SECONDS)
                self._listens, logged = False, why
            except Exception:
                log.exception("events.unheard", polled_every_s=RECONNECT_SECONDS)
            await asyncio.sleep(_add_jitter(RECONNECT_SECONDS))
            with suppress(SQLAlchemyError):  # the next attempt to listen logs the outage
                await self._check()

    async def _listen_on_one_connection(self) -> None:
        connection = await psycopg.AsyncConnection.connect(**self._connection_arguments, autocommit=True)
        async with connection:
            await connection.execute(f"LISTEN {EVENT_CHANNEL}")
            self._listens = True
            while True:
                await self._check()
                async for notification in connection.notifies(timeout=_add_jitter(CHECK_SECONDS)):
                    followed = self._jobs.get(notification.payload)
                    if followed is not None:
                        followed.wake()

    async def _check(self) -> None:
        """Wake the followers of every job that has an unread event."""
        loop = asyncio.get_running_loop()
        for job_id, newest in (await loop.run_in_executor(self._readers, self._newest, list(self._jobs))).items():
            followed = self._jobs.get(job_id)
            if followed is not None and (newest > followed.newest or followed.unread):
                followed.newest = max(newest, followed.newest)
                followed.wake()

    def _newest(self, job_ids: Collection[str]) -> dict[str, int]:
        query = select(Event.job_id, func.max(Event.id)).where(Event.job_id.in_(job_ids)).group_by(Event.job_id)
        with self._database.session() as session:
            return dict(iter(session.execute(query)))


def _add_jitter(seconds: float) -> float:
    """Return a varied delay, so that processes that lost the same server do not reconnect at once."""
    return seconds * random.uniform(0.8, 1.2)  # noqa: S311  (no secret)
