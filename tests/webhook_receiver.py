"""A local HTTP server that takes webhooks: it keeps what it was sent, and answers as it is told."""

import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ssl import SSLContext
from typing import Any, Self


@dataclass(frozen=True)
class ReceivedRequest:
    """One request as it came in."""

    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class WebhookReply:
    """An answer; `send` takes the place of all of it, and writes to the connection what it likes."""

    status: int = 204
    headers: Mapping[str, str] = field(default_factory=dict)
    send: Callable[[Any], None] | None = None


class WebhookReceiver:
    """Gives the `replies` in turn, and 204 after them; `held` keeps every answer back while it is not set."""

    def __init__(self, *, tls: SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self.messages: list[ReceivedRequest] = []
        self.replies: deque[WebhookReply] = deque()
        self.held = threading.Event()
        self.held.set()
        self.now, self.most_at_once = 0, 0
        lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                with lock:
                    receiver.messages.append(ReceivedRequest(self.path, dict(self.headers.items()), body))
                    reply = receiver.replies.popleft() if receiver.replies else WebhookReply()
                    receiver.now += 1
                    receiver.most_at_once = max(receiver.most_at_once, receiver.now)
                receiver.held.wait(10)
                with lock:
                    receiver.now -= 1
                with suppress(ConnectionError):
                    if reply.send is not None:
                        reply.send(self.wfile)
                        self.close_connection = True
                        return
                    self.send_response(reply.status)
                    for name, value in reply.headers.items():
                        self.send_header(name, value)
                    self.send_header("content-length", "0")
                    self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing: a test has no use for it."""

        class Server(ThreadingHTTPServer):
            # A refused handshake is what a test is about.
            def handle_error(self, *_: object) -> None:
                return

        self._server = Server((host, 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.held.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
