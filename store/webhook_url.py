"""Where webhooks may go: what a URL may look like, and which addresses may be reached."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import httpx

LONGEST_URL = 2000
PORTS = {"http": 80, "https": 443}
LABEL = r"(?!-)[a-z0-9_-]{1,63}(?<!-)"
NAME = re.compile(rf"{LABEL}(\.{LABEL})*")
LONGEST_NAME = 253
# Systems read such a last label as (a part of) an IPv4 address, in decimal, octal or hexadecimal digits.
NUMBER = re.compile(r"([0-9]+|0x[0-9a-f]*)")
LOOPBACK_NAMES = ("localhost", ".localhost")

# What is not in here is loopback, link-local, unique local, multicast, or belongs to nobody yet.
GLOBAL_UNICAST = IPv6Network("2000::/3")
NAT64 = IPv6Network("64:ff9b::/96")
# Public by their form alone: documentation, protocols of the IETF, relays of 6to4, and an Azure machine's own host.
NOT_PUBLIC = (
    IPv6Network("3fff::/20"),
    IPv4Network("192.0.0.0/24"),
    IPv4Network("192.88.99.0/24"),
    IPv4Network("168.63.129.16/32"),
)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class UrlRefused(ValueError):
    """A URL that no webhook may have; the message says what is expected."""


@dataclass(frozen=True)
class Target:
    """A URL taken apart; `host` is a name in ASCII or an address, `path` begins with a slash and holds the query."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """Host and port as the header `Host` has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The URL in its one normal form."""
        return f"{self.scheme}://{self.authority}{self.path}"

    @property
    def literal(self) -> Address | None:
        """The address that stands in the place of a name; None where a name stands there."""
        try:
            return ip_address(self.host)
        except ValueError:
            return None


def parse_url(text: str) -> Target:
    """Take a URL apart. Raises `UrlRefused` for all that is no plain HTTP or HTTPS URL of a host."""
    if len(text) > LONGEST_URL:
        raise UrlRefused(f"has {len(text)} characters: expected at most {LONGEST_URL}")
    try:
        url = httpx.URL(text)
        host, path = url.raw_host.decode("ascii").removesuffix("."), url.raw_path.decode("ascii")
    except (httpx.InvalidURL, ValueError) as error:
        raise UrlRefused(f"is no URL: {error}") from None
    if url.scheme not in PORTS:
        raise UrlRefused(f"begins with {url.scheme!r}: expected an https:// URL")
    if url.userinfo:
        raise UrlRefused("holds a user or password: expected none; messages are signed instead")
    if "#" in text:
        raise UrlRefused("holds a fragment, which is never sent: expected none")
    port = PORTS[url.scheme] if url.port is None else url.port
    if not 1 <= port <= 65535:
        raise UrlRefused(f"has the port {port}: expected 1 to 65535")
    if not path.startswith("/"):
        raise UrlRefused("has no path: expected one that begins with a slash, or nothing, after the host")
    target = Target(url.scheme, host, port, path)
    _check_host(target)
    if len(target.url) > LONGEST_URL:
        raise UrlRefused(f"has {len(target.url)} characters once it is escaped: expected at most {LONGEST_URL}")
    return target


def refuse_private(target: Target, allowed: Sequence[Network]) -> None:
    """Raise `UrlRefused` where the URL itself shows that its host may not be reached, or not without encryption.

    A name tells nothing: what it stands for is looked up and checked anew for each message.
    """
    address: Address | None = target.literal
    if target.host.endswith(LOOPBACK_NAMES):
        address = IPv4Address("127.0.0.1")
    if address is not None and not is_address_allowed(address, allowed):
        raise UrlRefused(f"leads to {target.host}, which is not public: expected a host that anybody can reach")
    if target.scheme == "http" and not (allowed if address is None else is_in_private_networks(address, allowed)):
        raise UrlRefused("is not encrypted: expected an https:// URL")


def is_address_allowed(address: Address, allowed: Iterable[Network]) -> bool:
    """Whether an address is public, with all addresses that it holds, or in one of the `allowed` networks."""
    return is_in_private_networks(address, allowed) or all(_is_public(form) for form in _embedded_addresses(address))


def is_in_private_networks(address: Address, allowed: Iterable[Network]) -> bool:
    """Whether an address lies in a network of the operator's own."""
    plain = _unmap_ipv4(address)
    return any(plain in network for network in allowed)


def parse_networks(texts: Iterable[str]) -> list[Network]:
    """Networks such as `10.1.0.0/16`. Raises `ValueError` that names the one that is none."""
    return [ip_network(text) for text in texts]


def _check_host(target: Target) -> None:
    host = target.host
    if target.literal is not None:
        if "%" in host:
            raise UrlRefused("names an interface of this machine: expected an address without %")
        return
    if not host or len(host) > LONGEST_NAME or not NAME.fullmatch(host):
        raise UrlRefused(f"has the host {host[:LONGEST_NAME]!r}: expected a name or an address")
    if NUMBER.fullmatch(host.rpartition(".")[2]):
        raise UrlRefused(f"has the host {host!r}: expected an IPv4 address as four decimal numbers")


def _unmap_ipv4(address: Address) -> Address:
    """An IPv4 address that is written as an IPv6 one, as what it is."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _embedded_addresses(address: Address) -> Iterator[Address]:
    """The address, and what a translator or a tunnel makes of it."""
    plain = _unmap_ipv4(address)
    yield plain
    if isinstance(plain, IPv6Address):
        if plain in NAT64:
            yield IPv4Address(int(plain) & 0xFFFF_FFFF)
        if plain.sixtofour is not None:
            yield plain.sixtofour
        if plain.teredo is not None:
            yield from plain.teredo


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv6Address) and address not in GLOBAL_UNICAST and address not in NAT64:
        return False
    return address.is_global and not address.is_multicast and not any(address in network for network in NOT_PUBLIC)
