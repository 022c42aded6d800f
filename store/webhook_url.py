"""Validates webhook URLs, and the addresses that they may reach."""

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
# Resolvers read such a last label as part of an IPv4 address, in decimal, octal or hexadecimal digits.
NUMBER = re.compile(r"([0-9]+|0x[0-9a-f]*)")
LOOPBACK_NAMES = ("localhost", ".localhost")

# Addresses outside are loopback, link-local, unique local, multicast or unassigned.
GLOBAL_UNICAST = IPv6Network("2000::/3")
NAT64 = IPv6Network("64:ff9b::/96")
# Not public although `is_global`: documentation, IETF protocols, 6to4 relays, and the host of an Azure machine.
NOT_PUBLIC = (
    IPv6Network("3fff::/20"),
    IPv4Network("192.0.0.0/24"),
    IPv4Network("192.88.99.0/24"),
    IPv4Network("168.63.129.16/32"),
)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class UrlRefused(ValueError):
    """A URL is not allowed for a webhook; the message states what is expected."""


@dataclass(frozen=True)
class Target:
    """A parsed URL; `host` is an ASCII name or an address, `path` begins with a slash and includes the query."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """Host and port as in the `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The URL in its normal form."""
        return f"{self.scheme}://{self.authority}{self.path}"

    @property
    def literal(self) -> Address | None:
        """The host as an address; None where it is a name."""
        try:
            return ip_address(self.host)
        except ValueError:
            return None


def parse_url(text: str) -> Target:
    """Parse a URL. Raises `UrlRefused` for anything but a plain HTTP or HTTPS URL of a host."""
    if len(text) > LONGEST_URL:
        raise UrlRefused(f"has {len(text)} characters: expected at most {LONGEST_URL}")
    try:
        url = httpx.URL(text)
        host, path = url.raw_host.decode("ascii").removesuffix("."), url.raw_path.decode("ascii")
    except (httpx.InvalidURL, ValueError) as error:
        raise UrlRefused(f"is not a URL: {error}") from None
    if url.scheme not in PORTS:
        raise UrlRefused(f"begins with {url.scheme!r}: expected an https:// URL")
    if url.userinfo:
        raise UrlRefused("contains a user or password: expected none; messages are signed instead")
    if "#" in text:
        raise UrlRefused("contains a fragment, which is never sent: expected none")
    port = PORTS[url.scheme] if url.port is None else url.port
    if not 1 <= port <= 65535:
        raise UrlRefused(f"has the port {port}: expected 1 to 65535")
    if not path.startswith("/"):
        raise UrlRefused("has a path without a slash: expected nothing or a path that begins with one after the host")
    target = Target(url.scheme, host, port, path)
    _check_host(target)
    if len(target.url) > LONGEST_URL:
        raise UrlRefused(f"has {len(target.url)} characters when escaped: expected at most {LONGEST_URL}")
    return target


def refuse_private(target: Target, allowed: Sequence[Network]) -> None:
    """Raise `UrlRefused` for a URL with a private address, or without encryption.

    `allowed` are exceptions. A name is accepted: its addresses are checked again for each message.
    """
    address: Address | None = target.literal
    if target.host.endswith(LOOPBACK_NAMES):
        address = IPv4Address("127.0.0.1")
    if address is not None and not is_address_allowed(address, allowed):
        raise UrlRefused(f"leads to {target.host}, which is not public: expected a host with a public address")
    if target.scheme == "http" and not (allowed if address is None else is_in_private_networks(address, allowed)):
        raise UrlRefused("is not encrypted: expected an https:// URL")


def is_address_allowed(address: Address, allowed: Iterable[Network]) -> bool:
    """Return whether an address and those embedded in it are public, or it is in one of the `allowed` networks."""
    return is_in_private_networks(address, allowed) or all(_is_public(form) for form in _embedded_addresses(address))


def is_in_private_networks(address: Address, allowed: Iterable[Network]) -> bool:
    """Return whether an address is in one of the operator's private networks."""
    plain = _unmap_ipv4(address)
    return any(plain in network for network in allowed)


def parse_networks(texts: Iterable[str]) -> list[Network]:
    """Parse networks such as `10.1.0.0/16`. Raises `ValueError` that names an invalid one."""
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
    """Return the IPv4 address of an IPv4-mapped IPv6 address; any other address unchanged."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _embedded_addresses(address: Address) -> Iterator[Address]:
    """Yield the address, and the IPv4 addresses embedded in it for NAT64, 6to4 or Teredo."""
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
