"""One attempt to deliver a message: look the host up, check every address, connect to what was checked, and post."""

import asyncio
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
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
    """Nobody has answered; the message may be shown to the webhook's owner, and holds no address."""


class RequestCancelled(Exception):
    """The attempt was broken off by `WebhookRequest.cancel`."""


@dataclass(frozen=True)
class WebhookResponse:
    """What a receiver said; its body is of no interest. `retry_after` is how long it asks to be left alone."""

    status: int
    retry_after: timedelta | None


def resolve_host(host: str, port: int) -> list[str]:
    """All addresses of a host, as the system knows them. Raises `OSError` where it knows none."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


@dataclass(frozen=True)
class ConnectionOptions:
    """How receivers are reached.

    `allowed_networks` are the operator's own networks, `ssl_context` whose certificates are believed (None: the public
    ones, or those that SSL_CERT_FILE names). Nothing is taken from proxy settings.
    """

    allowed_networks: Sequence[Network] = ()
    resolve: Resolver = resolve_host
    ssl_context: ssl.SSLContext | None = None
    connect_seconds: float = CONNECT_TIMEOUT_SECONDS
    total_seconds: float = TOTAL_TIMEOUT_SECONDS


class WebhookRequest:
    """One POST, which another thread may break off."""

    def __init__(self, options: ConnectionOptions) -> None:
        self._options = options
        self._cancelled = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[WebhookResponse] | None = None

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> WebhookResponse:
        """The answer, whatever its status; redirects are answers like any other.

        All of it takes at most `total_seconds`, however slowly the receiver talks, and what the system takes to look
        the host up. Raises `Undeliverable` and `RequestCancelled`.
        """
        deadline = time.monotonic() + self._options.total_seconds
        try:
            target = parse_url(url)
        except UrlRefused as error:
            raise Undeliverable(f"the URL {error}") from None
        addresses = self._resolve_allowed_addresses(target)
        return asyncio.run(self._post_within(target, addresses, body, headers, deadline - time.monotonic()))

    def cancel(self) -> None:
        """Break off what is under way, and whatever was to begin."""
        self._cancelled = True
        if self._loop is not None and self._task is not None:
            try:
                self._loop.call_soon_threadsafe(self._task.cancel)
            except RuntimeError:  # it has just come to its end
                return

    def _resolve_allowed_addresses(self, target: Target) -> Sequence[str]:
        """The addresses of a host, all of them checked: one that may not be reached spoils the others."""
        try:
            found = self._options.resolve(target.host, target.port)
            addresses = [ip_address(text.partition("%")[0]) for text in found]
        except (OSError, ValueError):  # a name that is none is a ValueError
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
        """Post to this very address: looking the host up a second time might lead elsewhere."""
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
                # The certificate is to be the host's.
                extensions={"sni_hostname": target.host},
            ) as response,
        ):
            webhook_response = WebhookResponse(response.status_code, parse_retry_after(response.headers))
            await _read_limited_body(response)
            return webhook_response


async def _read_limited_body(response: httpx.Response) -> None:
    """Let the receiver say something, since some take a closed connection for a failure, but neither much nor long."""
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
