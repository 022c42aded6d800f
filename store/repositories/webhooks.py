"""Webhooks of owners, and their signing secrets, which are derived and not stored."""

import base64
import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import func, select

from runtime.ids import new_id
from store.database import LockNamespace, Repository, lock_name, lock_row
from store.repositories.pagination import Page, load_newest
from store.tables import Webhook

MAX_WEBHOOKS_PER_OWNER = 20


class TooManyWebhooks(Exception):
    """An owner has `MAX_WEBHOOKS_PER_OWNER` webhooks."""


def derive_signing_secret(secret: str, webhook_id: str) -> str:
    """Return a webhook's secret in the form of Standard Webhooks, derived from the service's, so that reading the
    database does not suffice to sign."""
    key = hmac.new(secret.encode(), f"webhook:{webhook_id}".encode(), hashlib.sha256).digest()
    return f"whsec_{base64.b64encode(key).decode()}"


class WebhookRepository(Repository):
    """Queries on webhooks."""

    def add(self, *, owner: str, url: str, at: datetime) -> Webhook:
        """Register a URL, under a lock of the owner. Raises `TooManyWebhooks`."""
        lock_name(self._session, LockNamespace.WEBHOOK_OWNER, owner)
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
        """Return the webhook, locked against being disabled or deleted by others."""
        return lock_row(self._session, select(Webhook).where(Webhook.id == webhook_id), key_share=True)

    def page(self, *, owner: str | None, limit: int, after: str | None = None) -> Page[Webhook]:
        """Return webhooks newest first, those older than the id `after`; of all owners without `owner`."""
        query = select(Webhook)
        if owner is not None:
            query = query.where(Webhook.owner == owner)
        return load_newest(self._session, query, Webhook.id, limit=limit, after=after)

    def lock_active(self, owner: str) -> Sequence[Webhook]:
        """Return the enabled webhooks of an owner, locked against deletion."""
        query = select(Webhook).where(Webhook.owner == owner, Webhook.disabled_at.is_(None)).order_by(Webhook.id)
        return self._session.scalars(query.with_for_update(read=True, key_share=True)).all()

    def delete(self, webhook: Webhook) -> None:
        """Delete a webhook with all of its deliveries, pending ones included."""
        self._session.delete(webhook)
        self._session.flush()
