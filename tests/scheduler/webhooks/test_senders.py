"""Senders of webhooks side by side: each message is sent once, and concurrency is limited."""

import threading
from contextlib import closing
from datetime import timedelta

import pytest

from runtime.settings import Settings
from scheduler.webhooks.delivery import (
    DELIVERY_LEASE,
    MAX_CONCURRENT,
    MAX_CONCURRENT_PER_HOST,
    MAX_CONCURRENT_PER_OWNER,
    WebhookSender,
)
from store.database import Database
from store.repositories.deliveries import DeliveryRepository
from tests.scheduler.stage import wait_until
from tests.scheduler.webhooks.messages import OPTIONS, deliveries, end_job, make_due, register, send, write_tests
from tests.webhook_receiver import WebhookReceiver


def test_a_message_whose_sender_died_is_sent_by_the_next(
    database: Database, delivery: WebhookSender, receiver: WebhookReceiver
) -> None:
    webhook_id = register(database, receiver.url)
    end_job(database)
    with database.session() as session:
        dying = DeliveryRepository(session).claim(lease=DELIVERY_LEASE)
    assert dying is not None

    send(delivery)
    assert receiver.messages == []
    make_due(database)
    send(delivery)
    [row] = deliveries(database, webhook_id)
    assert (row.attempts, len(receiver.messages)) == (2, 1)

    # It was not dead: its late outcome changes nothing.
    with database.session() as session:
        DeliveryRepository(session).record_failure(dying, status=500, error="answered 500", retry_in=timedelta(0))
        DeliveryRepository(session).release(dying)
    [row] = deliveries(database, webhook_id)
    assert (row.attempts, row.next_attempt_at, row.last_error) == (2, None, None)


def test_two_senders_side_by_side_send_each_message_once(
    database: Database, settings: Settings, receiver: WebhookReceiver
) -> None:
    ids = [register(database, receiver.url, owner=f"owner-{number}") for number in range(3)]
    for webhook_id in ids:
        write_tests(database, webhook_id, 10)
    with (
        closing(WebhookSender(database, settings, options=OPTIONS)) as one,
        closing(WebhookSender(database, settings, options=OPTIONS)) as other,
    ):
        one.start_round()
        other.start_round()
        one.wait()
        other.wait()
        send(one)  # its host was at its limit for the other
    sent = [message.headers["webhook-id"] for message in receiver.messages]
    assert len(sent) == 30
    assert len(set(sent)) == 30
    assert receiver.most_at_once <= 2 * MAX_CONCURRENT_PER_HOST


@pytest.mark.parametrize(
    ("hosts", "owners", "most"),
    [(1, 9, MAX_CONCURRENT_PER_HOST), (9, 1, MAX_CONCURRENT_PER_OWNER), (9, 9, MAX_CONCURRENT)],
)
def test_concurrency_is_limited_per_host_per_owner_and_in_all(
    database: Database, delivery: WebhookSender, receiver: WebhookReceiver, hosts: int, owners: int, most: int
) -> None:
    for number in range(9):
        url = f"http://host-{number % hosts}.example.com:{receiver.port}/"
        write_tests(database, register(database, url, owner=f"owner-{number % owners}"), 2)
    receiver.held.clear()
    delivery.start_round()
    wait_until(lambda: receiver.now >= most)
    threading.Event().wait(0.2)  # time for a request too many
    receiver.held.set()
    delivery.wait()
    assert receiver.most_at_once == most
    assert len(receiver.messages) == 18


def test_a_slow_receiver_delays_no_other_receivers_messages(
    database: Database, delivery: WebhookSender, receiver: WebhookReceiver
) -> None:
    with WebhookReceiver() as slow:
        slow.held.clear()
        write_tests(database, register(database, f"http://slow.example.com:{slow.port}/", owner="bob"), 20)
        webhook_id = register(database, f"http://quick.example.com:{receiver.port}/")
        end_job(database)
        delivery.start_round()
        wait_until(lambda: deliveries(database, webhook_id)[0].delivered_at is not None)
        assert slow.now == MAX_CONCURRENT_PER_HOST
        slow.held.set()
        delivery.wait()
        assert len(slow.messages) == 20


def test_close_cancels_a_slow_request_and_the_next_sender_sends_it_at_once(
    database: Database, settings: Settings, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.webhooks.delivery.SHUTDOWN_GRACE_SECONDS", 0.1)
    webhook_id = register(database, receiver.url)
    end_job(database)
    receiver.held.clear()
    with closing(WebhookSender(database, settings, options=OPTIONS)) as stopping:
        stopping.start_round()
        wait_until(lambda: receiver.now == 1)
    [row] = deliveries(database, webhook_id)
    assert (row.attempts, row.delivered_at) == (0, None)
    stopping.start_round()  # does nothing after close

    receiver.held.set()
    with closing(WebhookSender(database, settings, options=OPTIONS)) as following:
        send(following)
    [row] = deliveries(database, webhook_id)
    assert (row.attempts, row.last_status) == (1, 204)
