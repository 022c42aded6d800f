"""Delivers webhook messages in background threads, so that no job waits for a receiver."""

import json
import random
import threading
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import timedelta
from http import HTTPStatus

import structlog
from sqlalchemy.exc import DBAPIError
from standardwebhooks import Webhook as Signer

from greencore.clock import utc_now
from runtime.settings import Settings
from scheduler.webhooks.request import (
    ConnectionOptions,
    RequestCancelled,
    Undeliverable,
    WebhookRequest,
    WebhookResponse,
)
from store.database import Database
from store.repositories.deliveries import ClaimedDelivery, DeliveryRepository
from store.repositories.webhooks import derive_signing_secret
from store.webhook_url import parse_networks

log = structlog.get_logger()

MAX_CONCURRENT = 8
MAX_CONCURRENT_PER_HOST = 2
MAX_CONCURRENT_PER_OWNER = 4
# Longer than an attempt takes: after it another sender takes over the message of one that died.
DELIVERY_LEASE = timedelta(minutes=2)
# After the first attempt 15 s, then 1, 4, 16 and 64 minutes, 4.3 and 17 hours: 8 attempts take about a day.
FIRST_RETRY_DELAY = timedelta(seconds=15)
BACKOFF_FACTOR = 4.0
MAX_RETRY_DELAY = timedelta(days=1)
JITTER = 0.2
# Part of the time in which the process must stop; avoids a second delivery to a receiver that is about to answer.
SHUTDOWN_GRACE_SECONDS = 2.0


class WebhookSender:
    """Sends due webhook messages concurrently, with limits per host and per owner.

    A message is claimed under a lease before it is sent, and its outcome is recorded after: a crash in between loses
    none, and a receiver may get a message twice.
    """

    def __init__(self, database: Database, settings: Settings, *, options: ConnectionOptions | None = None) -> None:
        """Raises `runtime.settings.SecretKeyMissing` where there is no key to sign with."""
        self._database, self._secret = database, settings.secret
        self._max_attempts = settings.webhook_max_attempts
        self._options = options or ConnectionOptions(parse_networks(settings.webhook_private_networks))
        self._pool = ThreadPoolExecutor(MAX_CONCURRENT, thread_name_prefix="webhooks")
        # Two locks, so that `start_round`, which the tick calls, does not wait for the query of a claim.
        self._lock, self._claim_lock = threading.Lock(), threading.Lock()
        self._closed = False
        self._rounds: set[Future[None]] = set()
        self._active: dict[WebhookRequest, ClaimedDelivery] = {}

    def start_round(self) -> None:
        """Start one more sending thread, unless all are busy."""
        with self._lock:
            if not self._closed and len(self._rounds) < MAX_CONCURRENT:
                begun = self._pool.submit(self._round)
                self._rounds.add(begun)
                # Called at once, in this thread, where the round has ended already.
                begun.add_done_callback(self._rounds.discard)

    def wait(self) -> None:
        """Wait until every due message was sent or failed."""
        while rounds := set(self._rounds):
            wait(rounds)

    def close(self) -> None:
        """Stop sending; requests that exceed the grace period are cancelled, and the next leader sends them."""
        with self._lock:
            self._closed = True
            rounds = set(self._rounds)
        wait(rounds, SHUTDOWN_GRACE_SECONDS)
        with self._lock:
            for request in self._active:
                request.cancel()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _round(self) -> None:
        try:
            while not self._closed and (request := self._claim()) is not None:
                try:
                    self.start_round()  # more may be due
                    self._send(self._active[request], request)
                finally:
                    with self._lock:
                        del self._active[request]
        except DBAPIError as error:
            log.warning("webhooks.unsettled", error=str(error.orig).strip())
        except Exception:  # the future's result is not read: without this the fault would be lost
            log.exception("webhooks.failed")

    def _claim(self) -> WebhookRequest | None:
        """Claim a message, and return the request that sends it; None where none may be sent now."""
        with self._claim_lock:
            with self._lock:
                hosts = Counter(claimed.host for claimed in self._active.values())
                owners = Counter(claimed.webhook.owner for claimed in self._active.values())
            with self._database.session() as session:
                claimed = DeliveryRepository(session).claim(
                    lease=DELIVERY_LEASE,
                    full_hosts=[host for host, count in hosts.items() if count >= MAX_CONCURRENT_PER_HOST],
                    full_owners=[owner for owner, count in owners.items() if count >= MAX_CONCURRENT_PER_OWNER],
                )
            if claimed is None:
                return None
            request = WebhookRequest(self._options)
            with self._lock:
                self._active[request] = claimed
            return request

    def _send(self, claimed: ClaimedDelivery, request: WebhookRequest) -> None:
        body = json.dumps(claimed.delivery.payload, ensure_ascii=False, separators=(",", ":"))
        at = utc_now()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "GreenTune",
            "webhook-id": claimed.delivery.id,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": Signer(derive_signing_secret(self._secret, claimed.webhook.id)).sign(
                claimed.delivery.id, at, body
            ),
        }
        try:
            response = request.post(claimed.webhook.url, body.encode(), headers)
        except RequestCancelled:
            with self._database.session() as session:
                DeliveryRepository(session).release(claimed)
        except Undeliverable as error:
            self._record_failure(claimed, str(error))
        except Exception:  # a message that can never be sent must use up its attempts, too
            log.exception("webhook.not_sent", delivery=claimed.delivery.id, webhook=claimed.webhook.id)
            why = f"it could not be sent; the scheduler's log has the error under {claimed.delivery.id}"
            self._record_failure(claimed, why)
        else:
            self._record_response(claimed, response)

    def _record_response(self, claimed: ClaimedDelivery, response: WebhookResponse) -> None:
        status = response.status
        if HTTPStatus(200) <= status < HTTPStatus(300):
            with self._database.session() as session:
                DeliveryRepository(session).mark_delivered(claimed, status=status)
            log.info(
                "webhook.delivered",
                delivery=claimed.delivery.id,
                webhook=claimed.webhook.id,
                attempt=claimed.delivery.attempts,
            )
        elif status == HTTPStatus.GONE:
            with self._database.session() as session:
                DeliveryRepository(session).disable_gone_webhook(
                    claimed, status=status, error="its receiver answered 410: gone"
                )
            log.info("webhook.disabled", webhook=claimed.webhook.id, reason="410")
        else:
            error = f"answered {status}" + (", and redirects are not followed" if 300 <= status < 400 else "")
            self._record_failure(claimed, error, status=status, retry_after=response.retry_after)

    def _record_failure(
        self, claimed: ClaimedDelivery, error: str, *, status: int | None = None, retry_after: timedelta | None = None
    ) -> None:
        retry_in = (
            None
            if claimed.delivery.attempts >= self._max_attempts
            else compute_retry_delay(claimed.delivery.attempts, retry_after=retry_after)
        )
        with self._database.session() as session:
            deliveries = DeliveryRepository(session)
            disabled = deliveries.record_failure(claimed, status=status, error=error, retry_in=retry_in)
        log.info(
            "webhook.failed",
            delivery=claimed.delivery.id,
            webhook=claimed.webhook.id,
            attempt=claimed.delivery.attempts,
            error=error,
            again_after_s=retry_in and round(retry_in.total_seconds()),
        )
        if disabled is not None:
            log.warning("webhook.disabled", webhook=claimed.webhook.id, reason=disabled)


def compute_retry_delay(attempt: int, *, retry_after: timedelta | None = None) -> timedelta:
    """Return the delay after attempt number `attempt`, from 1: exponential with jitter, at least the receiver's
    `retry_after`, at most a day."""
    # The number of attempts is a setting: without this cap, a high one overflows.
    planned = min(FIRST_RETRY_DELAY * BACKOFF_FACTOR ** min(attempt - 1, 10), MAX_RETRY_DELAY)
    jittered = planned * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - spreads load, guards nothing
    return min(max(jittered, retry_after or timedelta(0)), MAX_RETRY_DELAY)
