from datetime import timedelta
from typing import Any

import pytest

from greencore.carbon import NoReading, UnknownZone
from greencore.carbon.errors import InvalidResponse
from greencore.clock import HOUR
from tests.carbon_provider_server import ManualClock, ProviderServer, Reply, Row, rows
from tests.greencore.carbon.providers.conftest import NOON, Opened


@pytest.fixture(autouse=True)
def hourly(server: ProviderServer) -> None:
    server.rows = rows(
        NOON - 96 * HOUR, hours=196, measured_until=NOON, value=lambda time: 100.0 + time.hour, step=HOUR
    )


@pytest.mark.parametrize("version", ["v3", "v4"])
def test_both_versions_give_the_same_readings(opened: Opened, server: ProviderServer, version: str) -> None:
    source = opened("electricity-maps", version=version)
    reading = source.latest()
    assert (reading.start, reading.end, reading.gco2e_per_kwh) == (NOON, NOON + HOUR, 112)
    assert len(source.forecast(24)) == 25
    assert len(source.history(NOON - 5 * HOUR, NOON)) == 5
    assert len(source.history(NOON - 50 * HOUR, NOON)) == 50
    assert server.paths == [
        f"/{version}/carbon-intensity/{name}" for name in ("latest", "forecast", "history", "past-range")
    ]
    assert {request.parameters["disableCallerLookup"] for request in server.log} == {"true"}
    assert {request.headers["auth-token"] for request in server.log} == {server.token}


@pytest.mark.parametrize(("hours", "horizon"), [(2, "6"), (6, "6"), (7, "24"), (24.5, "48"), (72, "72"), (500, "72")])
def test_the_horizon_is_one_that_the_provider_offers(
    opened: Opened, server: ProviderServer, hours: float, horizon: str
) -> None:
    opened("electricity-maps").forecast(hours)
    assert server.log[0].parameters["horizonHours"] == horizon


def test_a_cached_forecast_serves_a_shorter_request_and_not_a_longer_one(
    opened: Opened, server: ProviderServer
) -> None:
    source = opened("electricity-maps")
    assert len(source.forecast(48)) == 49
    assert len(source.forecast(3)) == 4
    assert len(server.log) == 1
    assert len(source.forecast(72)) == 73
    assert len(server.log) == 2


def test_the_option_zone_names_the_requested_zone(opened: Opened, server: ProviderServer) -> None:
    server.zones.add("Z")
    source = opened("electricity-maps", zone="Z")
    source.latest()
    assert server.log[0].parameters["zone"] == "Z"


def test_a_response_for_another_zone_is_refused(opened: Opened, server: ProviderServer) -> None:
    server.edit = lambda path, answer: answer | {"zone": "FR"}
    with pytest.raises(UnknownZone, match="electricity-maps was asked for 'DE', but answered 'FR'"):
        opened("electricity-maps").latest()


def test_direct_emission_factors_are_requested_and_checked(opened: Opened, server: ProviderServer) -> None:
    source = opened("electricity-maps", emission_factors="direct")
    assert source.latest().emission_factors == "direct"
    assert server.log[0].parameters["emissionFactorType"] == "direct"
    server.edit = lambda path, answer: {
        **answer,
        "history": [{**answer["history"][0], "emissionFactorType": "lifecycle"}],
    }
    with pytest.raises(InvalidResponse, match=r"history\[0\].emissionFactorType is 'lifecycle': expected 'direct'"):
        source.history(NOON - HOUR, NOON)


def test_a_value_without_the_flag_is_estimated(opened: Opened, server: ProviderServer) -> None:
    def edited(path: str, answer: Any) -> Any:
        del answer["isEstimated"]
        return answer

    server.edit = edited
    assert opened("electricity-maps").latest().estimated


@pytest.mark.parametrize(
    "reply",
    [
        Reply(body=b'{"status": "no-data", "countryCode": "DE", "data": {}}'),
        Reply(status=404, body=b'{"status": "error", "message": "No recent data for zone DE"}'),
    ],
)
def test_no_data_is_no_reading(opened: Opened, server: ProviderServer, reply: Reply) -> None:
    server.standing_reply = reply
    with pytest.raises(NoReading):
        opened("electricity-maps").latest()


def test_the_granularity_is_the_length_of_a_reading(opened: Opened, server: ProviderServer, clock: ManualClock) -> None:
    server.rows = [Row(NOON, NOON + HOUR, 90.0, 90.0)]
    server.edit = lambda path, answer: answer | granularity
    granularity: dict[str, str] = {}
    for name, minutes in (("5_minutes", 5), ("15_minutes", 15), ("hourly", 60)):
        granularity["temporalGranularity"] = name
        assert opened("electricity-maps", version="v4").latest().end == NOON + timedelta(minutes=minutes)
    granularity["temporalGranularity"] = "daily"
    with pytest.raises(
        InvalidResponse, match="temporalGranularity is 'daily': expected 5_minutes or 15_minutes or hourly"
    ):
        opened("electricity-maps", version="v4").latest()
