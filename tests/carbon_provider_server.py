"""Fake of every carbon-intensity provider: a local HTTP server of their protocols that can inject faults.

    with ProviderServer(clock=clock) as server:
        server.rows = rows(start, hours=48, measured_until=now, value=lambda time: 100 + time.hour)
        open_source(server.spec("uk"), "GB", clock=clock)

It needs no test framework.
"""

import json
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

from greencore.carbon.specification import Credentials
from tests.carbon_provider_protocols import Clock, ProviderProtocols, Request
from tests.carbon_provider_protocols import Row as Row

KNOWN_ZONES: dict[str, dict[str, str]] = {
    "uk": {},
    "electricity-maps": {"zone": "DE"},
    "watttime": {"region": "CAISO_NORTH"},
    "energy-charts": {"country": "de"},
    "carbon-aware-sdk": {"location": "westeurope"},
}


@dataclass(frozen=True)
class Reply:
    """Response that replaces the regular one.

    `body` None keeps the regular body, of which `cut` keeps that many bytes; `seconds` is the wait before it.
    """

    status: int = 200
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    seconds: float = 0.0


def rows(
    start: datetime,
    *,
    hours: float,
    measured_until: datetime,
    value: Callable[[datetime], float],
    step: timedelta = timedelta(minutes=30),
) -> list[Row]:
    """Intervals of `step` from `start` on; those that begin before `measured_until` are measured."""
    made: list[Row] = []
    at = start
    while at < start + timedelta(hours=hours):
        made.append(Row(at, at + step, value(at), value(at) if at < measured_until else None))
        at += step
    return made


class ManualClock:
    """A clock that is frozen until it is set."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **length: float) -> None:
        """Advance the clock by `timedelta(**length)`."""
        self.now += timedelta(**length)


class ProviderServer(ProviderProtocols):
    """Server of the protocols on a free port of 127.0.0.1; `stop` and `start` close and reopen the same port.

    Requests get the `replies`, one each, then `standing_reply` where it is set, else the regular response, whose JSON
    `edit` may change by its path. `log` contains every request.
    """

    def __init__(self, *, clock: Clock) -> None:
        super().__init__(clock)
        self.prefix = b""
        self.replies: deque[Reply] = deque()
        self.standing_reply: Reply | None = None
        self.edit: Callable[[str, Any], Any] = lambda path, answer: answer
        self.log: list[Request] = []
        self.in_flight = self.most_in_flight = 0
        self._lock = threading.Lock()
        self._port = 0
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        """Base URL, without a slash at the end."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def paths(self) -> list[str]:
        """Paths of all requests so far."""
        return [request.path for request in self.log]

    def start(self) -> Self:
        """Start answering."""
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider._serve(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._server.daemon_threads = True
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def stop(self) -> None:
        """Close the port, so that connections are refused."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def spec(self, provider: str, **options: str) -> str:
        """Return the specification of `provider` on this server, for a known zone, with further options."""
        given = {"url": self.url, **KNOWN_ZONES[provider], **options}
        return f"{provider}?" + "&".join(f"{name}={value}" for name, value in given.items())

    def credentials(self) -> Credentials:
        """Return the accepted keys."""
        return Credentials(electricity_maps_token=self.token, watttime_user=self.user, watttime_password=self.password)

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        parameters = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        headers = {name.lower(): value for name, value in handler.headers.items()}
        request = Request(unquote(parts.path), parameters, headers)
        with self._lock:
            self.log.append(request)
            self.in_flight += 1
            self.most_in_flight = max(self.in_flight, self.most_in_flight)
            reply = self.replies.popleft() if self.replies else self.standing_reply
        try:
            if reply is not None and reply.seconds:
                time.sleep(reply.seconds)
            status, answer = self.answer(request)
            if status == 200:
                answer = self.edit(request.path, answer)
            body = b"" if answer is None else self.prefix + json.dumps(answer).encode()
            sent = Reply(status, body, {"content-type": "application/json"})
            if reply is not None:
                body = body if reply.body is None else reply.body
                status = status if reply.status == 200 and reply.body is None else reply.status
                sent = replace(reply, status=status, body=body)
            self._send(handler, sent)
        except (BrokenPipeError, ConnectionResetError):
            handler.close_connection = True
        finally:
            with self._lock:
                self.in_flight -= 1

    def _send(self, handler: BaseHTTPRequestHandler, reply: Reply) -> None:
        body = reply.body or b""
        handler.send_response_only(reply.status)
        handler.send_header("date", reply.headers.get("date", handler.date_time_string()))
        for name, value in reply.headers.items():
            if name != "date":
                handler.send_header(name, value)
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body if reply.cut is None else body[: reply.cut])
        handler.close_connection = True
