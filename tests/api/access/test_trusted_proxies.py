"""Trusted proxies: which forwarded addresses are accepted, and their effect on limits and cookies."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import ValidationError

from api.access.rate_limits import FAILURES_PER_MINUTE
from api.main import create_app
from runtime.settings import Settings
from tests.keys import bearer, new_key

pytestmark = pytest.mark.fault(number=23)

PROXY = "10.1.2.3"
OWN_PAGE = {"Sec-Fetch-Site": "same-origin"}
ROOT = Path(__file__).parents[3]


@pytest.fixture
def serve(settings: Settings) -> Iterator[Callable[..., FastAPI]]:
    """Create the application with changed settings."""
    with ExitStack() as stack:

        def serve(**changed: Any) -> FastAPI:
            app = create_app(settings.model_copy(update=changed))
            stack.callback(app.state.context.database.dispose)
            return app

        yield serve


@pytest.fixture
def behind(serve: Callable[..., FastAPI]) -> FastAPI:
    """The application with trusted proxies in two networks."""
    return serve(trusted_proxies=["10.1.0.0/16", "2001:db8:1::/48"])


def peer(app: FastAPI, address: str, **options: Any) -> TestClient:
    return TestClient(app, client=(address, 1), follow_redirects=False, **options)


@pytest.fixture
def seen(behind: FastAPI, settings: Settings) -> Callable[..., str]:
    """Return the address under which a refused request is recorded."""
    operator = bearer(new_key(settings))

    def seen(by: str, *forwarded: str) -> str:
        client = peer(behind, by)
        headers = [("authorization", "Bearer gtk_x"), *(("x-forwarded-for", value) for value in forwarded)]
        client.get("/jobs", headers=headers)
        return str(client.get("/audit", headers=operator, params={"limit": 1}).json()["data"][0]["address"])

    return seen


def test_the_client_is_the_rightmost_address_that_is_not_a_trusted_proxy(seen: Callable[..., str]) -> None:
    assert seen(PROXY, "192.0.2.7") == "192.0.2.7"
    assert seen(PROXY, "198.51.100.1, 192.0.2.7") == "192.0.2.7", "the client wrote the first one itself"
    assert seen(PROXY, "198.51.100.1, 192.0.2.7, 10.1.9.9") == "192.0.2.7", "through two proxies"
    assert seen(PROXY, "198.51.100.1", "192.0.2.7") == "192.0.2.7", "in two headers"
    assert seen(PROXY, "10.1.0.1, 10.1.0.2") == "10.1.0.1", "a proxy asks itself"
    assert seen(PROXY, "192.0.2.7:5000") == "192.0.2.7"
    assert seen(PROXY, "[2001:db8:2::7]:5000") == "2001:db8:2::7"
    assert seen("2001:db8:1::1", "2001:db8:2::7") == "2001:db8:2::7"
    assert seen("::ffff:10.1.2.3", "::ffff:192.0.2.7") == "192.0.2.7", "IPv4 at a socket of IPv6"


@pytest.mark.parametrize("forwarded", ["", "unknown", "192.0.2.7, unknown", "192.0.2.7, 10.1.2.3.4", "'; --", ","])
def test_an_invalid_forwarded_address_is_replaced_by_the_proxys_own(seen: Callable[..., str], forwarded: str) -> None:
    assert seen(PROXY, forwarded) == PROXY


def test_headers_of_other_peers_are_ignored(seen: Callable[..., str], behind: FastAPI, settings: Settings) -> None:
    for address in ("203.0.113.9", "10.2.0.1", "127.0.0.1", "2001:db8:2::1"):
        assert seen(address, "192.0.2.7") == address

    anonymous = peer(behind, "203.0.113.9")
    spoofed = {"X-Forwarded-Proto": "https", "X-Forwarded-For": PROXY}
    answer = anonymous.post("/sign-in", data={"key": new_key(settings)}, headers=OWN_PAGE | spoofed)
    assert answer.status_code == 303
    assert "Secure" not in answer.headers["set-cookie"]
    assert "strict-transport-security" not in answer.headers


def test_over_tls_at_the_proxy_cookies_are_secure_and_browsers_stay_with_https(
    behind: FastAPI, settings: Settings
) -> None:
    key = new_key(settings)
    schemes = {"https": True, "HTTPS": True, "http": False, "https, http": False, "gopher": False}
    for scheme, secure in schemes.items():
        headers = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": scheme}
        answer = peer(behind, PROXY).post("/sign-in", data={"key": key}, headers=OWN_PAGE | headers)
        assert ("Secure" in answer.headers["set-cookie"]) is secure, scheme
        assert ("strict-transport-security" in answer.headers) is secure, scheme


def test_wrong_keys_of_one_client_block_only_that_client(behind: FastAPI, settings: Settings) -> None:
    proxy = peer(behind, PROXY)

    def try_key(client: str, key: str = "gtk_x") -> int:
        return proxy.get("/jobs", headers={"X-Forwarded-For": client, **bearer(key)}).status_code

    guesses = [try_key(f"198.51.100.{number}, 192.0.2.7") for number in range(FAILURES_PER_MINUTE + 1)]

    assert guesses == [401] * FAILURES_PER_MINUTE + [429], "inventing addresses is of no use"
    assert try_key("192.0.2.8") == 401
    form = {"X-Forwarded-For": "192.0.2.8", **OWN_PAGE}
    assert proxy.post("/sign-in", data={"key": new_key(settings)}, headers=form).status_code == 303
    form = {"X-Forwarded-For": "192.0.2.7", **OWN_PAGE}
    assert proxy.post("/sign-in", data={"key": new_key(settings)}, headers=form).status_code == 429


def test_requests_without_a_key_are_counted_for_each_client(serve: Callable[..., FastAPI]) -> None:
    proxy = peer(serve(trusted_proxies=[PROXY], rate_limit_per_minute=2), PROXY)

    def request_jobs(client: str) -> int:
        return proxy.get("/jobs", headers={"X-Forwarded-For": client}).status_code

    assert [request_jobs("192.0.2.7") for _ in range(3)] == [401, 401, 429]
    assert request_jobs("192.0.2.8") == 401


@pytest.mark.parametrize(
    "header",
    [
        {"X-Forwarded-For": "127.0.0.1"},
        {"X-Forwarded-For": ""},
        {"X-Forwarded-For": "192.0.2.7"},
        {"X-Forwarded-Proto": "https"},
        {"X-Forwarded-Host": "127.0.0.1"},
        {"Forwarded": "for=127.0.0.1"},
        {"X-Real-IP": "127.0.0.1"},
        {"Via": "1.1 proxy"},
    ],
    ids=str,
)
@pytest.mark.parametrize("trusted", [["127.0.0.1", "::1"], []], ids=str)
def test_local_access_never_applies_to_forwarded_requests(
    serve: Callable[..., FastAPI], header: dict[str, str], trusted: list[str]
) -> None:
    app = serve(open_on_loopback=True, trusted_proxies=trusted)
    here = peer(app, "127.0.0.1", base_url="http://127.0.0.1:8000")

    assert here.get("/jobs").status_code == 200
    assert here.get("/jobs", headers=header).status_code == 401


def test_the_setting_accepts_addresses_and_networks_and_names_an_invalid_one(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GREENTUNE_TRUSTED_PROXIES", '["10.1.2.3", "2001:db8::/32"]')
    assert Settings().trusted_proxies == ["10.1.2.3", "2001:db8::/32"]
    for wrong, reason in (
        ("*", "expected a network"),
        ("proxy.internal", "expected a network"),
        ("10.1.2.3/16", "has host bits set"),
        ("0.0.0.0/0", "every address"),
        ("::/0", "every address"),
    ):
        monkeypatch.setenv("GREENTUNE_TRUSTED_PROXIES", f'["{wrong}"]')
        with pytest.raises(ValidationError, match=reason):
            Settings()


def test_uvicorn_reads_no_header_before_the_api_does() -> None:
    """uvicorn's own setting would replace the peer by which proxies are recognised."""
    for file in ("Dockerfile", "cli/stack/service_stack.py"):
        assert '"--no-proxy-headers"' in (ROOT / file).read_text()
