"""Webhook URLs, and the addresses that they may reach."""

from contextlib import suppress
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from runtime.settings import Settings
from store.webhook_url import LONGEST_URL, UrlRefused, is_address_allowed, parse_networks, parse_url, refuse_private

PRIVATE = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "168.63.129.16",
    "224.0.0.1",
    "224.0.1.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::8.8.8.8",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:a9fe:a9fe",
    "::ffff:0:127.0.0.1",
    "64:ff9b::127.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::8.8.8.8",
    "100::1",
    "2001::1",
    "2001:0:7f00:1::",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
]
PUBLIC = [
    "8.8.8.8",
    "1.1.1.1",
    "172.32.0.1",
    "2606:4700::1111",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
    "2002:808:808::1",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_is_refused_in_any_form(address: str) -> None:
    assert not is_address_allowed(ip_address(address), [])
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(UrlRefused, match="not public"):
        refuse_private(parse_url(f"https://{host}/hook"), [])


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_allowed(address: str) -> None:
    assert is_address_allowed(ip_address(address), [])


def test_the_operators_networks_are_allowed_and_no_other_private_ones() -> None:
    own = parse_networks(["10.1.0.0/16", "fd12::/16"])
    reached = [
        address
        for address in ("10.1.2.3", "::ffff:10.1.2.3", "fd12::1", "10.2.0.1", "fd13::1", "::1")
        if is_address_allowed(ip_address(address), own)
    ]
    assert reached == ["10.1.2.3", "::ffff:10.1.2.3", "fd12::1"]


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "expected an https:// URL"),
        ("example.com/hook", "expected an https:// URL"),
        ("ftp://example.com/", "expected an https:// URL"),
        ("file:///etc/passwd", "expected an https:// URL"),
        ("http://example.com/", "not encrypted"),
        ("http://8.8.8.8/", "not encrypted"),
        ("https:///hook", "expected a name or an address"),
        ("https://user@example.com/", "user"),
        ("https://user:word@example.com/", "user"),
        ("https://example.com\\@127.0.0.1/", "user"),
        ("https://example.com/#part", "fragment"),
        ("https://example.com/#", "fragment"),
        ("https://example.com:0/", "port"),
        ("https://example.com:65536/", "port"),
        ("https://example.com:x/", "is not a URL"),
        ("https://exa mple.com/", "expected a name or an address"),
        ("https://127%2e0.0.1/", "expected a name or an address"),
        ("https://-a.example/", "expected a name or an address"),
        ("https://" + "a." * 130 + "example/", "expected a name or an address"),
        ("https://example.com/\x00", "is not a URL"),
        ("https://example.com/\n", "is not a URL"),
        ("https://[::1", "is not a URL"),
        ("https://[fe80::1%25eth0]/", "interface|expected a name"),
        ("https://2130706433/", "four decimal numbers"),
        ("https://0x7f000001/", "four decimal numbers"),
        ("https://0x7f.0.0.1/", "four decimal numbers"),
        ("https://0177.0.0.1/", "is not a URL"),
        ("https://127.1/", "four decimal numbers"),
        ("https://127.0.0.1.", "not public"),
        ("https://0x/", "four decimal numbers"),
        ("https://１２７.0.0.1/", "is not a URL"),
        ("https://localhost/", "not public"),
        ("https://LOCALHOST./", "not public"),
        ("https://any.localhost:8443/", "not public"),
        ("https://example.com/" + "a" * LONGEST_URL, "characters"),
        ("https://example.com/" + "é" * (LONGEST_URL - 30), "characters"),
    ],
)
def test_an_invalid_url_is_refused_with_the_expectation(url: str, why: str) -> None:
    with pytest.raises(UrlRefused, match=why):
        refuse_private(parse_url(url), [])


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("https://Example.COM", "https://example.com/"),
        ("https://example.com.:443/a?b=c&d", "https://example.com/a?b=c&d"),
        ("https://exämple.de:8443/ü x", "https://xn--exmple-cua.de:8443/%C3%BC%20x"),
        ("https://8.8.8.8/hook", "https://8.8.8.8/hook"),
        ("https://[2606:4700::1111]:8443/", "https://[2606:4700::1111]:8443/"),
        ("https://a_b.example/", "https://a_b.example/"),
    ],
)
def test_the_normal_form_of_a_url_is_stable(given: str, normal: str) -> None:
    refuse_private(parse_url(given), [])
    assert parse_url(given).url == normal
    assert parse_url(normal).url == normal


@pytest.mark.parametrize("network", ["inside", "10.1.0.5/16", "10.0.0.0/33"])
def test_an_invalid_network_in_a_setting_is_refused(network: str) -> None:
    with pytest.raises(ValidationError, match=r"expected a network such as 10\.1\.0\.0/16"):
        Settings(webhook_private_networks=[network])


def test_without_encryption_only_the_operators_networks_are_allowed() -> None:
    own = parse_networks(["127.0.0.0/8"])
    refuse_private(parse_url("http://127.0.0.1:8080/hook"), own)
    refuse_private(parse_url("http://hooks.internal/"), own)  # a name, which each delivery looks up
    for url in ("http://8.8.8.8/", "http://10.0.0.1/"):
        with pytest.raises(UrlRefused):
            refuse_private(parse_url(url), own)


@given(
    st.one_of(
        st.text(), st.text().map("https://{}".format), st.text(alphabet="htps:/.@[]%#?0x17 \\").map("https://{}".format)
    )
)
def test_any_text_is_a_valid_url_or_refused(text: str) -> None:
    with suppress(UrlRefused):
        target = parse_url(text)
        assert parse_url(target.url) == target
        assert target.url.isascii()
        assert target.url.isprintable()
