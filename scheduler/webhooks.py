"""Tells webhooks what there is to tell, in threads of its own: no job waits for a receiver."""

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
from scheduler.webhook_request import Answered, Attempt, Interrupted, Route, Undeliverable
from store.database import Database
from store.deliveries import Claimed, DeliveryRepository
from store.settings import Settings
from store.webhook_url import networks
from store.webhooks import signing_secret

log = structlog.get_logger()

AT_ONCE = 8
AT_ONCE_PER_HOST = 2
AT_ONCE_PER_OWNER = 4
# Longer than an attempt takes: whoever died with a message loses it to another by then.
LEASE = timedelta(minutes=2)
# After the first attempt 15 s, then 1, 4, 16 and 64 minutes, 4.3 and 17 hours: 8 attempts take about a day.
FIRST_PAUSE = timedelta(seconds=15)
PAUSE_FACTOR = 4.0
LONGEST_PAUSE = timedelta(days=1)
JITTER = 0.2
# Of what the process is given to stop, so that a receiver that is about to answer is not told twice.
GRACE_SECONDS = 2.0


class WebhookDelivery:
    """Sends what is due, several messages at once, few of them to one host or of one owner.

    A message is put off in the database before it is sent, and settled there after: whoever dies in between loses
    none, and a receiver may be told twice.
    """

    def __init__(self, database: Database, settings: Settings, *, route: Route | None = None) -> None:
        """Raises `store.settings.SecretKeyMissing` where there is nothing to sign with."""
        self._database, self._secret = database, settings.secret
        self._max_attempts = settings.webhook_max_attempts
        self._route = route or Route(networks(settings.webhook_private_networks))
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="webhooks")
        # Nobody who has a moment only waits for a query: the tick calls `begin`.
        self._lock, self._claiming = threading.Lock(), threading.Lock()
        self._closed = False
        self._rounds: set[Future[None]] = set()
        self._attempts: set[Attempt] = set()
        self._hosts: Counter[str] = Counter()
        self._owners: Counter[str] = Counter()

    def begin(self) -> None:
        """Have one more thread look for what is due, unless all are at it."""
        with self._lock:
            if not self._closed and len(self._rounds) < AT_ONCE:
                begun = self._pool.submit(self._round)
                self._rounds.add(begun)
                # Called at once, in this thread, where the round is over already.
                begun.add_done_callback(self._rounds.discard)

    def wait(self) -> None:
        """Return once all that was due is settled."""
        while rounds := set(self._rounds):
            wait(rounds)

    def close(self) -> None:
        """Stop after what is being sent, or amidst it where that takes long: the next leader sends it again."""
        with self._lock:
            self._closed = True
            rounds = set(self._rounds)
        wait(rounds, GRACE_SECONDS)
        with self._lock:
            for attempt in self._attempts:
                attempt.cancel()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _round(self) -> None:
        """Send until nothing is due."""
        try:
            while not self._closed and (claimed := self._claim()) is not None:
                # Where one was due there may be more.
                self.begin()
                self._deliver(claimed)
        except Exception as fault:  # a thread's fault would be seen by nobody
            if isinstance(fault, DBAPIError):
                log.warning("webhooks.unsettled", error=str(fault.orig).strip())
            else:
                log.exception("webhooks.failed", exc_info=fault)

    def _claim(self) -> Claimed | None:
        with self._claiming:
            with self._lock:
                full_hosts = [host for host, count in self._hosts.items() if count >= AT_ONCE_PER_HOST]
                full_owners = [owner for owner, count in self._owners.items() if count >= AT_ONCE_PER_OWNER]
            with self._database.session() as session:
                claimed = DeliveryRepository(session).claim(lease=LEASE, full_hosts=full_hosts, full_owners=full_owners)
            if claimed is not None:
                with self._lock:
                    self._hosts[claimed.host] += 1
                    self._owners[claimed.owner] += 1
            return claimed

    def _deliver(self, claimed: Claimed) -> None:
        attempt = Attempt(self._route)
        with self._lock:
            self._attempts.add(attempt)
        try:
            self._send(claimed, attempt)
        finally:
            with self._lock:
                self._attempts.discard(attempt)
                for counter, key in ((self._hosts, claimed.host), (self._owners, claimed.owner)):
                    counter[key] -= 1
                    if not counter[key]:
                        del counter[key]

    def _send(self, claimed: Claimed, attempt: Attempt) -> None:
        body = json.dumps(claimed.payload, ensure_ascii=False, separators=(",", ":"))
        at = utc_now()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "GreenTune",
            "webhook-id": claimed.id,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": Signer(signing_secret(self._secret, claimed.webhook_id)).sign(claimed.id, at, body),
        }
        try:
            answered = attempt.post(claimed.url, body.encode(), headers)
        except Interrupted:
            with self._database.session() as session:
                DeliveryRepository(session).put_back(claimed)
        except Undeliverable as error:
            self._settle_failure(claimed, str(error))
        except Exception as fault:  # a message that can never be sent must be given up like any other
            log.exception("webhook.not_sent", delivery=claimed.id, webhook=claimed.webhook_id, exc_info=fault)
            self._settle_failure(claimed, f"it could not be sent; an operator finds why in the log under {claimed.id}")
        else:
            self._settle(claimed, answered)

    def _settle(self, claimed: Claimed, answered: Answered) -> None:
        status = answered.status
        if HTTPStatus(200) <= status < HTTPStatus(300):
            with self._database.session() as session:
                DeliveryRepository(session).delivered(claimed, status=status)
            log.info("webhook.delivered", delivery=claimed.id, webhook=claimed.webhook_id, attempt=claimed.attempt)
        elif status == HTTPStatus.GONE:
            with self._database.session() as session:
                DeliveryRepository(session).gone(claimed, status=status, error="its receiver answered 410: gone")
            log.info("webhook.disabled", webhook=claimed.webhook_id, reason="410")
        else:
            error = f"answered {status}" + (", and redirects are not followed" if 300 <= status < 400 else "")
            self._settle_failure(claimed, error, status=status, asked=answered.retry_after)

    def _settle_failure(
        self, claimed: Claimed, error: str, *, status: int | None = None, asked: timedelta | None = None
    ) -> None:
        again_after = None if claimed.attempt >= self._max_attempts else pause(claimed.attempt, asked=asked)
        with self._database.session() as session:
            deliveries = DeliveryRepository(session)
            disabled = deliveries.failed(claimed, status=status, error=error, again_after=again_after)
        log.info(
            "webhook.failed",
            delivery=claimed.id,
            webhook=claimed.webhook_id,
            attempt=claimed.attempt,
            error=error,
            again_after_s=again_after and round(again_after.total_seconds()),
        )
        if disabled is not None:
            log.warning("webhook.disabled", webhook=claimed.webhook_id, reason=disabled)


def pause(attempt: int, *, asked: timedelta | None = None) -> timedelta:
    """How long to wait after the `attempt`-th attempt, counted from 1: longer each time, and as long as the receiver
    has asked for, but a day at most."""
    # The number of attempts is a setting, and powers end somewhere.
    planned = min(FIRST_PAUSE * PAUSE_FACTOR ** min(attempt - 1, 10), LONGEST_PAUSE)
    jittered = planned * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - spreads load, guards nothing
    return min(max(jittered, asked or timedelta(0)), LONGEST_PAUSE)
