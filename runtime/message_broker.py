"""Connects to Redis, the message broker, probes it for writes, and describes why it refuses them."""

from collections.abc import Mapping

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

TIMEOUT_SECONDS = 3.0
PROBE_KEY = "greentune:probe"
PROBE_TTL_SECONDS = 60
# Description of each Redis error by its code, the first word of the message.
REFUSALS = {
    "READONLY": "is read-only, as a replica is",
    "OOM": "has no memory left",
    "MISCONF": "cannot save its data",
    "NOREPLICAS": "has too few replicas to take writes",
    "MASTERDOWN": "has lost its primary",
    "CLUSTERDOWN": "is down as a cluster",
    "LOADING": "is still loading its data",
    "BUSY": "is busy with a script",
    "NOPERM": "does not let this user write",
}
# The client's own classes, whose messages lack the code.
CODES = {
    redis.ReadOnlyError: "READONLY",
    redis.OutOfMemoryError: "OOM",
    redis.BusyLoadingError: "LOADING",
    redis.exceptions.NoPermissionError: "NOPERM",
}
SOCKET, SOCKET_OF_CELERY = "unix", "redis+socket"


def connect_redis(url: str, *, timeout_seconds: float = TIMEOUT_SECONDS) -> redis.Redis:
    """Return a client that does not retry, with `timeout_seconds`. Raises `ValueError` that names REDIS_URL."""
    try:
        return redis.Redis.from_url(
            _convert_scheme(url, SOCKET_OF_CELERY, SOCKET, {"virtual_host": "db"}),
            socket_connect_timeout=timeout_seconds,
            socket_timeout=timeout_seconds,
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError as error:
        # Other messages quote a part of the URL, which may contain the password.
        known = str(error) if str(error).startswith("Redis URL must specify") else "it cannot be read"
        raise ValueError(
            f"REDIS_URL: {known}: expected redis://USER:PASSWORD@HOST:PORT/0, rediss://… or unix:///PATH?db=0, "
            "with %2F for a / in a password"
        ) from None


def celery_url(url: str) -> str:
    """Return the broker's URL for Celery, which has another scheme for a Unix socket."""
    return _convert_scheme(url, SOCKET, SOCKET_OF_CELERY, {"db": "virtual_host"})


def probe_write(client: redis.Redis) -> None:
    """Write an expiring key to check that Redis accepts writes. Raises `redis.RedisError`."""
    client.set(PROBE_KEY, 1, ex=PROBE_TTL_SECONDS)


def describe_refusal(error: redis.RedisError) -> str:
    """Return why Redis refuses writes, without quoting its message: "is read-only, as a replica is"."""
    if isinstance(error, redis.AuthenticationError | redis.exceptions.AuthenticationWrongNumberOfArgsError):
        return "refuses the user or the password"
    code = next((code for kind, code in CODES.items() if isinstance(error, kind)), str(error).partition(" ")[0])
    return REFUSALS.get(code, "refuses writes" if isinstance(error, redis.ResponseError) else "does not answer")


def _convert_scheme(url: str, scheme: str, wanted: str, options: Mapping[str, str]) -> str:
    """Return a URL of `scheme` with the scheme `wanted` and its options renamed; any other URL unchanged."""
    given, separator, rest = url.partition("://")
    if given != scheme:
        return url
    place, _, query = rest.partition("?")
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    renamed = "&".join(f"{options.get(name, name)}={value}" for name, _, value in pairs)
    return f"{wanted}{separator}{place}" + (f"?{renamed}" if renamed else "")
