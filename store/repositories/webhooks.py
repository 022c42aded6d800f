"""Webhooks: who is to be told where, and the secret that each signs with, which is not stored."""

import base64
import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from runtime.ids import new_id
from store.repositories.pagination import Page
from store.tables import Webhook

MAX_WEBHOOKS_PER_OWNER = 20
OWNER_LOCKS = 0x6EE7_0004  # the namespace of the advisory locks on owners


class TooManyWebhooks(Exception):
    """An owner has as many as there may be."""


def derive_signing_secret(secret: str, webhook_id: str) -> str:
    """The secret of a webhook as Standard Webhooks writes it: it follows from the service's own, so that whoever
    reads the database can sign nothing."""
    key = hmac.new(secret.encode(), f"webhook:{webhook_id}".encode(), hashlib.sha256).digest()
    return f"whsec_{base64.b64encode(key).decode()}"


class WebhookRepository:
    """Queries on webhooks, inside the caller's transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, *, owner: str, url: str, at: datetime) -> Webhook:
        """Register a URL. Raises `TooManyWebhooks`; those who add one for the same owner take turns."""
        self._session.execute(select(func.pg_advisory_xact_lock(OWNER_LOCKS, func.hashtext(owner))))
        count = self._session.scalar(select(func.count()).where(Webhook.owner == owner)) or 0
        if count >= MAX_WEBHOOKS_PER_OWNER:
            raise TooManyWebhooks(owner)
        webhook = Webhook(id=new_id("wh"), owner=owner, url=url, created_at=at)
        self._session.add(webhook)
        self._session.flush()
        return webhook

    def get(self, webhook_id: str) -> Webhook | None:
        return self._session.get(Webhook, webhook_id)

    def lock(self, webhook_id: str) -> Webhook | None:
        """The webhook, which nobody else disables or deletes until the transaction ends."""
        query = select(Webhook).where(Webhook.id == webhook_id).with_for_update(key_share=True)
        return self._session.scalars(query.execution_options(populate_existing=True)).one_or_none()

    def page(self, *, owner: str | None, limit: int, after: str | None = None) -> Page[Webhook]:
        """The webhooks of an owner, or all, newest first: those older than the id `after`."""
        query = select(Webhook).order_by(Webhook.id.desc()).limit(limit + 1)
        if owner is not None:
            query = query.where(Webhook.owner == owner)
        if after is not None:
            query = query.where(Webhook.id < after)
        return Page.from_rows(self._session.scalars(query).all(), limit)

    def lock_active(self, owner: str) -> Sequence[Webhook]:
        """The webhooks of an owner that are in use; none of them can be deleted until the transaction ends."""
        query = select(Webhook).where(Webhook.owner == owner, Webhook.disabled_at.is_(None)).order_by(Webhook.id)
        return self._session.scalars(query.with_for_update(read=True, key_share=True)).all()

    def delete(self, webhook: Webhook) -> None:
        """Forget a webhook with all of its deliveries, those under way included."""
        self._session.delete(webhook)
        self._session.flush()
