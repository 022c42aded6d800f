"""Rate limits of keys and addresses, counted in this process."""

import time
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import IPv6Address, ip_address
from math import ceil

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from api.http.problems import Problem

FAILURES_PER_MINUTE = 30
IPV6_NETWORK_BITS = 64


@dataclass(frozen=True)
class Allowance:
    """Remaining requests of a limit, and the seconds until it resets."""

    limit: int
    remaining: int
    reset_seconds: int

    @property
    def headers(self) -> dict[str, str]:
        return {
            "RateLimit-Limit": str(self.limit),
            "RateLimit-Remaining": str(self.remaining),
            "RateLimit-Reset": str(self.reset_seconds),
        }


class RateLimiter:
    """Counts over a sliding minute: requests by key or address, and failed authentications by address."""

    def __init__(self, *, per_minute: int) -> None:
        self._requests = RateLimitItemPerMinute(per_minute)
        self._failures = RateLimitItemPerMinute(FAILURES_PER_MINUTE)
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    def count_request(self, caller: str) -> Allowance:
        """Count a request of a key or an address. Raises the 429 with the time to wait."""
        if not self._limiter.hit(self._requests, "request", caller):
            allowance = self._allowance(self._requests, "request", caller)
            raise _too_many(f"more than {allowance.limit} requests a minute", allowance)
        return self._allowance(self._requests, "request", caller)

    def count_failure(self, address: str) -> None:
        """Count a key or a session that was refused."""
        self._limiter.hit(self._failures, "failure", address)

    def check_failures(self, address: str) -> None:
        """Raise the 429 for an address from which too many keys were refused."""
        if not self._limiter.test(self._failures, "failure", address):
            allowance = self._allowance(self._failures, "failure", address)
            raise _too_many(f"more than {allowance.limit} keys a minute were refused from this address", allowance)

    def _allowance(self, limit: RateLimitItem, *caller: str) -> Allowance:
        stats = self._limiter.get_window_stats(limit, *caller)
        return Allowance(limit.amount, max(0, stats.remaining), max(1, ceil(stats.reset_time - time.time())))


def network_of(address: str) -> str:
    """Return what is counted as one address: of IPv6 the first 64 bits, which one subscriber has in full."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        return str(parsed.ipv4_mapped or IPv6Address(int(parsed) >> IPV6_NETWORK_BITS << IPV6_NETWORK_BITS))
    return address


def _too_many(what: str, allowance: Allowance) -> Problem:
    return Problem(
        HTTPStatus.TOO_MANY_REQUESTS,
        f"{what}: try again in {allowance.reset_seconds} s",
        headers={"Retry-After": str(allowance.reset_seconds), **allowance.headers},
    )
