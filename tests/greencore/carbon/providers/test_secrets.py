"""Keys are never exposed in logs, errors, addresses or representations."""

import base64
import logging
import traceback

import pytest

from greencore.carbon import CarbonError, InvalidSpec, open_source
from greencore.carbon.http.client import HttpLimits
from greencore.carbon.specification import Credentials
from tests.carbon_provider_server import ManualClock, ProviderServer, Reply
from tests.greencore.carbon.providers.conftest import Opened


@pytest.mark.parametrize("provider", ["electricity-maps", "watttime"])
@pytest.mark.parametrize("fault", ["none", "401", "echo", "500", "html", "cut", "absent", "timeout", "token echoed"])
def test_no_key_is_in_a_log_line_an_error_an_address_or_a_representation(
    opened: Opened, server: ProviderServer, caplog: pytest.LogCaptureFixture, provider: str, fault: str
) -> None:
    caplog.set_level(logging.DEBUG)
    basic = base64.b64encode(f"{server.user}:{server.password}".encode()).decode()
    of_watttime = [server.user, server.password, basic, "bearer-number-1"]
    secrets = [server.token] if provider == "electricity-maps" else of_watttime
    echo = " ".join(secrets if fault == "token echoed" else secrets[:3]).encode()
    impatient = HttpLimits(read_seconds=0.1 if fault == "timeout" else 5.0, sleep=lambda seconds: None)
    source = opened(provider, limits=impatient)
    seen = [repr(source), repr(vars(source)), repr(server.credentials()), str(server.credentials())]
    if fault == "token echoed":
        source.latest()
    replies = {
        "401": Reply(status=401, body=b"{}"),
        "echo": Reply(status=400, body=echo),
        "500": Reply(status=500, body=echo),
        "html": Reply(body=echo, headers={"content-type": "text/html"}),
        "cut": Reply(cut=5),
        "timeout": Reply(seconds=0.2),
        "token echoed": Reply(status=400, body=echo),
    }
    server.standing_reply = replies.get(fault)
    if fault == "absent":
        server.stop()
    for ask in (source.latest, lambda: source.forecast(3)):
        try:
            ask()
        except CarbonError as error:
            seen += traceback.format_exception(error)
            seen += [repr(error), repr(vars(error))]
    seen += [repr(source), caplog.text, *(repr(vars(record)) for record in caplog.records)]
    seen += [f"{request.path} {request.parameters}" for request in server.log]
    assert "127.0.0.1" in caplog.text
    for secret in secrets:
        assert not [line for line in seen if secret in line]


def test_a_key_that_is_not_valid_in_a_header_is_refused_without_being_shown(server: ProviderServer) -> None:
    for wrong in ("sec\nret", "sec\u00e9ret", "sec\x00ret"):
        with pytest.raises(InvalidSpec, match="the key electricity_maps_token holds a character") as raised:
            open_source(server.spec("electricity-maps"), "DE", credentials=Credentials(electricity_maps_token=wrong))
        assert "ret" not in str(raised.value).replace("character", "")


def test_white_space_around_a_key_is_dropped(server: ProviderServer, clock: ManualClock) -> None:
    server.token = "key"
    credentials = Credentials(electricity_maps_token=" key\n")
    assert open_source(server.spec("electricity-maps"), "DE", clock=clock, credentials=credentials).latest()


@pytest.mark.parametrize(
    "url",
    [
        "https://ada:hunter2@example.org",
        "https://hunter2@example.org",
        "https://example.org/?key=hunter2",
        "https://example.org/#hunter2",
        "ftp://example.org/hunter2",
        "hunter2",
        "http://",
        "http://hunter2:port",
        "http://[hunter2",
    ],
)
def test_an_address_that_may_contain_a_key_is_refused_without_being_shown(url: str) -> None:
    spec = f"uk?url={url.replace('#', '%23').replace('?', '%3F')}"
    with pytest.raises(InvalidSpec, match="the option 'url' of uk") as raised:
        open_source(spec, "GB")
    assert "hunter2" not in "".join(traceback.format_exception(raised.value)).split("Error")[-1]
    assert "hunter2" not in str(raised.value)


def test_a_key_given_as_an_option_is_not_repeated() -> None:
    with pytest.raises(InvalidSpec, match="electricity-maps has no option 'token'") as raised:
        open_source("electricity-maps?token=hunter2", "DE")
    assert "hunter2" not in str(raised.value)
