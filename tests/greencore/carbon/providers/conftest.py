"""A manual clock, and a provider server with a known grid: 100 + h g/kWh at hour h of the day."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from greencore.carbon.http.client import HttpLimits
from greencore.carbon.opening import open_source
from greencore.carbon.source import Source
from tests.carbon_provider_server import KNOWN_ZONES, ManualClock, ProviderServer, rows

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
NOW = NOON + timedelta(minutes=10)
Opened = Callable[..., Source]

each_provider = pytest.mark.parametrize("provider", KNOWN_ZONES)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def server(clock: ManualClock) -> Iterator[ProviderServer]:
    """A server with half hours from two days ago to two days ahead."""
    with ProviderServer(clock=clock) as server:
        server.rows = rows(
            NOON - timedelta(hours=48),
            hours=96,
            measured_until=NOW,
            value=lambda time: 100.0 + time.hour,
        )
        yield server


@pytest.fixture
def limits() -> HttpLimits:
    """Limits without pauses between tries."""
    return HttpLimits(sleep=lambda seconds: None)


@pytest.fixture
def opened(server: ProviderServer, clock: ManualClock, limits: HttpLimits) -> Opened:
    """Opens a provider on the server, for the zone Z."""

    def open_provider(provider: str, limits: HttpLimits = limits, **options: str) -> Source:
        return open_source(
            server.spec(provider, **options), "Z", clock=clock, credentials=server.credentials(), limits=limits
        )

    return open_provider
