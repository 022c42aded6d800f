"""Follows a job by cached polls and a stream of events that reconnects, and waits for what a worker counts."""

import time
from collections.abc import Iterator

import httpx
from httpx_sse import EventSource, ServerSentEvent

from greentune.errors import Problem, ServiceError, StillCounting, StillRunning, UnexpectedAnswer, Unreachable
from greentune.models import Event, Job
from greentune.transport import A, Params, Transport, parse_answer, resource_path

END_EVENT = "stream.end"
# Above the 15 s after which the service sends a comment on an idle stream.
READ_TIMEOUT_SECONDS = 45.0
RETRY_SECONDS = 2.0
# Longest absence of a service that restarts.
OUTAGE_TIMEOUT_SECONDS = 120.0
MAX_CACHED_JOBS = 64
# Too many requests, and what a gateway answers for a service that restarts.
TRANSIENT_STATUSES = frozenset({429, 502, 503, 504})


class JobPoller:
    """Reads jobs with the ETags of its cache, so that an unchanged job is not sent again."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._cache: dict[str, tuple[str, Job]] = {}

    def job(self, job_id: str) -> Job:
        """Return the job; the same object where it has not changed."""
        tag, cached = self._cache.pop(job_id, (None, None))
        headers = {} if tag is None else {"If-None-Match": tag}
        response = self._transport.call("GET", resource_path("jobs", job_id), headers=headers, repeatable=True)
        unchanged = response.status_code == httpx.codes.NOT_MODIFIED
        job = cached if unchanged and cached is not None else parse_answer(Job, response)
        if "etag" in response.headers:
            while len(self._cache) >= MAX_CACHED_JOBS:
                del self._cache[next(iter(self._cache))]
            self._cache[job_id] = response.headers["etag"], job
        return job

    def changes(self, job_id: str, *, seconds: float, timeout: float | None = None) -> Iterator[Job]:
        """Yield the job at each change, as `Client.changes`; an absent service is waited for OUTAGE_TIMEOUT_SECONDS."""
        begun_at = time.monotonic()
        shown: Job | None = None
        away_since: float | None = None
        while True:
            try:
                job = self.job(job_id)
            except (Unreachable, Problem) as error:
                away_since = away_since or time.monotonic()
                if shown is None or not is_transient(error) or time.monotonic() - away_since > OUTAGE_TIMEOUT_SECONDS:
                    raise
            else:
                away_since = None
                if job is not shown:
                    shown = job
                    yield job
                if job.is_over:
                    return
            if timeout is not None and time.monotonic() - begun_at + seconds > timeout:
                raise StillRunning(f"{job_id} is not over after {timeout:g} s")
            time.sleep(seconds)


def follow_events(transport: Transport, job_id: str, *, after: int | None = None) -> Iterator[Event]:
    """Stream the events of a job after the event `after`, earliest first, until it is over.

    A broken stream is resumed. Raises `Unreachable` after OUTAGE_TIMEOUT_SECONDS without the service.
    """
    last_id, retry_seconds, away_since = after, RETRY_SECONDS, time.monotonic()
    while True:
        try:
            for message in _open_stream(transport, job_id, last_id):
                away_since = time.monotonic()
                if message.retry is not None:
                    retry_seconds = message.retry / 1000
                if message.event == END_EVENT:
                    return
                if message.data:
                    event = _parse_event(message)
                    last_id = event.id
                    yield event
        except (Unreachable, Problem) as error:
            if not is_transient(error) or time.monotonic() - away_since > OUTAGE_TIMEOUT_SECONDS:
                raise
        time.sleep(retry_seconds)


def wait_for_counts(transport: Transport, kind: type[A], path: str, params: Params, *, timeout: float | None) -> A:
    """Request what a worker counts until it is there, as often as the service says.

    Raises `StillCounting` where it is not there within `timeout` seconds.
    """
    begun_at = time.monotonic()
    while True:
        response = transport.call("GET", path, params=params, repeatable=True)
        if response.status_code != httpx.codes.ACCEPTED:
            return parse_answer(kind, response)
        seconds = _parse_seconds(response.headers.get("retry-after"))
        if timeout is not None and time.monotonic() - begun_at + seconds > timeout:
            raise StillCounting(f"{path}: a prepare worker has not counted the tokens after {timeout:g} s")
        time.sleep(seconds)


def is_transient(error: ServiceError) -> bool:
    """Return whether a retry may succeed: the service, or a gateway before it, is temporarily unavailable."""
    if isinstance(error, Problem):
        return error.status in TRANSIENT_STATUSES
    return isinstance(error, Unreachable)


def _open_stream(transport: Transport, job_id: str, last_id: int | None) -> Iterator[ServerSentEvent]:
    headers = {"Accept": "text/event-stream"}
    if last_id is not None:
        headers["Last-Event-ID"] = str(last_id)
    path = resource_path("jobs", job_id, "events")
    with transport.stream(path, headers=headers, read_seconds=READ_TIMEOUT_SECONDS) as response:
        if response.status_code == httpx.codes.NO_CONTENT:
            yield ServerSentEvent(END_EVENT)  # the job is over, and all of its events were sent
        else:
            kind = response.headers.get("content-type", "")
            if not kind.startswith("text/event-stream"):
                raise UnexpectedAnswer(f"GET {path}: expected events, got {kind or 'no content type'}")
            yield from EventSource(response).iter_sse()


def _parse_event(message: ServerSentEvent) -> Event:
    try:
        return Event.model_validate_json(message.data)
    except ValueError as error:
        raise UnexpectedAnswer(f"not an event in the expected format: {error}") from error


def _parse_seconds(text: str | None) -> float:
    """Return the seconds of a Retry-After, within a minute; RETRY_SECONDS without one."""
    return min(float(text), 60.0) if text and text.isdecimal() else RETRY_SECONDS
