"""Takes the client address and scheme of a request from trusted proxies."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

SCHEMES = ("http", "https")


class TrustedProxyMiddleware:
    """Middleware that replaces the peer's address and the scheme by those that a trusted proxy forwards.

    The client is the rightmost address in `X-Forwarded-For` that is not a trusted proxy's: anything left of it was sent
    by the client and may be forged. If that is not an address, the nearest proxy's is kept. Headers of any other peer
    are ignored.
    """

    def __init__(self, app: ASGIApp, *, networks: Iterable[str]) -> None:
        self._app = app
        self._networks = [ip_network(network) for network in networks]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope.get("client") is not None:
            peer = _address(scope["client"][0])
            if peer is not None and self._trusts(peer):
                headers = Headers(scope=scope)
                client = self._client(peer, headers.getlist("x-forwarded-for"))
                scheme = headers.get("x-forwarded-proto", "").strip().lower()
                scope = {
                    **scope,
                    "client": scope["client"] if client == peer else (str(client), 0),
                    "scheme": scheme if scheme in SCHEMES else scope["scheme"],
                }
        await self._app(scope, receive, send)

    def _trusts(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address in network for network in self._networks)

    def _client(self, peer: IPv4Address | IPv6Address, forwarded: list[str]) -> IPv4Address | IPv6Address:
        for text in reversed(",".join(forwarded).split(",")):
            address = _address(text.strip())
            if address is None:
                break
            peer = address
            if not self._trusts(address):
                break
        return peer


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """Return an address as a server or a proxy writes it, with or without a port; None for anything else."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
