"""Request and response models of webhooks and deliveries."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from api.row_model import RowModel
from store.tables import Delivery
from store.webhook_url import LONGEST_URL


class NewWebhook(BaseModel):
    """A webhook to register."""

    model_config = ConfigDict(extra="forbid")

    url: str = Field(
        max_length=LONGEST_URL,
        description="An https:// URL of a public host; other hosts are not connected to, and redirects not followed",
        examples=["https://example.com/greentune"],
    )


class WebhookOut(RowModel):
    """A URL that is notified when a job of its owner ends."""

    id: str
    owner: str
    url: str
    created_at: datetime
    disabled_at: datetime | None = Field(description="Time from which nothing is sent; null while it is in use")
    disabled_reason: str | None


class IssuedWebhookOut(WebhookOut):
    """A new webhook with the secret to verify its messages with, which is shown only once."""

    secret: str


class DeliveryOut(RowModel):
    """A message to a webhook and its state; its id is the `webhook-id` of every attempt."""

    id: str
    webhook: str
    job: str | None = Field(description="Job that has ended; null in a test")
    type: str
    payload: dict[str, Any]
    created_at: datetime
    attempts: int
    next_attempt_at: datetime | None = Field(description="Null once it is delivered or given up")
    delivered_at: datetime | None
    last_status: int | None = Field(description="HTTP status of the last response")
    last_error: str | None = Field(description="Reason why the last attempt failed, in words")

    @classmethod
    def of(cls, delivery: Delivery) -> "DeliveryOut":
        return cls.from_row(delivery, webhook=delivery.webhook_id, job=delivery.job_id)
