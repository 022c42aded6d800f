"""HTTP client for a provider's JSON: bounded in time and size, with retries."""

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from http import HTTPStatus
from ssl import SSLContext
from urllib.parse import urlsplit

import httpx
import tenacity

from greencore.carbon.errors import CarbonError, InvalidResponse, SourceUnavailable
from greencore.carbon.http.answers import ResponseValue
from greencore.retry_after import parse_retry_after

DETAIL_CHARACTERS = 200
# The key or the request was refused.
ACCESS_STATUSES = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """Limits of one request: time, tries and size; all greater than 0.

    `total_seconds` bounds a request with all its tries; a read that has begun by then may still take `read_seconds`.
    The wait between tries is random up to `backoff_seconds`, doubled after each, at most `longest_backoff_seconds`
    (full jitter). `sleep` is for tests.
    """

    connect_seconds: float = 3.0
    read_seconds: float = 5.0
    total_seconds: float = 10.0
    tries: int = 3
    backoff_seconds: float = 0.5
    longest_backoff_seconds: float = 4.0
    largest_bytes: int = 20_000_000
    sleep: Callable[[float], None] = time.sleep


class HttpStatusError(CarbonError):
    """A provider answered a status that is neither success nor retried.

    `.status` is the HTTP status, `.detail` the response body, shortened and without keys, `.retry_after` its
    Retry-After, or None.
    """

    def __init__(self, source: str, status: int, detail: str, retry_after: timedelta | None) -> None:
        super().__init__(f"{source} answered {status}{': ' if detail else ''}{detail}")
        self.status = status
        self.detail = detail
        self.retry_after = retry_after


class JsonClient:
    """Sends requests to one provider at one address; thread-safe, as it has no state.

    `secrets` returns the keys, which no message may contain.
    """

    def __init__(
        self,
        source: str,
        url: str,
        *,
        limits: HttpLimits,
        secrets: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self._source = source
        self._url = url
        self._host = urlsplit(url).netloc
        self._limits = limits
        self._secrets = secrets

    def get(
        self,
        path: str,
        parameters: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        tries: int | None = None,
    ) -> ResponseValue | None:
        """Return the JSON of `path`, or None for an empty response (204); a byte-order mark is ignored.

        Failures to connect, time-outs, statuses from 500 and bodies that are not JSON are retried, up to `tries` in
        all (None: as the limits say). Raises SourceUnavailable where no try succeeds, InvalidResponse where the last
        body was not JSON or too large, HttpStatusError for other statuses.
        """
        limits = self._limits
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((SourceUnavailable, _IncompleteJson)),
            stop=tenacity.stop_after_attempt(tries or limits.tries) | tenacity.stop_before_delay(limits.total_seconds),
            wait=tenacity.wait_random_exponential(limits.backoff_seconds, max=limits.longest_backoff_seconds),
            sleep=limits.sleep,
            before_sleep=self._log_retry,
            reraise=True,
        )
        deadline = time.monotonic() + limits.total_seconds
        return retrying(self._request_once, path, parameters or {}, headers or {}, deadline)

    def redacted(self, text: str) -> str:
        """Return `text` with the keys replaced."""
        for secret in self._secrets():
            if secret:
                text = text.replace(secret, "***")
        return text

    def _log_retry(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome and state.outcome.exception()
        _log.info("carbon_request_retried source=%s attempt=%d reason=%s", self._source, state.attempt_number, error)

    def _request_once(
        self, path: str, parameters: Mapping[str, str], headers: Mapping[str, str], deadline: float
    ) -> ResponseValue | None:
        left = max(deadline - time.monotonic(), 0.001)
        read, connect = min(self._limits.read_seconds, left), min(self._limits.connect_seconds, left)
        # A client per request: requests are minutes apart, and no connection outlives a fork.
        try:
            with (
                httpx.Client(timeout=httpx.Timeout(read, connect=connect), verify=_ssl_context()) as client,
                client.stream(
                    "GET",
                    self._url + path,
                    params=dict(parameters) or None,
                    headers={"accept": "application/json", "user-agent": "greentune", **headers},
                ) as response,
            ):
                body = self._read_body(response, deadline)
        except httpx.HTTPError as error:
            # Without its cause: httpx's own message may quote a header.
            raise SourceUnavailable(f"{self._source} at {self._host}: {_describe_error(error)}") from None
        if response.status_code >= 500 and "retry-after" not in response.headers:
            raise SourceUnavailable(f"{self._source} at {self._host} answered {response.status_code}")
        if not response.is_success:
            raise HttpStatusError(
                self._source, response.status_code, self._detail(body), parse_retry_after(response.headers)
            )
        if response.status_code == httpx.codes.NO_CONTENT:
            return None
        try:
            return ResponseValue(json.loads(body.decode("utf-8-sig")), self._source)
        except (ValueError, RecursionError):
            kind = response.headers.get("content-type", "without a content type")
            raise _IncompleteJson(
                f"{self._source} answered {len(body)} bytes of {self.redacted(kind)[:DETAIL_CHARACTERS]!r} "
                "that are not complete JSON"
            ) from None

    def _read_body(self, response: httpx.Response, deadline: float) -> bytes:
        body = bytearray()
        # Chunks of any size: waiting for a full chunk would pass the deadline.
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > self._limits.largest_bytes:
                raise InvalidResponse(f"{self._source} answered more than {self._limits.largest_bytes} bytes")
            if time.monotonic() > deadline:
                raise SourceUnavailable(
                    f"{self._source} at {self._host} did not finish its response "
                    f"within {self._limits.total_seconds:g} s"
                )
        return bytes(body)

    def _detail(self, body: bytes) -> str:
        text = self.redacted(body.decode("utf-8", errors="replace"))
        return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())[:DETAIL_CHARACTERS]


class _IncompleteJson(InvalidResponse):
    """A body that is not JSON: truncated, or from a proxy."""


@cache
def _ssl_context() -> SSLContext:
    return httpx.create_ssl_context()


def _describe_error(error: httpx.HTTPError) -> str:
    if isinstance(error, httpx.ConnectTimeout):
        return "timed out while connecting"
    if isinstance(error, httpx.TimeoutException):
        return "timed out while answering"
    if isinstance(error, httpx.ConnectError):
        return "no connection"
    return f"the connection failed ({type(error).__name__})"
