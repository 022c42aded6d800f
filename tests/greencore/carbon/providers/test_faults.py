"""Behaviour of each source when its provider fails, refuses or is unreachable."""

import threading
import time
from datetime import datetime, timedelta

import pytest

from greencore.carbon import CarbonError
from greencore.carbon.errors import AccessDenied, InvalidResponse, SourceUnavailable
from greencore.carbon.http.client import HttpLimits
from tests.carbon_provider_server import ManualClock, ProviderServer, Reply
from tests.greencore.carbon.providers.conftest import NOON, NOW, Opened, each_provider

MINUTE = timedelta(minutes=1)

IMPATIENT = HttpLimits(read_seconds=0.1, sleep=lambda seconds: None)
HTML = Reply(body=b"<html><body>Welcome to the hotel</body></html>", headers={"content-type": "text/html"})
TRANSIENT = {
    "500": Reply(status=500, body=b"oops"),
    "502 in HTML": Reply(status=502, body=b"<html>bad gateway</html>"),
    "HTML instead of JSON": HTML,
    "JSON cut short by the server": Reply(body=b'{"data": [{"from": "2026-11-'),
    "JSON cut short on its way": Reply(cut=20),
    "bytes that are no text": Reply(body=b"\xff\xfe\x00"),
    "nothing": Reply(body=b""),
}


@each_provider
@pytest.mark.parametrize("reply", TRANSIENT.values(), ids=TRANSIENT.keys())
def test_a_transient_fault_is_retried(opened: Opened, server: ProviderServer, provider: str, reply: Reply) -> None:
    server.replies.extend([reply, reply])
    assert opened(provider).latest().start == NOON


@each_provider
@pytest.mark.parametrize("reply", TRANSIENT.values(), ids=TRANSIENT.keys())
def test_a_permanent_fault_is_an_error_after_three_tries(
    opened: Opened, server: ProviderServer, provider: str, reply: Reply
) -> None:
    server.standing_reply = reply
    with pytest.raises((SourceUnavailable, InvalidResponse), match=provider):
        opened(provider).latest()
    assert len(server.log) == 3


@each_provider
def test_a_missing_response_times_out(opened: Opened, server: ProviderServer, provider: str) -> None:
    server.replies.extend([Reply(seconds=0.25)] * 3)
    source = opened(provider, limits=IMPATIENT)
    with pytest.raises(SourceUnavailable, match=rf"{provider} at 127.0.0.1:\d+: timed out while answering"):
        source.latest()
    assert len(server.log) == 3


def test_errors_describe_the_fault(opened: Opened, server: ProviderServer) -> None:
    for reply, message in (
        (TRANSIENT["500"], r"uk at 127.0.0.1:\d+ answered 500"),
        (HTML, "uk answered 46 bytes of 'text/html' that are not complete JSON"),
        (TRANSIENT["JSON cut short on its way"], "the connection failed"),
    ):
        server.standing_reply = reply
        with pytest.raises(CarbonError, match=message):
            opened("uk").latest()


@each_provider
def test_a_source_recovers_after_a_day_without_a_server(
    opened: Opened, server: ProviderServer, clock: ManualClock, provider: str
) -> None:
    source = opened(provider)
    server.stop()
    # A day without a network, with a request every ten minutes.
    for _ in range(24 * 6):
        with pytest.raises(SourceUnavailable):
            source.latest()
        clock.advance(minutes=10)
    server.start()
    clock.advance(minutes=15)
    assert source.latest().start == NOON + timedelta(hours=24)
    assert len(source.forecast(3)) > 5


@each_provider
@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_pauses_requests_of_its_kind_for_15_minutes(
    opened: Opened, server: ProviderServer, clock: ManualClock, provider: str, status: int
) -> None:
    source = opened(provider)
    server.standing_reply = Reply(status=status, body=b'{"error": "no such key"}')
    with pytest.raises(
        AccessDenied, match=f"answered {status}: .*no such key.*next request at 2026-11-24T12:25"
    ) as raised:
        source.latest()
    assert raised.value.retry_at == NOW + 15 * MINUTE
    asked = len(server.log)
    server.standing_reply = None
    clock.advance(minutes=14)
    with pytest.raises(SourceUnavailable, match=r"no such key.*next request at 2026-11-24T12:25") as waiting:
        source.latest()
    assert waiting.value.retry_at == NOW + 15 * MINUTE
    assert len(server.log) == asked
    clock.advance(minutes=1)
    assert source.latest().start == NOON


@each_provider
def test_a_refusal_does_not_pause_requests_of_another_kind(
    opened: Opened, server: ProviderServer, provider: str
) -> None:
    source = opened(provider)
    source.latest()
    server.standing_reply = Reply(status=403, body=b'{"error": "not in your plan"}')
    with pytest.raises(AccessDenied, match="not in your plan"):
        source.history(NOON - timedelta(days=2), NOON)
    server.standing_reply = None
    assert len(source.forecast(2)) > 3


@each_provider
def test_a_rate_limit_pauses_requests_until_its_retry_after(
    opened: Opened, server: ProviderServer, clock: ManualClock, provider: str
) -> None:
    source = opened(provider)
    server.standing_reply = Reply(status=429, body=b"{}", headers={"retry-after": "300"})
    with pytest.raises(SourceUnavailable, match=r"answered 429.*next request at 2026-11-24T12:15:00") as raised:
        source.latest()
    assert raised.value.retry_at == NOW + 5 * MINUTE
    assert len(server.log) == 1
    server.standing_reply = None
    clock.advance(minutes=4, seconds=59)
    for ask in (source.latest, lambda: source.forecast(3), lambda: source.history(NOON - timedelta(hours=2), NOON)):
        with pytest.raises(SourceUnavailable):
            ask()
    assert len(server.log) == 1
    clock.advance(seconds=1)
    assert source.latest().start == NOON


@pytest.mark.parametrize(
    ("headers", "minutes"),
    [
        ({"retry-after": "Tue, 24 Nov 2026 12:30:00 GMT", "date": "Tue, 24 Nov 2026 12:10:00 GMT"}, 20),
        # The server's clock is a day ahead.
        ({"retry-after": "Wed, 25 Nov 2026 12:30:00 GMT", "date": "Wed, 25 Nov 2026 12:10:00 GMT"}, 20),
        ({"retry-after": "99999999"}, 24 * 60),
        ({"retry-after": "soon"}, 1),
        ({"retry-after": "-5"}, 1),
        ({"retry-after": "nan"}, 1),
        ({"retry-after": "1e400"}, 1),
        ({"retry-after": "0"}, 1 / 60),
        ({}, 1),
    ],
)
def test_retry_after_is_parsed_in_each_of_its_forms(
    opened: Opened, server: ProviderServer, headers: dict[str, str], minutes: float
) -> None:
    server.standing_reply = Reply(status=429, body=b"{}", headers=headers)
    with pytest.raises(SourceUnavailable) as raised:
        opened("uk").latest()
    assert raised.value.retry_at == NOW + minutes * MINUTE


def test_a_503_with_retry_after_pauses_requests(opened: Opened, server: ProviderServer) -> None:
    server.standing_reply = Reply(status=503, body=b"maintenance", headers={"retry-after": "600"})
    with pytest.raises(SourceUnavailable, match="answered 503: maintenance") as raised:
        opened("uk").latest()
    assert raised.value.retry_at == NOW + 10 * MINUTE
    assert len(server.log) == 1


def test_rate_limits_without_retry_after_double_the_pause_up_to_an_hour(
    opened: Opened, server: ProviderServer, clock: ManualClock
) -> None:
    source = opened("uk")
    server.standing_reply = Reply(status=429, body=b"{}")
    pauses: list[float] = []
    for _ in range(9):
        with pytest.raises(SourceUnavailable) as raised:
            source.latest()
        assert raised.value.retry_at is not None
        pauses.append((raised.value.retry_at - clock.now) / MINUTE)
        clock.now = raised.value.retry_at
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_five_failures_in_a_row_open_the_breaker_and_each_further_one_for_longer(
    opened: Opened, server: ProviderServer, clock: ManualClock
) -> None:
    source = opened("uk")
    server.standing_reply = Reply(status=500, body=b"oops")
    for _ in range(4):
        with pytest.raises(SourceUnavailable) as raised:
            source.latest()
        assert raised.value.retry_at is None
    pauses: list[float] = []
    asked = [len(server.log)]
    for _ in range(6):
        with pytest.raises(SourceUnavailable) as raised:
            source.latest()
        assert raised.value.retry_at is not None
        pauses.append((raised.value.retry_at - clock.now) / MINUTE)
        clock.now = raised.value.retry_at
        asked.append(len(server.log))
    assert pauses == [1, 2, 4, 8, 15, 15]
    # Three tries while closed, one request each time that it is half open.
    assert asked == [12, 15, 16, 17, 18, 19, 20]
    server.standing_reply = None
    assert source.latest() == source.latest()
    server.standing_reply = Reply(status=500, body=b"oops")
    clock.advance(hours=1)
    with pytest.raises(SourceUnavailable) as raised:
        source.latest()
    assert raised.value.retry_at is None


def test_an_invalid_response_counts_as_a_failure(opened: Opened, server: ProviderServer) -> None:
    source = opened("uk")
    server.standing_reply = Reply(body=b"{}")
    for _ in range(5):
        with pytest.raises(InvalidResponse):
            source.latest()
    with pytest.raises(SourceUnavailable, match=r"uk has no 'data'.*next request at 2026-11-24T12:11:00"):
        source.latest()
    assert len(server.log) == 5


def test_a_clock_that_is_set_back_does_not_keep_the_breaker_open(
    opened: Opened, server: ProviderServer, clock: ManualClock
) -> None:
    source = opened("uk")
    server.replies.append(Reply(status=429, body=b"{}", headers={"retry-after": "3600"}))
    with pytest.raises(SourceUnavailable):
        source.latest()
    clock.advance(hours=-2)
    assert source.latest().start == NOON - timedelta(hours=2)


@each_provider
def test_concurrent_callers_share_one_request(opened: Opened, server: ProviderServer, provider: str) -> None:
    server.standing_reply = Reply(seconds=0.2)
    source = opened(provider)
    found: list[datetime] = []
    threads = [threading.Thread(target=lambda: found.append(source.latest().start)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [NOON] * 6
    assert server.most_in_flight == 1
    assert len([path for path in server.paths if path != "/login"]) == 1


def test_concurrent_callers_share_a_failure(opened: Opened, server: ProviderServer) -> None:
    server.standing_reply = Reply(seconds=0.3, status=400, body=b"{}")
    source = opened("uk")
    failures: list[str] = []

    def ask() -> None:
        try:
            source.latest()
        except CarbonError as error:
            failures.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == ["uk answered 400: {}"] * 6
    assert len(server.log) == 1
    with pytest.raises(InvalidResponse):
        source.latest()
    assert len(server.log) == 2


def test_a_failure_keeps_the_cached_readings(opened: Opened, server: ProviderServer, clock: ManualClock) -> None:
    source = opened("uk")
    reading, series = source.latest(), source.forecast(24)
    server.stop()
    with pytest.raises(SourceUnavailable):
        source.history(NOON - timedelta(days=1), NOON)
    assert source.latest() == reading
    assert source.forecast(24) == series


def test_the_total_time_of_all_tries_is_bounded(opened: Opened, server: ProviderServer) -> None:
    server.standing_reply = Reply(seconds=5)
    began = time.monotonic()
    with pytest.raises(SourceUnavailable, match="timed out"):
        opened("uk", limits=HttpLimits(total_seconds=0.3)).latest()
    assert time.monotonic() - began < 2
