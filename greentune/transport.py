"""HTTP transport of the client: authentication, retries, answers as models, and problems as errors."""

import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from http import HTTPStatus
from ipaddress import ip_address
from itertools import islice
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx

from greentune.errors import FieldFault, Problem, UnexpectedAnswer, Unreachable
from greentune.models import Answer
from greentune.requests import without_nones

INITIAL_BACKOFF_SECONDS = 0.25
MAX_BACKOFF_SECONDS = 30.0
PAGE_ITEMS = 200
JSON = "application/json"

Params = Mapping[str, str | int | float | datetime | None]
Body = Callable[[], Any]
A = TypeVar("A", bound=Answer)


class Page(Answer, Generic[A]):
    """A list, or a part of a paginated one."""

    data: list[A]
    has_more: bool


class Transport:
    """Sends requests to the service at `url`, each at most `attempts` times.

    After a broken connection or a 503 with Retry-After only repeatable calls are retried. A call refused with 429 was
    not performed: it is retried after its Retry-After.
    """

    def __init__(self, url: str, key: str | None, *, timeout_seconds: float, attempts: int) -> None:
        base = _parse_url(url)
        headers = {"Accept": JSON, "User-Agent": "greentune"}
        if key:
            if not (key.isascii() and key.isprintable()):
                raise ValueError("the key holds characters that no key has: expected gtk_ and printable ASCII")
            headers["Authorization"] = f"Bearer {key}"
        self.url = str(base).rstrip("/")
        self._attempts = max(1, attempts)
        # A proxy of the environment is not used for this machine.
        self._http = httpx.Client(
            base_url=base, headers=headers, timeout=timeout_seconds, trust_env=not _is_loopback(base.host)
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        json: Any = None,
        content: Body | None = None,
        headers: Mapping[str, str] | None = None,
        read_seconds: float | None = None,
        repeatable: bool = False,
    ) -> httpx.Response:
        """Send a request and return its answer, a success or 304. `content` is called for the body of each attempt.

        Raises `Problem` for any other answer, and `Unreachable` without an answer.
        """
        sent_before = False
        for last in self._iterate_attempts():
            try:
                response = self._http.request(
                    method,
                    path,
                    params=without_nones(params or {}),
                    json=json,
                    content=None if content is None else content(),
                    headers=headers,
                    timeout=self._timeout(read_seconds),
                )
            except httpx.TransportError as error:
                if last or not repeatable:
                    raise self._unreachable(method, path, error) from error
                sent_before = True
                continue
            if response.is_success or response.status_code == HTTPStatus.NOT_MODIFIED:
                return response
            if method == "DELETE" and sent_before and response.status_code == HTTPStatus.NOT_FOUND:
                return response  # deleted by the attempt whose answer was lost
            if last or not _wait_to_retry(response, repeatable=repeatable):
                raise parse_problem(response)
        raise AssertionError("the last attempt returns or raises")

    @contextmanager
    def stream(
        self, path: str, *, headers: Mapping[str, str] | None = None, read_seconds: float | None = None
    ) -> Iterator[httpx.Response]:
        """Open a stream with one GET, without retries. Raises as `call`, also where the stream breaks off later."""
        try:
            with self._http.stream("GET", path, headers=headers, timeout=self._timeout(read_seconds)) as response:
                if not response.is_success:
                    response.read()
                    raise parse_problem(response)
                yield response
        except httpx.TransportError as error:
            raise self._unreachable("GET", path, error) from error

    def get(self, kind: type[A], path: str, params: Params | None = None) -> A:
        """Return the resource at `path`."""
        return parse_answer(kind, self.call("GET", path, params=params, repeatable=True))

    def send(self, kind: type[A], method: str, path: str, **request: Any) -> A:
        """Send a request with the arguments of `call`, and return its answer."""
        return parse_answer(kind, self.call(method, path, **request))

    def pages(
        self,
        path: str,
        kind: type[Page[A]],
        params: Params | None = None,
        *,
        cursor: str = "id",
        most: int | None = None,
    ) -> Iterator[A]:
        """Iterate over the items of a list, at most `most`; `cursor` names the field whose value `after` takes."""

        def iterate(params: Params) -> Iterator[A]:
            while True:
                page = self.get(kind, path, params)
                yield from page.data
                if not page.has_more or not page.data:
                    return
                params = {**params, "after": getattr(page.data[-1], cursor)}

        return islice(iterate({"limit": min(most or PAGE_ITEMS, PAGE_ITEMS), **(params or {})}), most)

    def backoff_delays(self) -> Iterator[float]:
        """Yield the seconds to wait before each further attempt that is allowed."""
        for attempt in range(self._attempts - 1):
            yield INITIAL_BACKOFF_SECONDS * 2**attempt * random.uniform(0.75, 1.25)  # noqa: S311  (no secret)

    def _timeout(self, read_seconds: float | None) -> httpx.Timeout:
        timeout = httpx.Timeout(self._http.timeout)
        timeout.read = timeout.read if read_seconds is None else read_seconds
        return timeout

    def _iterate_attempts(self) -> Iterator[bool]:
        """Yield for each attempt whether it is the last, after a pause before all but the first."""
        yield self._attempts == 1
        for number, pause in enumerate(self.backoff_delays(), start=2):
            time.sleep(pause)
            yield number == self._attempts

    def _unreachable(self, method: str, path: str, error: httpx.TransportError) -> Unreachable:
        reason = str(error) or type(error).__name__
        return Unreachable(f"{method} {path}: the service at {self.url} does not answer: {reason}")


def resource_path(*segments: str) -> str:
    """Return the path of a resource; its segments are quoted, so that a slash in an id does not change the path."""
    return "".join(f"/{quote(segment, safe='') or '%20'}" for segment in segments)


def parse_answer(kind: type[A], response: httpx.Response) -> A:
    """Parse an answer as a model; raises `UnexpectedAnswer` where it is not JSON, or does not match."""
    request = response.request
    try:
        body = response.json()
    except ValueError as error:
        raise UnexpectedAnswer(
            f"{request.method} {request.url.path}: expected JSON, not "
            f"{response.headers.get('content-type', 'an untyped answer')}: is {request.url.host} GreenTune?"
        ) from error
    try:
        return kind.model_validate(body)
    except ValueError as error:
        raise UnexpectedAnswer(f"{request.url.path}: not a {kind.__name__} in the expected format: {error}") from error


def parse_problem(response: httpx.Response) -> Problem:
    """Return the RFC 9457 problem of an answer, or one of its status where it is another error."""
    status, phrase = response.status_code, response.reason_phrase or str(response.status_code)
    if response.has_redirect_location:
        return Problem(status, phrase, f"the service has moved to {response.headers['location']}: use that URL")
    try:
        body = response.json()
        faults = [FieldFault(str(fault["field"]), str(fault["message"])) for fault in body.get("errors", [])]
        return Problem(status, str(body["title"]), str(body["detail"]), faults)
    except (ValueError, KeyError, TypeError, AttributeError):
        return Problem(status, phrase, f"{response.request.method} {response.request.url.path}: {status} {phrase}")


def _wait_to_retry(response: httpx.Response, *, repeatable: bool) -> bool:
    """Return whether to retry, after waiting for the answer's Retry-After."""
    allowed = response.status_code == HTTPStatus.TOO_MANY_REQUESTS or (
        repeatable and response.status_code == HTTPStatus.SERVICE_UNAVAILABLE
    )
    try:
        seconds = float(response.headers["retry-after"])
    except (KeyError, ValueError):
        return False
    if not allowed or not 0 <= seconds <= MAX_BACKOFF_SECONDS:
        return False
    time.sleep(seconds)
    return True


def _parse_url(url: str) -> httpx.URL:
    try:
        base = httpx.URL(url)
    except (httpx.InvalidURL, ValueError) as error:
        raise ValueError(f"{url!r} is not an address ({error}): expected one such as http://127.0.0.1:8000") from error
    if base.scheme not in ("http", "https") or not base.host:
        raise ValueError(f"{url!r} is not an address: expected one such as http://127.0.0.1:8000")
    return base


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
