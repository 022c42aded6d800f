"""Rate limits of keys and addresses, counted in this process."""

import time
from http import HTTPStatus
from ipaddress import IPv6Address, ip_address
from math import ceil

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from api.http.problems import Problem

FAILURES_PER_MINUTE = 30
IPV6_NETWORK_BITS = 64


class RateLimiter:
    """Counts over a sliding minute: requests by key or address, and failed authentications by address."""

    def __init__(self, *, per_minute: int) -> None:
        self._requests = RateLimitItemPerMinute(per_minute)
        self._failures = RateLimitItemPerMinute(FAILURES_PER_MINUTE)
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    def count_request(self, caller: str) -> dict[str, str]:
        """Count a request of a key or an address; return the headers that say what is left of its limit.

        Raises the 429 with the time to wait.
        """
        if not self._limiter.hit(self._requests, "request", caller):
            raise self._too_many("more than {} requests a minute", self._requests, "request", caller)
        return self._headers(self._requests, "request", caller)

    def count_failure(self, address: str) -> None:
        """Count a key or a session that was refused."""
        self._limiter.hit(self._failures, "failure", address)

    def check_failures(self, address: str) -> None:
        """Raise the 429 for an address from which too many keys were refused."""
        if not self._limiter.test(self._failures, "failure", address):
            what = "more than {} keys a minute were refused from this address"
            raise self._too_many(what, self._failures, "failure", address)

    def _headers(self, limit: RateLimitItem, *caller: str) -> dict[str, str]:
        stats = self._limiter.get_window_stats(limit, *caller)
        return {
            "RateLimit-Limit": str(limit.amount),
            "RateLimit-Remaining": str(max(0, stats.remaining)),
            "RateLimit-Reset": str(max(1, ceil(stats.reset_time - time.time()))),
        }

    def _too_many(self, what: str, limit: RateLimitItem, *caller: str) -> Problem:
        headers = self._headers(limit, *caller)
        wait = headers["RateLimit-Reset"]
        detail = f"{what.format(limit.amount)}: try again in {wait} s"
        return Problem(HTTPStatus.TOO_MANY_REQUESTS, detail, headers={"Retry-After": wait, **headers})


def network_of(address: str) -> str:
    """Return what is counted as one address: of IPv6 the first 64 bits, which one subscriber has in full."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        return str(parsed.ipv4_mapped or IPv6Address(int(parsed) >> IPV6_NETWORK_BITS << IPV6_NETWORK_BITS))
    return address
