"""A way to the service on which things go wrong: answers that are lost or cut short, and a gateway that refuses."""

import socketserver
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import cast

from cli.stack.embedded import LOOPBACK

Fault = Callable[["ProxiedRequest"], None]


class ProxiedRequest(socketserver.StreamRequestHandler):
    """One request on its way; every connection carries one."""

    def handle(self) -> None:
        """Pass it on, or do what the next fault says instead."""
        proxy = cast(Proxy, self.server)
        self.head = self._head()
        if not self.head:
            return
        proxy.requests.append(self.head)
        fault = proxy.faults.popleft() if proxy.faults else ProxiedRequest.pass_on
        fault(self)

    def pass_on(self, *, most_bytes: int | None = None, answered: bool = True) -> None:
        """Bring the request to the service, and so many bytes of its answer's body back."""
        method, path, _ = self.head[0].split(" ", 2)
        headers = dict(line.split(": ", 1) for line in self.head[1:])
        body = self.rfile.read(int(headers.get("Content-Length", "0")))
        service = HTTPConnection(LOOPBACK, cast(Proxy, self.server).service_port, timeout=10)
        service.request(method, path, body or None, headers)
        answer = service.getresponse()
        if answered:
            lines = [f"HTTP/1.1 {answer.status} {answer.reason}", "Connection: close"]
            kept = [(name, value) for name, value in answer.getheaders() if name.lower() != "transfer-encoding"]
            lines += [f"{name}: {value}" for name, value in kept if name.lower() != "connection"]
            self.wfile.write("\r\n".join([*lines, "", ""]).encode())
            passed = 0
            while chunk := answer.read1(1 << 16):
                self.wfile.write(chunk[: None if most_bytes is None else most_bytes - passed])
                self.wfile.flush()
                passed += len(chunk)
                if most_bytes is not None and passed >= most_bytes:
                    break
        service.close()

    def _head(self) -> list[str]:
        lines = []
        while line := self.rfile.readline().decode("latin-1").rstrip("\r\n"):
            lines.append(line)
        return lines


class Proxy(socketserver.ThreadingTCPServer):
    """A proxy in front of the service at a port; `faults` are met one a request, and `requests` are their heads."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, service_port: int) -> None:
        super().__init__((LOOPBACK, 0), ProxiedRequest)
        self.service_port = service_port
        self.faults: deque[Fault] = deque()
        self.requests: list[list[str]] = []

    @property
    def url(self) -> str:
        """What a client takes for the service."""
        return f"http://{LOOPBACK}:{self.server_address[1]}"


@contextmanager
def proxy(service_port: int) -> Iterator[Proxy]:
    """A way to the service for as long as the block runs."""
    with Proxy(service_port) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(5)


def drop_connection(request: ProxiedRequest) -> None:
    """The connection ends before the service hears of the request."""


def lose_answer(request: ProxiedRequest) -> None:
    """The service does what it is asked for, and its answer does not arrive."""
    request.pass_on(answered=False)


def truncate_answer(most_bytes: int) -> Fault:
    """The answer's body ends too early."""
    return lambda request: request.pass_on(most_bytes=most_bytes)


def refuse(status: int, *, retry_after: str | None = None) -> Fault:
    """A gateway answers instead of the service."""

    def fault(request: ProxiedRequest) -> None:
        header = "" if retry_after is None else f"Retry-After: {retry_after}\r\n"
        request.wfile.write(
            f"HTTP/1.1 {status} Not now\r\nContent-Length: 0\r\nConnection: close\r\n{header}\r\n".encode()
        )

    return fault
