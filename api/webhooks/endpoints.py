"""`/webhooks`: registers URLs to notify when jobs end, and lists deliveries."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Response

from api.access.principal import PrincipalDep
from api.dependencies import AppContextDep, NowDep, SessionDep
from api.http.pagination import Id, Limit, Listing, OlderThan, to_listing
from api.http.problems import Problem, invalid_field, problem_responses
from api.webhooks.schemas import DeliveryOut, IssuedWebhookOut, NewWebhook, WebhookOut
from store.repositories.deliveries import DeliveryRepository, TestDeliveryPending
from store.repositories.webhooks import (
    MAX_WEBHOOKS_PER_OWNER,
    TooManyWebhooks,
    WebhookRepository,
    derive_signing_secret,
)
from store.tables import Webhook
from store.webhook_url import UrlRefused, parse_networks, parse_url, refuse_private

router = APIRouter(prefix="/webhooks", tags=["webhooks"])

NOT_FOUND = problem_responses(HTTPStatus.NOT_FOUND)
CONFLICT = problem_responses(HTTPStatus.CONFLICT)


def _webhook(webhook_id: Id, principal: PrincipalDep, session: SessionDep) -> Webhook:
    return principal.require_readable(WebhookRepository(session).get(webhook_id), f"webhook {webhook_id!r}")


WebhookDep = Annotated[Webhook, Depends(_webhook)]


@router.post("", status_code=HTTPStatus.CREATED, summary="Register a webhook", responses=CONFLICT)
def create_webhook(
    new: NewWebhook,
    response: Response,
    principal: PrincipalDep,
    context: AppContextDep,
    session: SessionDep,
    now: NowDep,
) -> IssuedWebhookOut:
    """Its URL is notified when jobs of the key's owner end. The secret to verify messages is in this response only."""
    try:
        target = parse_url(new.url)
        refuse_private(target, parse_networks(context.settings.webhook_private_networks))
    except UrlRefused as error:
        raise invalid_field("url", str(error)) from None
    try:
        webhook = WebhookRepository(session).add(owner=principal.owner, url=target.url, at=now)
    except TooManyWebhooks:
        detail = (
            f"{principal.owner} has {MAX_WEBHOOKS_PER_OWNER} webhooks already, the most there may be: delete one first"
        )
        raise Problem(HTTPStatus.CONFLICT, detail) from None
    response.headers["Location"] = f"/webhooks/{webhook.id}"
    secret = derive_signing_secret(context.settings.secret, webhook.id)
    return IssuedWebhookOut.from_row(webhook, secret=secret)


@router.get("", summary="List webhooks, newest first")
def list_webhooks(
    principal: PrincipalDep, session: SessionDep, limit: Limit = 50, after: OlderThan = None
) -> Listing[WebhookOut]:
    """Includes disabled ones."""
    page = WebhookRepository(session).page(owner=principal.owner_filter, limit=limit, after=after)
    return to_listing(page, WebhookOut.from_row)


@router.get("/{webhook_id}", summary="Get a webhook", responses=NOT_FOUND)
def get_webhook(webhook: WebhookDep) -> WebhookOut:
    """Its URL, and whether it is in use; never its secret."""
    return WebhookOut.from_row(webhook)


@router.delete("/{webhook_id}", status_code=HTTPStatus.NO_CONTENT, summary="Delete a webhook", responses=NOT_FOUND)
def delete_webhook(webhook: WebhookDep, session: SessionDep) -> None:
    """Pending messages are not sent, and its secret becomes invalid."""
    WebhookRepository(session).delete(webhook)


@router.get("/{webhook_id}/deliveries", summary="List a webhook's deliveries, newest first", responses=NOT_FOUND)
def list_deliveries(
    webhook: WebhookDep, session: SessionDep, limit: Limit = 50, after: OlderThan = None
) -> Listing[DeliveryOut]:
    """Pending and finished ones; finished ones are kept for a month."""
    return to_listing(DeliveryRepository(session).page(webhook.id, limit=limit, after=after), DeliveryOut.of)


@router.post(
    "/{webhook_id}/test",
    status_code=HTTPStatus.ACCEPTED,
    summary="Send a test event",
    responses=NOT_FOUND | CONFLICT,
)
def send_test(webhook: WebhookDep, session: SessionDep, now: NowDep) -> DeliveryOut:
    """Signed and retried like any other message; the deliveries show the result."""
    if webhook.disabled_at is not None:
        raise Problem(
            HTTPStatus.CONFLICT, f"{webhook.id} is disabled ({webhook.disabled_reason}): register its URL again"
        )
    try:
        return DeliveryOut.of(DeliveryRepository(session).add_test(webhook, at=now))
    except TestDeliveryPending:
        detail = f"a test of {webhook.id} is still pending: see /webhooks/{webhook.id}/deliveries"
        raise Problem(HTTPStatus.CONFLICT, detail) from None
