from datetime import timedelta

import pytest

from greencore.carbon import UnknownZone
from greencore.carbon.errors import AccessDenied, InvalidResponse
from tests.carbon_provider_server import ManualClock, ProviderServer, Reply, Row
from tests.greencore.carbon.providers.conftest import NOON, Opened


def test_pounds_per_mwh_become_grams_per_kwh(opened: Opened, server: ProviderServer) -> None:
    five = timedelta(minutes=5)
    server.rows = [Row(NOON + 2 * five, NOON + 3 * five, 1.0)]
    server.edit = lambda path, answer: (
        answer if path == "/login" else answer | {"data": [{"point_time": "2026-11-24T12:10:00+00:00", "value": 870}]}
    )
    reading = opened("watttime").latest()
    assert reading.gco2e_per_kwh == pytest.approx(870 * 453.59237 / 1000)
    assert (reading.start, reading.end) == (NOON + 2 * five, NOON + 3 * five)
    assert reading.signal == "marginal"


def test_one_login_serves_many_requests(opened: Opened, server: ProviderServer) -> None:
    source = opened("watttime")
    source.latest()
    source.forecast(5)
    source.history(NOON - timedelta(hours=2), NOON)
    assert server.paths == ["/login", "/v3/forecast", "/v3/forecast", "/v3/historical"]
    assert {request.headers["authorization"] for request in server.log[1:]} == {"Bearer bearer-number-1"}
    assert {request.parameters["signal_type"] for request in server.log[1:]} == {"co2_moer"}


def test_an_expired_token_is_renewed_once(opened: Opened, server: ProviderServer, clock: ManualClock) -> None:
    source = opened("watttime")
    source.latest()
    server.expire_bearers()
    clock.advance(minutes=40)
    assert source.latest().start == NOON + timedelta(minutes=30)
    assert server.paths == ["/login", "/v3/forecast", "/v3/forecast", "/login", "/v3/forecast"]


def test_a_fresh_token_that_is_refused_is_not_renewed(opened: Opened, server: ProviderServer) -> None:
    server.edit = lambda path, answer: {"token": "worthless"} if path == "/login" else answer
    with pytest.raises(AccessDenied, match="watttime answered 401"):
        opened("watttime").latest()
    assert server.paths == ["/login", "/v3/forecast"]


def test_a_renewed_token_that_is_refused_is_not_renewed_again(
    opened: Opened, server: ProviderServer, clock: ManualClock
) -> None:
    source = opened("watttime")
    source.latest()
    server.expire_bearers()
    server.edit = lambda path, answer: {"token": "worthless"} if path == "/login" else answer
    clock.advance(minutes=40)
    with pytest.raises(AccessDenied, match="watttime answered 401"):
        source.latest()
    assert server.paths[2:] == ["/v3/forecast", "/login", "/v3/forecast"]


def test_a_refused_login_is_a_refusal(opened: Opened, server: ProviderServer) -> None:
    server.password = "another one"
    source = opened("watttime")
    server.password = "changed since"
    with pytest.raises(AccessDenied, match="watttime answered 401"):
        source.latest()
    assert server.paths == ["/login"]


@pytest.mark.parametrize("token", [None, 5, "", "two\nlines"])
def test_a_login_without_a_token_names_the_field(opened: Opened, server: ProviderServer, token: object) -> None:
    server.edit = lambda path, answer: {"token": token}
    with pytest.raises(InvalidResponse, match="watttime: token is"):
        opened("watttime").latest()


def test_a_percentile_is_refused(opened: Opened, server: ProviderServer) -> None:
    server.units = "percentile"
    with pytest.raises(InvalidResponse, match=r"meta.units is 'percentile': expected 'lbs_co2_per_mwh'"):
        opened("watttime").latest()


def test_a_response_for_another_region_is_refused(opened: Opened, server: ProviderServer) -> None:
    server.edit = lambda path, answer: (
        answer if path == "/login" else answer | {"meta": answer["meta"] | {"region": "MISO"}}
    )
    with pytest.raises(UnknownZone, match="watttime was asked for 'CAISO_NORTH', but answered 'MISO'"):
        opened("watttime").latest()


def test_at_most_72_hours_are_requested(opened: Opened, server: ProviderServer) -> None:
    source = opened("watttime")
    for hours in (2.5, 71.2, 1000):
        source.forecast(hours)
    # The last is served by the second, of 72 hours.
    assert [request.parameters["horizon_hours"] for request in server.log[1:]] == ["3", "72"]


def test_without_rights_for_a_region_it_is_a_refusal(opened: Opened, server: ProviderServer) -> None:
    source = opened("watttime")
    source.latest()
    server.standing_reply = Reply(status=403, body=b'{"error": "no access to the region"}')
    with pytest.raises(AccessDenied, match=r"watttime answered 403: .*no access to the region"):
        source.history(NOON - timedelta(hours=2), NOON)
