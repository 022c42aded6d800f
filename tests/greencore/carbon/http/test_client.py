import gzip
import random
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from greencore.carbon.errors import InvalidResponse, SourceUnavailable
from greencore.carbon.http.client import HttpLimits, HttpStatusError, JsonClient
from tests.carbon_provider_server import ManualClock, ProviderServer, Reply


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    with ProviderServer(clock=ManualClock(datetime(2026, 11, 24, tzinfo=UTC))) as server:
        server.standing_reply = Reply(body=b"[1]")
        yield server


def test_pauses_are_random_between_0_and_a_bound_that_doubles(
    server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[float, float]] = []
    slept: list[float] = []

    def draw(low: float, high: float) -> float:
        drawn.append((low, high))
        return high / 100

    monkeypatch.setattr(random, "uniform", draw)
    limits = HttpLimits(tries=6, backoff_seconds=0.5, longest_backoff_seconds=3.0, sleep=slept.append)
    server.standing_reply = Reply(status=500, body=b"")
    with pytest.raises(SourceUnavailable):
        JsonClient("x", server.url, limits=limits).get("/")
    assert drawn[:5] == [(0.0, 0.5), (0.0, 1.0), (0.0, 2.0), (0.0, 3.0), (0.0, 3.0)]
    assert slept == [0.005, 0.01, 0.02, 0.03, 0.03]
    assert len(server.log) == 6


def test_no_try_begins_after_the_total_time(server: ProviderServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    server.standing_reply = Reply(status=500, body=b"")
    limits = HttpLimits(total_seconds=0.5, backoff_seconds=60.0, longest_backoff_seconds=60.0)
    began = time.monotonic()
    with pytest.raises(SourceUnavailable):
        JsonClient("x", server.url, limits=limits).get("/")
    assert len(server.log) == 1
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("compressed", [False, True])
def test_a_response_that_is_too_large_is_not_read_to_its_end(server: ProviderServer, compressed: bool) -> None:
    body = b"[" + b" " * 3_000_000 + b"]"
    headers = {"content-encoding": "gzip"} if compressed else {}
    server.standing_reply = Reply(body=gzip.compress(body) if compressed else body, headers=headers)
    client = JsonClient("x", server.url, limits=HttpLimits(largest_bytes=1_000_000))
    with pytest.raises(InvalidResponse, match="x answered more than 1000000 bytes"):
        client.get("/")
    assert len(server.log) == 1


def test_a_slow_response_is_aborted() -> None:
    class Drip(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            try:
                for _ in range(200):
                    self.wfile.write(b" ")
                    time.sleep(0.02)
            except OSError:
                pass

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Drip)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        client = JsonClient("x", f"http://127.0.0.1:{server.server_port}", limits=HttpLimits(total_seconds=0.3))
        began = time.monotonic()
        with pytest.raises(SourceUnavailable, match=r"did not finish its response within 0.3 s"):
            client.get("/")
        assert time.monotonic() - began < 2
    finally:
        server.shutdown()
        server.server_close()


def test_a_redirection_is_not_followed(server: ProviderServer) -> None:
    server.standing_reply = Reply(status=302, body=b"", headers={"location": "http://127.0.0.1:1/"})
    with pytest.raises(HttpStatusError, match="x answered 302"):
        JsonClient("x", server.url, limits=HttpLimits()).get("/", headers={"auth-token": "k"})


def test_json_that_is_nested_too_deeply_is_an_invalid_response(server: ProviderServer) -> None:
    server.standing_reply = Reply(body=b"[" * 200_000)
    with pytest.raises(InvalidResponse, match="not complete JSON"):
        JsonClient("x", server.url, limits=HttpLimits(tries=1)).get("/")
