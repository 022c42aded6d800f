"""Fixtures: a clock that tests set, an empty broker, and a scheduler with the settings of the test."""

from collections.abc import Iterator
from contextlib import closing

import pytest
import redis

from runtime.settings import Settings
from scheduler import Scheduler
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


@pytest.fixture
def scheduler(settings: Settings, clock: ManualClock) -> Iterator[Scheduler]:
    with closing(Scheduler(settings, clock=clock)) as scheduler:
        yield scheduler


@pytest.fixture
def broker(settings: Settings) -> Iterator[redis.Redis]:
    with closing(redis.Redis.from_url(settings.redis_url, decode_responses=True)) as broker:
        yield broker
