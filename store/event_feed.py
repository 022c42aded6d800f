"""Events as they are written: one connection a process listens, and wakes whoever follows the job.

A notification only says that there is something to read: what followers get is read from the table, where the ids of
one job become visible in their order. So a notification that was lost delays an event and never skips it.
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
# Between two tries to listen, each of which is followed by a look for new events.
RECONNECT_SECONDS = 1.0
MAX_BATCH_EVENTS = 200
READERS = 2


@dataclass(frozen=True)
class EventBatch:
    """Events of a job in the order of their ids, and where it stood just before they were read.

    `ended` is the status of a job that is over, all of whose events have been told with these; None before that.
    """

    events: Sequence[Event]
    ended: JobStatus | None


class _FollowedJob:
    """What the followers of one job share: the wake-up, the reads under way, the newest event that is known."""

    def __init__(self) -> None:
        self.followers = 0
        self.newest = 0
        self.unread = False  # a read has failed, and nothing but the next check repeats it
        self.woken = asyncio.Event()
        self.reads: dict[int, asyncio.Future[EventBatch | None]] = {}

    def wake(self) -> None:
        """Let every follower read, and none of them be content with a read that began before this."""
        self.reads.clear()
        self.unread = False
        self.woken.set()
        self.woken = asyncio.Event()


class EventFeed:
    """Tells any number of followers in one event loop of the events of their jobs.

    While anybody follows, one connection listens. Reading takes a thread and a connection of `database` for an
    instant, and followers of one job that stand at the same event share it; a follower that waits holds neither.
    Every quarter of a minute, whenever the listening connection had to be opened again, and every few seconds while it
    cannot be made, one query over all followed jobs finds what no notification told of.
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
        """Hear of a job's events until this is left; around `stream_batches`."""
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
        """Every event of a followed job with an id above `after`, those to come included.

        After `quiet_seconds` without events comes an empty EventBatch. Ends once the job is over and all is told, and
        when the feed is closed. A database that is away is waited for.
        """
        followed = self._jobs[job_id]
        while not self._closing:
            woken = followed.woken  # taken before the read: what is written after it wakes again
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
        """Let every follower come to its end; nobody can follow from here on."""
        self._closing = True
        for followed in self._jobs.values():
            followed.wake()

    def _open(self) -> None:
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="event-feed")
        nobodys = contextvars.Context()  # what is logged of listening belongs to no request
        self._listener = asyncio.get_running_loop().create_task(self._listen(), context=nobodys)

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
        """What is to tell now; None where the database does not answer."""
        try:
            with self._database.session() as session:
                # The status first: the event that ended the job was written with it, and so is among those read next.
                status = session.scalar(select(Job.status).where(Job.id == job_id))
                query = select(Event).where(Event.job_id == job_id, Event.id > after).order_by(Event.id)
                events = session.scalars(query.limit(MAX_BATCH_EVENTS)).all()
        except (DBAPIError, PoolTimeoutError) as error:
            log.warning("events.unread", job=job_id, error=str(error).strip())
            return None
        over = status in FINAL and len(events) < MAX_BATCH_EVENTS
        return EventBatch(events, status if over else None)

    async def _listen(self) -> None:
        """Wake followers for as long as there are any: by notifications, or by polling while none can be received."""
        said: str | None = None
        while True:
            try:
                await self._listen_on_one_connection()
            except (psycopg.Error, SQLAlchemyError) as error:
                why = str(error).strip()
                if self._listens or why != said:  # once for a long outage, not once for each try
                    log.warning("events.unheard", error=why, polled_every_s=RECONNECT_SECONDS)
                self._listens, said = False, why
            except Exception:
                log.exception("events.unheard", polled_every_s=RECONNECT_SECONDS)
            await asyncio.sleep(_add_jitter(RECONNECT_SECONDS))
            with suppress(SQLAlchemyError):  # the next try to listen says that the database is away
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
        """Wake the followers of every job that has an event which none of them has read."""
        loop = asyncio.get_running_loop()
        for job_id, newest in (await loop.run_in_executor(self._readers, self._newest, list(self._jobs))).items():
            followed = self._jobs.get(job_id)
            if followed is not None and (newest > followed.newest or followed.unread):
                followed.newest = max(newest, followed.newest)
                followed.wake()

    def _newest(self, job_ids: Collection[str]) -> dict[str, int]:
        query = (
            select(Event.job_id, func.max(Event.id).label("newest"))
            .where(Event.job_id.in_(job_ids))
            .group_by(Event.job_id)
        )
        with self._database.session() as session:
            return {row.job_id: row.newest for row in session.execute(query)}


def _add_jitter(seconds: float) -> float:
    """So that processes which lost the same server do not all come back at once."""
    return seconds * random.uniform(0.8, 1.2)  # noqa: S311  (no secret)
