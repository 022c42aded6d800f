from datetime import timedelta

import pytest

from greencore.carbon import open_source
from greencore.carbon.errors import InvalidResponse
from greencore.carbon.http.client import HttpLimits
from tests.carbon_provider_server import ManualClock, ProviderServer, Reply, Row
from tests.greencore.carbon.providers.conftest import NOON, Opened

QUARTER = timedelta(minutes=15)


def test_a_measured_value_has_precedence_over_a_forecast(opened: Opened, server: ProviderServer) -> None:
    given = [(491.5, None), (497.4, 480.0), (None, 505.0), (None, None), (None, 508.0), (0.0, 7.0)]
    server.rows = [
        Row(NOON + index * QUARTER, NOON + (index + 1) * QUARTER, forecast, actual)
        for index, (actual, forecast) in enumerate(given)
    ]
    series = opened("energy-charts").forecast(2)
    assert [(reading.gco2e_per_kwh, reading.estimated) for reading in series] == [
        (491.5, False), (497.4, False), (505.0, True), (508.0, True), (0.0, False),
    ]  # fmt: skip
    assert {reading.end - reading.start for reading in series} == {QUARTER}


def test_the_country_is_the_zone_in_lower_case(server: ProviderServer, clock: ManualClock, limits: HttpLimits) -> None:
    open_source(f"energy-charts?url={server.url}", "DE", clock=clock, limits=limits).latest()
    open_source(f"energy-charts?url={server.url}&country=DE", "zone", clock=clock, limits=limits).latest()
    assert [request.parameters["country"] for request in server.log] == ["de", "de"]


def test_a_missing_column_is_all_null_and_an_uneven_one_is_named(opened: Opened, server: ProviderServer) -> None:
    server.standing_reply = Reply(body=b'{"unix_seconds": [1795521600, 1795522500], "co2eq_forecast": [300, 310]}')
    assert [reading.estimated for reading in opened("energy-charts").forecast(1)] == [True, True]
    server.standing_reply = Reply(body=b'{"unix_seconds": [1795521600, 1795522500], "co2eq": [300]}')
    with pytest.raises(InvalidResponse, match="co2eq has 1 values: expected 2, as many as unix_seconds"):
        opened("energy-charts").latest()


@pytest.mark.parametrize("seconds", ['"noon"', "null", "1e30", "true"])
def test_an_invalid_time_is_named(opened: Opened, server: ProviderServer, seconds: str) -> None:
    server.standing_reply = Reply(body=f'{{"unix_seconds": [{seconds}], "co2eq": [300]}}'.encode())
    with pytest.raises(InvalidResponse, match=r"unix_seconds\[0\] is .*: expected seconds since 1970"):
        opened("energy-charts").latest()
