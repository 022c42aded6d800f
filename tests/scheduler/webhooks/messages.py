"""Webhooks and their messages as the tests of delivery store, send and read them."""

from sqlalchemy import func, select, update

from scheduler.webhooks.delivery import WebhookSender
from scheduler.webhooks.request import ConnectionOptions
from store.database import Database
from store.lifecycle.status import JobStatus
from store.lifecycle.transitions import transition
from store.repositories.jobs import JobRepository
from store.repositories.webhooks import WebhookRepository
from store.tables import Delivery, Webhook
from store.webhook_url import parse_networks
from tests.scheduler.stage import START, add_job

OPTIONS = ConnectionOptions(parse_networks(["127.0.0.0/8"]), resolve=lambda *_: ["127.0.0.1"], total_seconds=5)


def register(database: Database, url: str, owner: str = "alice") -> str:
    with database.session() as session:
        return WebhookRepository(session).add(owner=owner, url=url, at=START).id


def end_job(database: Database, owner: str = "alice", to: JobStatus = JobStatus.CANCELLED) -> str:
    job_id = add_job(database, owner=owner)
    with database.session() as session:
        job = JobRepository(session).lock(job_id)
        assert job is not None
        transition(session, job, to, at=START, reason="it was enough")
    return job_id


def write_tests(database: Database, webhook_id: str, count: int) -> None:
    """Store test messages, more than the API allows."""
    with database.session() as session:
        for number in range(count):
            session.add(
                Delivery(
                    id=f"{webhook_id}_{number}",
                    webhook_id=webhook_id,
                    type="webhook.test",
                    payload={"number": number},
                    created_at=func.clock_timestamp(),
                    next_attempt_at=func.now(),
                )
            )
            session.flush()


def deliveries(database: Database, webhook_id: str) -> list[Delivery]:
    """Oldest first."""
    with database.session() as session:
        query = select(Delivery).where(Delivery.webhook_id == webhook_id).order_by(Delivery.created_at, Delivery.id)
        return list(session.scalars(query))


def webhook(database: Database, webhook_id: str) -> Webhook:
    with database.session() as session:
        return session.get_one(Webhook, webhook_id)


def make_due(database: Database) -> None:
    """Make every waiting delivery due."""
    with database.session() as session:
        session.execute(
            update(Delivery).where(Delivery.next_attempt_at.is_not(None)).values(next_attempt_at=func.now())
        )


def send(delivery: WebhookSender) -> None:
    delivery.start_round()
    delivery.wait()
