"""A job's event stream from a real server: replayed, live, and without gaps after failures."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import text

from api.jobs.history import event_stream
from api.main import create_app
from greencore.clock import utc_now
from runtime.settings import Settings
from store import event_feed
from store.database import Database
from store.lifecycle.status import JobStatus
from store.lifecycle.transitions import transition
from store.repositories.jobs import JobRepository
from tests.keys import bearer, new_key

ACCEPT = {"Accept": "text/event-stream"}


@dataclass(frozen=True)
class Server:
    """A server of the test's application, and a client with an operator's key."""

    app: FastAPI
    port: int
    client: httpx.Client


@dataclass(frozen=True)
class Message:
    """A message of a stream."""

    event: str
    data: dict[str, Any]
    id: int | None


@pytest.fixture
def serve(settings: Settings, operator_key: str) -> Iterator[Callable[..., Server]]:
    """Start the application in a thread, with settings changed as named."""
    with ExitStack() as stack:

        def serve(**changed: Any) -> Server:
            app = create_app(settings.model_copy(update=changed))
            port = stack.enter_context(_listening(app))
            client = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=bearer(operator_key), timeout=10)
            return Server(app, port, stack.enter_context(client))

        yield serve


@contextmanager
def _listening(app: FastAPI) -> Iterator[int]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", ws="none", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()


@contextmanager
def stream(client: httpx.Client, job_id: str, *, after: int | None = None) -> Iterator[Iterator[Message]]:
    """Yield the messages of a job's stream."""
    headers = ACCEPT if after is None else {**ACCEPT, "Last-Event-ID": str(after)}
    with client.stream("GET", f"/jobs/{job_id}/events", headers=headers) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        yield messages(response.iter_lines())


def messages(lines: Iterator[str]) -> Iterator[Message]:
    """Parse messages from lines as a browser would."""
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if line:
            fields[name] = value
            continue
        if "data" in fields:
            number = fields.get("id")
            yield Message(fields["event"], json.loads(fields["data"]), None if number is None else int(number))
        fields = {}


def record_event(database: Database, job_id: str, event_type: str = "note") -> None:
    """Write an event as every writer does: with the job's row locked."""
    with database.session() as session:
        jobs = JobRepository(session)
        assert jobs.lock(job_id) is not None
        jobs.record(job_id, event_type, at=utc_now())


def change_status(database: Database, job_id: str, to: JobStatus) -> None:
    with database.session() as session:
        job = JobRepository(session).lock(job_id)
        assert job is not None
        transition(session, job, to, at=utc_now())


def list_event_ids(database: Database, job_id: str) -> list[int]:
    """Return the ids of all of a job's events, in order."""
    with database.session() as session:
        return [event.id for event in reversed(JobRepository(session).events(job_id, limit=10_000).data)]


def test_a_stream_sends_the_history_in_order_then_new_events_and_ends_with_the_job(
    serve: Callable[..., Server], job_id: str, database: Database
) -> None:
    client = serve().client
    change_status(database, job_id, JobStatus.QUEUED)

    with stream(client, job_id) as told:
        history = list(islice(told, 2))
        change_status(database, job_id, JobStatus.CANCELLED)
        [cancelled, end] = list(told)

    assert [message.event for message in history] == ["job.submitted", "job.queued"]
    assert cancelled.event == "job.cancelled"
    assert cancelled.data["data"]["from"] == "queued"
    assert cancelled.id == cancelled.data["id"]
    assert (end.event, end.data, end.id) == ("stream.end", {"status": "cancelled"}, None)


def test_a_stream_continues_after_the_last_event_of_its_client(
    serve: Callable[..., Server], finished_job_id: str, database: Database
) -> None:
    client = serve().client
    ids = list_event_ids(database, finished_job_id)

    with stream(client, finished_job_id, after=ids[2]) as told:
        assert [message.id for message in told] == [*ids[3:], None]

    by_query = client.get(f"/jobs/{finished_job_id}/events?last_event_id={ids[-2]}", headers=ACCEPT)
    assert [message.id for message in messages(iter(by_query.text.split("\n")))] == [ids[-1], None]


def test_a_client_that_has_all_events_of_a_finished_job_gets_204(
    client: TestClient, finished_job_id: str, database: Database
) -> None:
    last = list_event_ids(database, finished_job_id)[-1]

    response = client.get(f"/jobs/{finished_job_id}/events", headers={**ACCEPT, "Last-Event-ID": str(last)})

    assert response.status_code == 204


def test_no_event_is_lost_or_repeated_under_concurrent_writes_and_reconnects(
    serve: Callable[..., Server], job_id: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_feed, "MAX_BATCH_EVENTS", 7)
    client = serve().client
    found: list[int] = []

    def record_events() -> None:
        for _ in range(50):
            record_event(database, job_id)

    with ThreadPoolExecutor(3) as writers:
        writing = [writers.submit(record_events) for _ in range(3)]
        while len(found) < 151:
            with stream(client, job_id, after=found[-1] if found else None) as told:
                found += [message.id for message in islice(told, min(40, 151 - len(found))) if message.id]
        for written in writing:
            written.result()

    assert found == list_event_ids(database, job_id)


def test_a_stream_outlives_its_database_connections(
    serve: Callable[..., Server], job_id: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_feed, "RECONNECT_SECONDS", 0.1)
    with stream(serve().client, job_id) as told:
        next(told)
        for name in ("first", "second"):
            with database.session() as session:
                ended = session.scalars(
                    text(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                    )
                ).all()
            assert any(ended)
            record_event(database, job_id, name)
            assert next(told).event == name


def test_an_event_whose_notification_was_lost_is_found_by_the_next_check(
    serve: Callable[..., Server], job_id: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_feed, "CHECK_SECONDS", 0.2)
    with stream(serve().client, job_id) as told:
        next(told)
        with database.session() as session:
            session.execute(
                text("INSERT INTO events (job_id, at, type, data) VALUES (:job_id, now(), 'silent', '{}')"),
                {"job_id": job_id},
            )
        assert next(told).event == "silent"


def test_streams_are_limited_by_owner_and_by_process(
    serve: Callable[..., Server], settings: Settings, submit: Any, job_id: str
) -> None:
    server = serve(max_event_streams=2, max_event_streams_per_owner=1)
    path = f"/jobs/{job_id}/events"
    other, third = (bearer(new_key(settings, owner)) for owner in ("other", "third"))
    with stream(server.client, job_id) as told:
        next(told)
        refused = server.client.get(path, headers=ACCEPT)
        assert refused.status_code == 429
        assert refused.headers["content-type"] == "application/problem+json"
        assert "close one first" in refused.json()["detail"]
        with server.client.stream("GET", path, headers={**ACCEPT, **other}) as second:
            assert second.status_code == 200
            refused = server.client.get(path, headers={**ACCEPT, **third})
            assert refused.status_code == 503
            assert refused.headers["retry-after"] == "30"
        assert server.client.get(path).status_code == 200, "the list needs no seat"

    deadline = time.monotonic() + 3
    while True:  # a client that is gone leaves its seat at once
        with server.client.stream("GET", path, headers=ACCEPT) as again:
            if again.status_code == 200:
                break
        assert time.monotonic() < deadline


def test_many_streams_that_wait_hold_no_database_connection_and_no_thread(
    serve: Callable[..., Server], job_id: str, database: Database, operator_key: str
) -> None:
    server = serve(max_event_streams_per_owner=500)
    request = f"GET /jobs/{job_id}/events HTTP/1.1\r\nHost: here\r\nAccept: text/event-stream\r\n"
    request += f"Authorization: Bearer {operator_key}\r\n\r\n"
    with ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=20)) for _ in range(150)
        ]
        for connection in sockets:
            connection.sendall(request.encode())
        for connection in sockets:
            _read_until(connection, b"job.submitted")
        pool = server.app.state.context.database.engine.pool
        deadline = time.monotonic() + 3
        while pool.checkedout():  # the last read may still be at work
            assert time.monotonic() < deadline
        threads = [thread.name for thread in threading.enumerate()]
        assert sum(name.startswith("event-feed") for name in threads) <= event_feed.READERS
        assert len(threads) < 60, "Starlette's own 40 are not one a stream"

        record_event(database, job_id, "news")
        for connection in sockets:
            _read_until(connection, b"event: news")


def _read_until(connection: socket.socket, wanted: bytes) -> None:
    seen = b""
    while wanted not in seen:
        part = connection.recv(65536)
        assert part, seen
        seen += part


def test_a_stream_on_which_nothing_happens_is_kept_alive_and_ends_after_its_time(
    serve: Callable[..., Server], job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "KEEP_ALIVE_SECONDS", 0.05)
    monkeypatch.setattr(event_stream, "MAX_STREAM_SECONDS", 0.3)

    body = serve().client.get(f"/jobs/{job_id}/events", headers=ACCEPT).text

    assert body.count(": ping\n\n") >= 2
    assert "stream.end" not in body, "the client is to come back"


def test_a_malformed_last_event_id_is_refused_with_the_header_named(client: TestClient, job_id: str) -> None:
    for given in ("x", "-1", str(2**63)):
        response = client.get(f"/jobs/{job_id}/events", headers={**ACCEPT, "Last-Event-ID": given})

        assert response.status_code == 422
        assert response.json()["errors"][0]["field"] == "Last-Event-ID"


def test_a_server_that_is_asked_to_stop_ends_its_streams_and_exits_at_once(
    settings: Settings, operator_key: str, job_id: str
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "api.main:app", "--port", str(port), "--log-level", "warning"]
    server = subprocess.Popen(command, env={**os.environ, **settings.environment()})
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=bearer(operator_key), timeout=10) as client:
            _wait_for(client)
            with stream(client, job_id) as told:
                next(told)
                server.send_signal(signal.SIGTERM)
                assert list(told) == []
        assert server.wait(timeout=5) in (0, -signal.SIGTERM)
    finally:
        server.kill()
        server.wait()


def _wait_for(client: httpx.Client) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            assert client.get("/livez").status_code == 200
        except httpx.ConnectError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return
