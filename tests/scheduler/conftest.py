"""Fixtures: a clock that tests set, and an empty broker."""

import pytest
import redis

from runtime.settings import Settings
from tests.carbon_provider_server import ManualClock
from tests.scheduler.stage import START


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def empty_broker(settings: Settings) -> Settings:
    """Settings whose broker was emptied."""
    broker = redis.Redis.from_url(settings.redis_url)
    broker.flushdb()
    broker.close()
    return settings
