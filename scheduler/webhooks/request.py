"""One HTTP request of a webhook delivery: resolve the host, check every address, and post to a checked one."""

import asyncio
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from ipaddress import ip_address

import httpx

from greencore.retry_after import parse_retry_after
from store.webhook_url import Network, Target, UrlRefused, is_address_allowed, is_in_private_networks, parse_url

CONNECT_TIMEOUT_SECONDS = 5.0
TOTAL_TIMEOUT_SECONDS = 15.0
MAX_BODY_BYTES = 64 * 2**10
BODY_TIMEOUT_SECONDS = 1.0
MAX_ADDRESSES = 4

Resolver = Callable[[str, int], Sequence[str]]


class Undeliverable(Exception):
    """No receiver answered; the text may be shown to the webhook's owner, and contains no IP address."""


class RequestCancelled(Exception):
    """The request was cancelled by `WebhookRequest.cancel`."""


@dataclass(frozen=True)
class WebhookResponse:
    """A receiver's status, and the delay that its Retry-After header requests; the body is not kept."""

    status: int
    retry_after: timedelta | None


def resolve_host(host: str, port: int) -> list[str]:
    """Return all addresses that the system resolves a host to. Raises `OSError` where there are none."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


@dataclass(frozen=True)
class ConnectionOptions:
    """Options of the connections to receivers.

    `allowed_networks` are private networks that may be reached; `ssl_context` has the trusted certificates (None: the
    public ones, or those of SSL_CERT_FILE). Proxy settings are ignored.
    """

    allowed_networks: Sequence[Network] = ()
    resolve: Resolver = resolve_host
    ssl_context: ssl.SSLContext | None = None
    connect_seconds: float = CONNECT_TIMEOUT_SECONDS
    total_seconds: float = TOTAL_TIMEOUT_SECONDS


class WebhookRequest:
    """One POST request, which another thread may cancel."""

    def __init__(self, options: ConnectionOptions) -> None:
        self._options = options
        self._cancelled = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[WebhookResponse] | None = None

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> WebhookResponse:
        """Post and return the response, whatever its status; redirects are not followed.

        Takes at most `total_seconds`, however slowly the receiver answers, plus what the system's resolver takes
        beyond that. Raises `Undeliverable` and `RequestCancelled`.
        """
        deadline = time.monotonic() + self._options.total_seconds
        try:
            target = parse_url(url)
        except UrlRefused as error:
            raise Undeliverable(f"the URL {error}") from None
        addresses = self._resolve_allowed_addresses(target)
        return asyncio.run(self._post_within(target, addresses, body, headers, deadline - time.monotonic()))

    def cancel(self) -> None:
        """Cancel the request, whether it runs or has not started."""
        self._cancelled = True
        if self._loop is not None and self._task is not None:
            with suppress(RuntimeError):  # it has just ended
                self._loop.call_soon_threadsafe(self._task.cancel)

    def _resolve_allowed_addresses(self, target: Target) -> Sequence[str]:
        """Return the host's addresses. Raises `Undeliverable` where any of them may not be reached."""
        try:
            found = self._options.resolve(target.host, target.port)
            addresses = [ip_address(text.partition("%")[0]) for text in found]
        except (OSError, ValueError):  # an invalid name is a ValueError
            raise Undeliverable(f"{target.host} has no address") from None
        allowed_networks = self._options.allowed_networks
        if not addresses or not all(is_address_allowed(address, allowed_networks) for address in addresses):
            raise Undeliverable(f"{target.host} leads to an address that is not public, which webhooks may not reach")
        if target.scheme != "https" and not all(
            is_in_private_networks(address, allowed_networks) for address in addresses
        ):
            raise Undeliverable("is not encrypted: expected an https:// URL")
        return [str(address) for address in addresses[:MAX_ADDRESSES]]

    async def _post_within(
        self, target: Target, addresses: Sequence[str], body: bytes, headers: Mapping[str, str], seconds: float
    ) -> WebhookResponse:
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._post_to_first_reachable(target, addresses, body, headers))
        if self._cancelled:
            self._task.cancel()
        try:
            return await asyncio.wait_for(self._task, seconds)
        except TimeoutError:
            raise Undeliverable(f"no answer within {self._options.total_seconds:g} s") from None
        except asyncio.CancelledError:
            raise RequestCancelled from None

    async def _post_to_first_reachable(
        self, target: Target, addresses: Sequence[str], body: bytes, headers: Mapping[str, str]
    ) -> WebhookResponse:
        failure = Undeliverable("no address")
        for address in addresses:
            try:
                return await self._post_to(address, target, body, headers)
            except httpx.TransportError as error:
                failure = Undeliverable(_describe_transport_error(error, target.host))
                if not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout) or _find_certificate_error(error):
                    break
        raise failure

    async def _post_to(self, address: str, target: Target, body: bytes, headers: Mapping[str, str]) -> WebhookResponse:
        """Post to a checked address: resolving the host a second time might give another one."""
        timeout = httpx.Timeout(self._options.total_seconds, connect=self._options.connect_seconds)
        here = f"[{address}]" if ":" in address else address
        async with (
            httpx.AsyncClient(
                verify=self._options.ssl_context or _default_ssl_context(),
                timeout=timeout,
                trust_env=False,
                follow_redirects=False,
            ) as client,
            client.stream(
                "POST",
                f"{target.scheme}://{here}:{target.port}{target.path}",
                content=body,
                headers={**headers, "Host": target.authority},
                # The certificate must be the host's.
                extensions={"sni_hostname": target.host},
            ) as response,
        ):
            webhook_response = WebhookResponse(response.status_code, parse_retry_after(response.headers))
            await _read_limited_body(response)
            return webhook_response


async def _read_limited_body(response: httpx.Response) -> None:
    """Read the body up to a limit of size and time: some receivers take a closed connection for a failure."""
    read = 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_SECONDS):
            async for chunk in response.aiter_raw():
                read += len(chunk)
                if read > MAX_BODY_BYTES:
                    return
    except (httpx.HTTPError, TimeoutError):
        return


@cache
def _default_ssl_context() -> ssl.SSLContext:
    return httpx.create_ssl_context()


def _describe_transport_error(error: httpx.TransportError, host: str) -> str:
    fault = _find_certificate_error(error)
    if fault is not None:
        return f"the certificate is not one of {host}: {fault.verify_message or fault.reason}"
    if isinstance(error, httpx.ConnectTimeout):
        return "timed out while connecting"
    if isinstance(error, httpx.TimeoutException):
        return "timed out while answering"
    if isinstance(error, httpx.ConnectError):
        return "no connection"
    return f"the connection failed ({type(error).__name__})"


def _find_certificate_error(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error
