"""Proxy of the service that injects faults: lost or truncated answers, and refusals of a gateway."""

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
    """One proxied request; each connection carries one."""

    def handle(self) -> None:
        """Forward the request, or apply the next fault."""
        proxy = cast(Proxy, self.server)
        self.head = self._head()
        if not self.head:
            return
        proxy.requests.append(self.head)
        fault = proxy.faults.popleft() if proxy.faults else ProxiedRequest.pass_on
        fault(self)

    def pass_on(self, *, most_bytes: int | None = None, answered: bool = True) -> None:
        """Forward the request, and return up to `most_bytes` of the answer's body."""
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
        """URL that a client uses as the service's."""
        return f"http://{LOOPBACK}:{self.server_address[1]}"


@contextmanager
def proxy(service_port: int) -> Iterator[Proxy]:
    """Run a proxy of the service within the block."""
    with Proxy(service_port) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(5)


def drop_connection(request: ProxiedRequest) -> None:
    """Close the connection before the request reaches the service."""


def lose_answer(request: ProxiedRequest) -> None:
    """Forward the request, and drop the answer."""
    request.pass_on(answered=False)


def truncate_answer(most_bytes: int) -> Fault:
    """Truncate the answer's body."""
    return lambda request: request.pass_on(most_bytes=most_bytes)


def refuse(status: int, *, retry_after: str | None = None) -> Fault:
    """Answer as a gateway, without the service."""

    def fault(request: ProxiedRequest) -> None:
        header = "" if retry_after is None else f"Retry-After: {retry_after}\r\n"
        request.wfile.write(
            f"HTTP/1.1 {status} Not now\r\nContent-Length: 0\r\nConnection: close\r\n{header}\r\n".encode()
        )

    return fault
