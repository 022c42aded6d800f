"""Fixtures shared by the tests of delivery and of senders: a receiver of messages, and a sender that may reach it."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from runtime.settings import Settings
from scheduler.webhooks.delivery import WebhookSender
from store.database import Database
from tests.scheduler.webhooks.messages import OPTIONS
from tests.webhook_receiver import WebhookReceiver


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"webhook_max_attempts": 3, "webhook_private_networks": ["127.0.0.0/8"]})


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as receiver:
        yield receiver


@pytest.fixture
def delivery(database: Database, settings: Settings) -> Iterator[WebhookSender]:
    with closing(WebhookSender(database, settings, options=OPTIONS)) as delivery:
        yield delivery
