"""Deliveries to webhooks: enqueued in the transaction of the event, claimed before sending, and completed after.

Due times are by the database's clock, as workers enqueue messages and schedulers send them.
"""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.orm import Session

from runtime.ids import new_id
from store.database import Repository, wake_scheduler
from store.repositories.pagination import Page, load_newest
from store.repositories.webhooks import WebhookRepository
from store.tables import Delivery, EnergyInterval, Job, Webhook

TEST_TYPE = "webhook.test"
# Consecutive failed messages, each tried for about a day, after which a webhook is disabled.
MAX_FAILED_DELIVERIES = 10
HOST = func.substring(Webhook.url, r"//(\[[^]]*\]|[^/:?]+)")


class TestDeliveryPending(Exception):
    """A test was requested while the previous one is pending."""

    __test__ = False  # not a test class of pytest


class ClaimedDelivery(NamedTuple):
    """A message claimed for sending, its webhook, and the host of the URL."""

    delivery: Delivery
    webhook: Webhook
    host: str


def enqueue_end_deliveries(session: Session, job: Job, *, at: datetime) -> None:
    """Enqueue a message to each webhook of a job's owner, in the transaction that ends the job."""
    if job.owner is None:
        return
    webhooks = WebhookRepository(session).lock_active(job.owner)
    if not webhooks:
        return
    link = f"/jobs/{job.id}"
    data = {
        "id": job.id,
        "name": job.name,
        "status": job.status,
        "reason": job.reason,
        "error": job.error,
        "model": job.model,
        "zone": job.zone,
        "finished_at": at.isoformat(),
        "energy_kwh": job.energy_kwh,
        "emissions_gco2e": job.emissions_gco2e,
        "unpriced_kwh": _unpriced_kwh(session, job),
        "links": {"self": link, "events": f"{link}/events", "artifacts": f"{link}/artifacts"},
    }
    for webhook in webhooks:
        session.add(_delivery(webhook, f"job.{job.status}", data, at=at, job_id=job.id))
    wake_scheduler(session)


def _unpriced_kwh(session: Session, job: Job) -> float:
    query = select(func.coalesce(func.sum(EnergyInterval.energy_kwh), 0.0)).where(
        EnergyInterval.job_id == job.id, EnergyInterval.emissions_gco2e.is_(None)
    )
    return session.scalar(query) or 0.0


class DeliveryRepository(Repository):
    """Queries on deliveries."""

    def page(self, webhook_id: str, *, limit: int, after: str | None = None) -> Page[Delivery]:
        """Return a webhook's deliveries, newest first, those older than the id `after`."""
        query = select(Delivery).where(Delivery.webhook_id == webhook_id)
        return load_newest(self._session, query, Delivery.id, limit=limit, after=after)

    def add_test(self, webhook: Webhook, *, at: datetime) -> Delivery:
        """Enqueue a test message. Raises `TestDeliveryPending`, so that tests cannot flood a host."""
        WebhookRepository(self._session).lock(webhook.id)
        pending = select(Delivery.id).where(
            Delivery.webhook_id == webhook.id, Delivery.type == TEST_TYPE, Delivery.next_attempt_at.is_not(None)
        )
        if self._session.scalar(pending.limit(1)) is not None:
            raise TestDeliveryPending(webhook.id)
        delivery = _delivery(webhook, TEST_TYPE, {"webhook": webhook.id}, at=at)
        self._session.add(delivery)
        self._session.flush()
        self._session.refresh(delivery)
        wake_scheduler(self._session)
        return delivery

    def claim(
        self, *, lease: timedelta, full_hosts: Collection[str] = (), full_owners: Collection[str] = ()
    ) -> ClaimedDelivery | None:
        """Claim the message that has been due for longest, and postpone it by `lease` before it is sent.

        It is due again after `lease` if its sender dies. Returns None where no message is due but to `full_hosts` or of
        `full_owners`.
        """
        query = (
            select(Delivery, Webhook, HOST)
            .join(Webhook, Webhook.id == Delivery.webhook_id)
            .where(Delivery.next_attempt_at <= func.now(), HOST.not_in(full_hosts), Webhook.owner.not_in(full_owners))
            .order_by(Delivery.next_attempt_at)
            .limit(1)
            .with_for_update(of=Delivery, skip_locked=True)
        )
        found = self._session.execute(query).one_or_none()
        if found is None:
            return None
        claimed = ClaimedDelivery(*found)
        claimed.delivery.attempts += 1
        claimed.delivery.next_attempt_at = func.now() + lease
        return claimed

    def mark_delivered(self, claimed: ClaimedDelivery, *, status: int) -> None:
        """Mark a message as accepted by its receiver."""
        sent = Delivery.id == claimed.delivery.id
        self._update(sent, delivered_at=func.now(), next_attempt_at=None, last_status=status, last_error=None)

    def record_failure(
        self, claimed: ClaimedDelivery, *, status: int | None, error: str, retry_in: timedelta | None
    ) -> str | None:
        """Record a failed attempt, to be retried after `retry_in`, or given up where that is None.

        Disables the webhook after `MAX_FAILED_DELIVERIES` messages, and then returns the reason.
        """
        webhook = WebhookRepository(self._session).lock(claimed.webhook.id)
        if webhook is None:
            return None
        again = None if retry_in is None or webhook.disabled_at is not None else func.now() + retry_in
        self._update(*_is_claimed(claimed), next_attempt_at=again, last_status=status, last_error=error)
        given_up = self._given_up_in_a_row(webhook.id)
        if webhook.disabled_at is not None or given_up < MAX_FAILED_DELIVERIES:
            return None
        reason = f"{given_up} messages in a row were given up, the last one with: {error}"
        self._disable(webhook, reason)
        return reason

    def disable_gone_webhook(self, claimed: ClaimedDelivery, *, status: int, error: str) -> None:
        """Disable the webhook of a receiver that wants no more messages (HTTP 410)."""
        webhook = WebhookRepository(self._session).lock(claimed.webhook.id)
        if webhook is not None and webhook.disabled_at is None:
            self._update(Delivery.id == claimed.delivery.id, last_status=status)
            self._disable(webhook, error)

    def release(self, claimed: ClaimedDelivery) -> None:
        """Release a message that was not sent completely; it is due at once."""
        self._update(*_is_claimed(claimed), next_attempt_at=func.now(), attempts=Delivery.attempts - 1)

    def _given_up_in_a_row(self, webhook_id: str) -> int:
        """Return the number of given-up messages created after the last delivered one."""
        last_taken = select(func.max(Delivery.delivered_at)).where(Delivery.webhook_id == webhook_id).scalar_subquery()
        query = select(func.count()).where(
            Delivery.webhook_id == webhook_id,
            Delivery.next_attempt_at.is_(None),
            Delivery.delivered_at.is_(None),
            or_(last_taken.is_(None), Delivery.created_at > last_taken),
        )
        return self._session.scalar(query) or 0

    def _disable(self, webhook: Webhook, reason: str) -> None:
        """Disable a locked webhook, and give up its pending messages."""
        webhook.disabled_at, webhook.disabled_reason = func.now(), reason
        pending = Delivery.webhook_id == webhook.id, Delivery.next_attempt_at.is_not(None)
        self._update(*pending, next_attempt_at=None, last_error=f"the webhook was disabled: {reason}")

    def _update(self, *which: ColumnElement[bool], **values: Any) -> None:
        self._session.execute(update(Delivery).where(*which).values(values))


def _is_claimed(claimed: ClaimedDelivery) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions that a claim is still the newest of its message."""
    of = Delivery.id == claimed.delivery.id, Delivery.attempts == claimed.delivery.attempts
    return *of, Delivery.next_attempt_at.is_not(None)


def _delivery(
    webhook: Webhook, kind: str, data: dict[str, Any], *, at: datetime, job_id: str | None = None
) -> Delivery:
    return Delivery(
        id=new_id("msg"),
        webhook_id=webhook.id,
        job_id=job_id,
        type=kind,
        payload={"type": kind, "timestamp": at.isoformat(), "data": data},
        created_at=func.now(),
        next_attempt_at=func.now(),
    )
