from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from greencore.carbon import InvalidSpec, Source, open_source
from greencore.carbon.errors import BadAnswer
from tests.carbon_provider_server import ProviderServer, Reply

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
Opened = Callable[..., Source]


def test_the_specification_says_whether_it_is_marginal(opened: Opened) -> None:
    for options, expected in (
        ({}, ("average", "lifecycle")),
        ({"signal": "marginal"}, ("marginal", "direct")),
        ({"signal": "marginal", "emission_factors": "lifecycle"}, ("marginal", "lifecycle")),
    ):
        reading = opened("carbon-aware-sdk", **options).latest()
        assert (reading.signal, reading.emission_factors) == expected


def test_times_may_have_an_offset_seven_digits_or_neither(opened: Opened, server: ProviderServer) -> None:
    server.standing_reply = Reply(
        body=b"""[{"location": "IE", "time": "2026-11-24T13:00:00+02:00", "rating": 70},
                  {"location": "IE", "time": "2026-11-24T11:30:00.5092741Z", "rating": 71},
                  {"location": "IE", "time": "2026-11-24T12:00:00", "rating": "72.5"}]"""
    )
    series = opened("carbon-aware-sdk").history(NOON - timedelta(hours=3), NOON + timedelta(minutes=5))
    assert [reading.start.replace(microsecond=0) for reading in series] == [
        NOON - timedelta(hours=1), NOON - timedelta(minutes=30), NOON,
    ]  # fmt: skip
    assert [reading.gco2e_per_kwh for reading in series] == [70, 71, 72.5]


def test_a_forecast_says_how_long_its_points_last(opened: Opened, server: ProviderServer) -> None:
    server.standing_reply = Reply(
        body=b"""[{"forecastData": [
            {"location": "IE", "timestamp": "2026-11-24T12:10:00Z", "duration": 10, "value": 5},
            {"location": "IE", "timestamp": "2026-11-24T12:40:00Z", "duration": 10, "value": 6}]}]"""
    )
    series = opened("carbon-aware-sdk").forecast(1)
    assert [reading.end - reading.start for reading in series] == [timedelta(minutes=10)] * 2
    assert server.log[0].path == "/emissions/forecasts/current"


def test_the_forecast_is_found_without_its_prefix(opened: Opened, server: ProviderServer) -> None:
    server.replies.append(Reply(status=404, body=b"not found"))
    server.replies.append(
        Reply(
            body=b"""[{"forecastData": [
            {"location": "IE", "timestamp": "2026-11-24T12:10:00Z", "duration": 10, "value": 5}]}]"""
        )
    )
    assert [reading.gco2e_per_kwh for reading in opened("carbon-aware-sdk").forecast(1)] == [5]
    assert server.paths == ["/emissions/forecasts/current", "/forecasts/current"]


def test_an_empty_answer_without_content_is_no_data(opened: Opened, server: ProviderServer) -> None:
    server.standing_reply = Reply(status=204, body=b"")
    assert len(opened("carbon-aware-sdk").forecast(1)) == 0


def test_another_answer_is_named(opened: Opened, server: ProviderServer) -> None:
    server.standing_reply = Reply(body=b'{"Emissions": []}')
    with pytest.raises(BadAnswer, match="carbon-aware-sdk is an object with 'Emissions': expected a list"):
        opened("carbon-aware-sdk").latest()


def test_it_needs_an_address() -> None:
    with pytest.raises(InvalidSpec, match="carbon-aware-sdk needs the option 'url'"):
        open_source("carbon-aware-sdk?location=westeurope", "NL")
