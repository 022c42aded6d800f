"""One webhook request: only checked addresses are connected to, and time and size are limited."""

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from scheduler.webhooks import request
from scheduler.webhooks.request import (
    ConnectionOptions,
    RequestCancelled,
    Undeliverable,
    WebhookRequest,
    WebhookResponse,
    resolve_host,
)
from store.webhook_url import parse_networks
from tests.webhook_receiver import WebhookReceiver, WebhookReply

LOCAL = parse_networks(["127.0.0.0/8"])
OPTIONS = ConnectionOptions(LOCAL, total_seconds=0.6, connect_seconds=0.3)


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as receiver:
        yield receiver


def post(url: str, options: ConnectionOptions = OPTIONS) -> WebhookResponse:
    return WebhookRequest(options).post(url, b"{}", {"webhook-id": "msg_1"})


def names(*answers: list[str]) -> Callable[[str, int], list[str]]:
    """Return a resolver that gives these answers one after the other."""
    left = iter(answers)
    return lambda host, port: next(left)


def test_the_message_arrives_whole_with_the_hosts_name(receiver: WebhookReceiver) -> None:
    options = replace(OPTIONS, resolve=names(["127.0.0.1"]))
    answered = post(f"http://hooks.example.com:{receiver.port}/hook?a=b%20c", options)

    [message] = receiver.messages
    assert answered == WebhookResponse(204, None)
    assert (message.path, message.body) == ("/hook?a=b%20c", b"{}")
    assert message.headers["Host"] == f"hooks.example.com:{receiver.port}"
    assert message.headers["webhook-id"] == "msg_1"


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["8.8.8.8", "127.0.0.1"],
        ["::ffff:127.0.0.1"],
        ["::1"],
        ["fe80::1%eth0"],
        ["169.254.169.254"],
        ["64:ff9b::7f00:1"],
        [],
    ],
)
def test_a_host_with_any_address_that_is_not_public_is_not_connected_to(
    receiver: WebhookReceiver, addresses: list[str]
) -> None:
    for scheme in ("http", "https"):
        with pytest.raises(Undeliverable, match="not public") as raised:
            post(f"{scheme}://hooks.example.com:{receiver.port}/", ConnectionOptions(resolve=names(addresses)))
        # The owner of a name must not learn the internal address that it resolves to.
        assert not [address for address in addresses if address in str(raised.value)]
    assert receiver.messages == []


@pytest.mark.parametrize("host", ["localhost", "ip6-localhost"])
def test_names_that_the_system_resolves_to_loopback_are_refused(receiver: WebhookReceiver, host: str) -> None:
    with pytest.raises(Undeliverable, match=r"not public|no address"):
        post(f"https://{host}:{receiver.port}/", ConnectionOptions())
    assert receiver.messages == []


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "[::ffff:7f00:1]", "127.0.0.1"])
def test_loopback_is_refused_however_it_is_written(receiver: WebhookReceiver, host: str) -> None:
    with pytest.raises(Undeliverable):
        post(f"https://{host}:{receiver.port}/", ConnectionOptions())
    assert receiver.messages == []
    # The check is not by the URL alone: the system resolves these to loopback, which is refused, too.
    with suppress(OSError):
        found = resolve_host(host.strip("[]"), receiver.port)
        with pytest.raises(Undeliverable, match="not public"):
            post(f"https://hooks.example.com:{receiver.port}/", ConnectionOptions(resolve=names(found)))


def test_a_name_that_changes_its_address_is_resolved_once(receiver: WebhookReceiver) -> None:
    """The first answer is checked and connected to: 127.0.0.1 represents a public address, 127.0.0.2 a private one."""
    asked: list[str] = []

    def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    options = replace(OPTIONS, allowed_networks=parse_networks(["127.0.0.1/32"]), resolve=rebinding)
    url = f"http://rebinding.example.com:{receiver.port}/"
    assert post(url, options).status == 204
    assert asked == ["rebinding.example.com"]

    with pytest.raises(Undeliverable, match="not public"):
        post(url, options)
    assert len(receiver.messages) == 1


def test_nothing_goes_unencrypted_to_a_public_address() -> None:
    with pytest.raises(Undeliverable, match="not encrypted"):
        post("http://hooks.example.com/", ConnectionOptions(LOCAL, resolve=names(["8.8.8.8"])))


def test_proxy_settings_are_ignored(receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    with WebhookReceiver() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        assert post(receiver.url).status == 204
        assert (len(receiver.messages), proxy.messages) == (1, [])


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_returned_and_not_followed(receiver: WebhookReceiver, status: int) -> None:
    with WebhookReceiver() as inside:
        receiver.replies.append(WebhookReply(status, {"Location": inside.url}))
        assert post(receiver.url) == WebhookResponse(status, None)
        assert inside.messages == []


def test_the_next_address_is_tried_where_the_first_does_not_listen(receiver: WebhookReceiver) -> None:
    options = replace(OPTIONS, resolve=names(["127.0.0.2", "127.0.0.1"]))
    assert post(f"http://hooks.example.com:{receiver.port}/", options).status == 204


def test_a_refused_connection_and_an_unknown_name_have_different_errors(receiver: WebhookReceiver) -> None:
    with pytest.raises(Undeliverable, match="no connection"):
        post(f"http://127.0.0.2:{receiver.port}/")
    with pytest.raises(Undeliverable, match="has no address"):
        post("https://hooks.invalid/", ConnectionOptions())


def test_retry_after_is_returned_with_the_status(receiver: WebhookReceiver) -> None:
    receiver.replies.append(WebhookReply(503, {"Retry-After": "120"}))
    assert post(receiver.url) == WebhookResponse(503, timedelta(minutes=2))


def drip(piece: bytes, *, every: float = 0.05, first: bytes = b"") -> Callable[[Any], None]:
    def send(out: Any) -> None:
        out.write(first)
        for _ in range(100):
            out.write(piece)
            out.flush()
            time.sleep(every)

    return send


def test_a_receiver_that_drips_its_headers_times_out(receiver: WebhookReceiver) -> None:
    receiver.replies.append(WebhookReply(send=drip(b"x-h: 1\r\n", first=b"HTTP/1.1 200 OK\r\n")))
    begun = time.monotonic()
    with pytest.raises(Undeliverable, match=r"no answer within 0\.6 s"):
        post(receiver.url)
    assert time.monotonic() - begun < 1.5


def test_a_receiver_that_sends_only_interim_responses_times_out(receiver: WebhookReceiver) -> None:
    receiver.replies.append(WebhookReply(send=drip(b"HTTP/1.1 103 Early Hints\r\n\r\n")))
    with pytest.raises(Undeliverable, match="no answer within"):
        post(receiver.url)


def test_an_endless_body_does_not_change_the_response(receiver: WebhookReceiver) -> None:
    sent = [0]

    def pour(out: Any) -> None:
        out.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while sent[0] < 2**30:
            out.write(b"x" * 2**16)
            sent[0] += 2**16

    receiver.replies.append(WebhookReply(send=pour))
    assert post(receiver.url).status == 200
    assert sent[0] < 64 * 2**20  # the buffers between the two


def test_a_dripping_body_does_not_change_the_response(
    receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request, "BODY_TIMEOUT_SECONDS", 0.2)
    receiver.replies.append(WebhookReply(send=drip(b"x", first=b"HTTP/1.1 200 OK\r\n\r\n")))
    begun = time.monotonic()
    assert post(receiver.url).status == 200
    assert time.monotonic() - begun < 0.6


def test_a_response_that_is_not_http_fails(receiver: WebhookReceiver) -> None:
    receiver.replies.append(WebhookReply(send=lambda out: out.write(b"220 mail.example.com ESMTP\r\n")))
    with pytest.raises(Undeliverable, match="the connection failed"):
        post(receiver.url)


def test_a_request_can_be_cancelled(receiver: WebhookReceiver) -> None:
    receiver.held.clear()
    request = WebhookRequest(ConnectionOptions(LOCAL))
    threading.Timer(0.2, request.cancel).start()
    with pytest.raises(RequestCancelled):
        request.post(receiver.url, b"{}", {})

    never_begun = WebhookRequest(ConnectionOptions(LOCAL))
    never_begun.cancel()
    with pytest.raises(RequestCancelled):
        never_begun.post(receiver.url, b"{}", {})


def self_signed(folder: Path, host: str) -> Path:
    """A file with a key and a certificate that the key has signed itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / f"{host}.pem"
    pem = serialization.Encoding.PEM
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    file.write_bytes(key.private_bytes(pem, *form) + certificate.public_bytes(pem))
    return file


def test_the_certificate_must_be_the_hosts_and_trusted(tmp_path: Path) -> None:
    file = self_signed(tmp_path, "hooks.example.com")
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(file)
    trusting = replace(OPTIONS, resolve=lambda *_: ["127.0.0.1"], ssl_context=ssl.create_default_context(cafile=file))
    with WebhookReceiver(tls=server_side) as receiver:
        url = f"https://hooks.example.com:{receiver.port}/"
        with pytest.raises(Undeliverable, match=r"certificate .* self-signed"):
            post(url, replace(trusting, ssl_context=None))
        with pytest.raises(Undeliverable, match=r"not one of other\.example\.com: .*mismatch"):
            post(f"https://other.example.com:{receiver.port}/", trusting)
        assert receiver.messages == []

        assert post(url, trusting).status == 204
        assert len(receiver.messages) == 1


def test_a_receiver_without_tls_fails(receiver: WebhookReceiver) -> None:
    with pytest.raises(Undeliverable, match=r"no connection|failed|timed out|no answer"):
        post(f"https://127.0.0.1:{receiver.port}/")
