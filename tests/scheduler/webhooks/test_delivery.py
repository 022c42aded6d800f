"""Webhook delivery from the end of a job to a verified message: none is lost."""

import json
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from sqlalchemy import func, select
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from greencore.clock import utc_now
from runtime.settings import SecretKeyMissing, Settings
from scheduler import Scheduler
from scheduler.webhooks.delivery import (
    MAX_RETRY_DELAY,
    WebhookSender,
    compute_retry_delay,
)
from scheduler.webhooks.request import ConnectionOptions
from store.database import Database
from store.lifecycle.status import JobStatus
from store.lifecycle.transitions import transition
from store.repositories.deliveries import MAX_FAILED_DELIVERIES
from store.repositories.jobs import JobRepository
from store.repositories.webhooks import WebhookRepository, derive_signing_secret
from store.tables import Delivery, Job, Webhook
from store.webhook_url import parse_networks
from tests.scheduler.stage import START, add_job, wait_until
from tests.scheduler.webhooks.messages import (
    OPTIONS,
    deliveries,
    end_job,
    make_due,
    register,
    send,
    webhook,
)
from tests.webhook_receiver import WebhookReceiver, WebhookReply


def test_the_end_of_a_job_is_delivered_with_a_verifiable_signature(
    database: Database, settings: Settings, delivery: WebhookSender, receiver: WebhookReceiver
) -> None:
    webhook_id = register(database, receiver.url)
    register(database, receiver.url, owner="bob")
    job_id = end_job(database)

    send(delivery)

    [message] = receiver.messages
    payload = Verifier(derive_signing_secret(settings.secret, webhook_id)).verify(message.body, dict(message.headers))
    [row] = deliveries(database, webhook_id)
    assert payload == row.payload
    assert (payload["type"], payload["data"]["id"], payload["data"]["reason"]) == (
        "job.cancelled",
        job_id,
        "it was enough",
    )
    assert message.headers["webhook-id"] == row.id
    assert message.headers["Content-Type"] == "application/json"
    assert (row.attempts, row.next_attempt_at, row.last_status, row.last_error) == (1, None, 204, None)
    assert row.delivered_at is not None
    with pytest.raises(WebhookVerificationError):
        Verifier(derive_signing_secret(settings.secret, "wh_another")).verify(message.body, dict(message.headers))
    with pytest.raises(WebhookVerificationError):
        Verifier(derive_signing_secret(settings.secret, webhook_id)).verify(message.body + b" ", dict(message.headers))

    send(delivery)
    assert len(receiver.messages) == 1


def test_each_final_status_is_delivered_and_nothing_else(database: Database) -> None:
    webhook_id = register(database, "https://hooks.example.com/")
    end_job(database, to=JobStatus.PAUSED)
    assert deliveries(database, webhook_id) == []

    failing = add_job(database, owner="alice")
    with database.session() as session:
        jobs = JobRepository(session)
        job = jobs.lock(failing)
        assert job is not None
        jobs.fail(job, at=START, error={"title": "Bad row", "detail": "line 3", "field": "dataset"})
    running = add_job(database, owner="alice")
    with database.session() as session:
        session.get_one(Job, running).energy_kwh = 0.25
    for to in (JobStatus.RUNNING, JobStatus.SUCCEEDED):
        with database.session() as session:
            transition(session, session.get_one(Job, running), to, at=START)
    end_job(database, owner="without-webhooks")

    failed, succeeded = deliveries(database, webhook_id)
    assert (failed.type, failed.job_id) == ("job.failed", failing)
    assert failed.payload["data"]["error"] == {"title": "Bad row", "detail": "line 3", "field": "dataset"}
    assert (succeeded.type, succeeded.payload["data"]["energy_kwh"]) == ("job.succeeded", 0.25)


def test_a_refused_message_is_sent_again_unchanged(
    database: Database, settings: Settings, delivery: WebhookSender, receiver: WebhookReceiver
) -> None:
    webhook_id = register(database, receiver.url)
    end_job(database)
    receiver.replies.extend([WebhookReply(500), WebhookReply(302, {"Location": receiver.url})])

    send(delivery)
    send(delivery)  # not due yet
    [row] = deliveries(database, webhook_id)
    assert (row.attempts, row.last_status, row.last_error, row.delivered_at) == (1, 500, "answered 500", None)
    assert row.next_attempt_at is not None
    assert 11 < (row.next_attempt_at - datetime.now(UTC)).total_seconds() < 19

    make_due(database)
    send(delivery)
    [row] = deliveries(database, webhook_id)
    assert (row.attempts, row.last_error) == (2, "answered 302, and redirects are not followed")

    make_due(database)
    send(delivery)
    [row] = deliveries(database, webhook_id)
    assert (row.attempts, row.next_attempt_at, row.last_status, row.last_error) == (3, None, 204, None)
    assert len(receiver.messages) == 3
    assert {(message.headers["webhook-id"], message.body) for message in receiver.messages} == {
        (row.id, receiver.messages[0].body)
    }


def test_retries_respect_retry_after_and_end_at_the_limit(
    database: Database, delivery: WebhookSender, receiver: WebhookReceiver
) -> None:
    webhook_id = register(database, receiver.url)
    end_job(database)
    receiver.replies.extend([WebhookReply(503, {"Retry-After": "3600"})] * 3)
    send(delivery)
    [row] = deliveries(database, webhook_id)
    assert row.next_attempt_at is not None
    assert 3590 < (row.next_attempt_at - datetime.now(UTC)).total_seconds() <= 3600
    for _ in range(3):
        make_due(database)
        send(delivery)
    [row] = deliveries(database, webhook_id)
    assert (row.attempts, row.next_attempt_at, row.delivered_at) == (3, None, None)
    assert row.last_error == "answered 503"
    assert len(receiver.messages) == 3
    assert webhook(database, webhook_id).disabled_at is None


def test_a_host_with_a_private_address_fails_without_naming_the_address(database: Database, settings: Settings) -> None:
    webhook_id = register(database, "https://hooks.example.com/")
    end_job(database)
    with closing(
        WebhookSender(database, settings, options=ConnectionOptions(resolve=lambda *_: ["10.9.8.7"]))
    ) as delivery:
        send(delivery)
    [row] = deliveries(database, webhook_id)
    assert (row.attempts, row.last_status) == (1, None)
    assert row.last_error is not None
    assert "not public" in row.last_error
    assert "10.9.8.7" not in row.last_error


def test_a_receiver_that_answers_410_is_disabled(
    database: Database, delivery: WebhookSender, receiver: WebhookReceiver
) -> None:
    webhook_id = register(database, receiver.url)
    receiver.replies.append(WebhookReply(500))
    end_job(database)
    send(delivery)
    receiver.replies.append(WebhookReply(410))
    end_job(database)
    send(delivery)

    assert webhook(database, webhook_id).disabled_reason == "its receiver answered 410: gone"
    assert [row.next_attempt_at for row in deliveries(database, webhook_id)] == [None, None]
    end_job(database)
    send(delivery)
    assert len(receiver.messages) == 2
    assert len(deliveries(database, webhook_id)) == 2


@pytest.mark.parametrize("taken", [None, MAX_FAILED_DELIVERIES // 2])
def test_a_webhook_is_disabled_once_too_many_messages_in_a_row_were_given_up(
    database: Database, settings: Settings, receiver: WebhookReceiver, taken: int | None
) -> None:
    webhook_id = register(database, receiver.url)
    once = settings.model_copy(update={"webhook_max_attempts": 1})
    with closing(WebhookSender(database, once, options=OPTIONS)) as delivery:
        for number in range(MAX_FAILED_DELIVERIES + (0 if taken is None else 2)):
            receiver.replies.append(WebhookReply(204 if number == taken else 500))
            end_job(database)
            send(delivery)
    disabled = webhook(database, webhook_id)
    if taken is None:
        assert disabled.disabled_at is not None
        assert disabled.disabled_reason is not None
        assert "answered 500" in disabled.disabled_reason
    else:
        assert disabled.disabled_at is None


def test_a_message_of_a_deleted_webhook_is_dropped(
    database: Database, delivery: WebhookSender, receiver: WebhookReceiver
) -> None:
    webhook_id = register(database, receiver.url)
    end_job(database)
    receiver.replies.append(WebhookReply(500))
    receiver.held.clear()
    delivery.start_round()
    wait_until(lambda: receiver.now == 1)
    with database.session() as session:
        WebhookRepository(session).delete(session.get_one(Webhook, webhook_id))
    receiver.held.set()
    delivery.wait()
    assert deliveries(database, webhook_id) == []


def test_deleting_a_webhook_as_a_job_ends_does_not_block_the_job(database: Database) -> None:
    webhook_id = register(database, "https://hooks.example.com/")
    job_id = add_job(database, owner="alice")
    faults: list[BaseException] = []

    def end() -> None:
        try:
            with database.session() as session:
                transition(session, session.get_one(Job, job_id), JobStatus.CANCELLED, at=START)
        except BaseException as fault:  # noqa: BLE001 - reported to the test
            faults.append(fault)

    ending = threading.Thread(target=end)
    with database.session() as session:
        WebhookRepository(session).delete(session.get_one(Webhook, webhook_id))
        ending.start()
        ending.join(0.3)
        assert ending.is_alive(), "it waits for what becomes of the webhook"
    ending.join(5)
    assert faults == []
    with database.session() as session:
        assert session.get_one(Job, job_id).status is JobStatus.CANCELLED


def test_a_rolled_back_transition_is_not_delivered(database: Database) -> None:
    webhook_id = register(database, "https://hooks.example.com/")
    job_id = add_job(database, owner="alice")
    with database.session() as session:
        transition(session, session.get_one(Job, job_id), JobStatus.CANCELLED, at=START)
        session.flush()
        session.rollback()
    assert deliveries(database, webhook_id) == []


def test_retry_delays_grow_to_about_a_day_in_all() -> None:
    shortest, longest = ([timedelta(seconds=15 * 4**n * (1 + sign * 0.2)) for n in range(7)] for sign in (-1, 1))
    for _ in range(50):
        pauses = [compute_retry_delay(attempt) for attempt in range(1, 8)]
        assert all(low <= this <= high for low, this, high in zip(shortest, pauses, longest, strict=True))
        assert all(this < following for this, following in pairwise(pauses))
    assert timedelta(hours=18) < sum(shortest, timedelta()) < sum(longest, timedelta()) < timedelta(hours=28)
    assert compute_retry_delay(1, retry_after=timedelta(hours=2)) == timedelta(hours=2)
    assert compute_retry_delay(5, retry_after=timedelta(0)) > timedelta(minutes=30)
    assert compute_retry_delay(1, retry_after=timedelta(days=400)) == MAX_RETRY_DELAY
    assert compute_retry_delay(10**6) <= MAX_RETRY_DELAY


def test_a_message_wakes_the_scheduler_and_is_sent_at_once(
    database: Database, settings: Settings, empty_broker: Settings, receiver: WebhookReceiver
) -> None:
    webhook_id = register(database, receiver.url)
    job_id = add_job(database, owner="alice")
    calm = settings.model_copy(update={"zones": {"FR": "static"}, "tick_seconds": 60.0})
    stop = threading.Event()
    scheduler = Scheduler(calm)
    running = threading.Thread(target=scheduler.run, args=(stop,))
    running.start()
    try:
        wait_until(lambda: webhooks_looked_at(database))
        with database.session() as session:
            transition(session, session.get_one(Job, job_id), JobStatus.CANCELLED, at=START)
        wait_until(lambda: deliveries(database, webhook_id)[0].delivered_at is not None)
    finally:
        stop.set()
        with database.session() as session:
            session.execute(select(func.pg_notify("greentune_wake", "")))
        running.join()
    at = datetime.fromtimestamp(int(receiver.messages[0].headers["webhook-timestamp"]), UTC)
    assert abs(at - utc_now()) < timedelta(seconds=30)
    assert json.loads(receiver.messages[0].body)["type"] == "job.cancelled"


def webhooks_looked_at(database: Database) -> bool:
    """Whether a scheduler runs and waits for NOTIFY."""
    from store.repositories.workers import WorkerRepository

    with database.session() as session:
        return bool(WorkerRepository(session).list_live(within=timedelta(minutes=1), role="scheduler"))


def test_without_a_secret_there_is_no_scheduler(settings: Settings) -> None:
    with pytest.raises(SecretKeyMissing):
        Scheduler(settings.model_copy(update={"secret_key": None, "zones": {"FR": "static"}}))


@pytest.mark.fault(number=25)
def test_an_unexpected_failure_is_recorded_without_the_exceptions_text(database: Database, settings: Settings) -> None:
    def fails(*_: object) -> list[str]:
        raise RuntimeError("postgresql://u:s3cr3t@db/greentune")

    webhook = register(database, "https://hooks.example.org/")
    end_job(database)
    options = ConnectionOptions(parse_networks(["127.0.0.0/8"]), resolve=fails)
    with closing(WebhookSender(database, settings, options=options)) as delivery:
        delivery.start_round()
        delivery.wait()

    with database.session() as session:
        message = session.scalars(select(Delivery).where(Delivery.webhook_id == webhook)).one()
    assert message.last_error is not None
    assert "s3cr3t" not in message.last_error
    assert message.id in message.last_error
    assert message.attempts == 1
    assert message.next_attempt_at is not None
