from datetime import timedelta

import pytest

from greencore.carbon.errors import InvalidResponse
from tests.carbon_provider_server import ProviderServer, Reply
from tests.greencore.carbon.providers.conftest import NOON, Opened


def test_the_specification_sets_the_signal(opened: Opened) -> None:
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


def test_forecast_points_last_for_their_duration(opened: Opened, server: ProviderServer) -> None:
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


def test_a_204_is_no_data(opened: Opened, server: ProviderServer) -> None:
    server.standing_reply = Reply(status=204, body=b"")
    assert len(opened("carbon-aware-sdk").forecast(1)) == 0


def test_an_unexpected_response_is_named(opened: Opened, server: ProviderServer) -> None:
    server.standing_reply = Reply(body=b'{"Emissions": []}')
    with pytest.raises(InvalidResponse, match="carbon-aware-sdk is an object with 'Emissions': expected a list"):
        opened("carbon-aware-sdk").latest()


@pytest.mark.fault(number=17)
@pytest.mark.parametrize(
    ("duration", "minutes"),
    [
        ('"00:05:00"', 5),
        ('"01:00:00"', 60),
        ('"00:30:00.0000000"', 30),
        ('"0.02:00:00"', 120),
        ("10", 10),
        ('"15"', 15),
    ],
)
def test_a_measured_value_lasts_for_its_duration(
    opened: Opened, server: ProviderServer, duration: str, minutes: int
) -> None:
    records = [f'{{"time": "2026-11-24T{hour}:00:00Z", "rating": 70, "duration": {duration}}}' for hour in ("08", "11")]
    server.standing_reply = Reply(body=f"[{','.join(records)}]".encode())
    first = opened("carbon-aware-sdk").history(NOON - timedelta(hours=12), NOON).readings[0]
    assert first.end - first.start == timedelta(minutes=minutes)


@pytest.mark.fault(number=17)
@pytest.mark.parametrize("duration", ["0", '"00:00:00"', "null", "-5", '"-00:05:00"', '"40.00:00:00"'])
def test_without_a_usable_duration_the_spacing_determines_the_length(
    opened: Opened, server: ProviderServer, duration: str
) -> None:
    server.standing_reply = Reply(
        body=b"["
        + b",".join(
            f'{{"time": "2026-11-24T{hour:02}:00:00Z", "rating": 70, "duration": {duration}}}'.encode()
            for hour in range(8, 12)
        )
        + b"]"
    )
    series = opened("carbon-aware-sdk").history(NOON - timedelta(hours=12), NOON)
    assert [reading.end - reading.start for reading in series] == [timedelta(hours=1)] * 4


@pytest.mark.fault(number=17)
def test_a_duration_in_neither_form_is_named(opened: Opened, server: ProviderServer) -> None:
    server.standing_reply = Reply(body=b'[{"time": "2026-11-24T11:00:00Z", "rating": 70, "duration": "PT1H"}]')
    with pytest.raises(InvalidResponse, match=r"\[0\]: duration is 'PT1H'"):
        opened("carbon-aware-sdk").latest()


@pytest.mark.fault(number=17)
def test_a_rating_of_zero_is_a_missing_value(opened: Opened, server: ProviderServer) -> None:
    server.standing_reply = Reply(
        body=b"""[{"time": "2026-11-24T10:00:00Z", "rating": 70, "duration": "01:00:00"},
                  {"time": "2026-11-24T11:00:00Z", "rating": 0, "duration": "01:00:00"},
                  {"time": "2026-11-24T12:00:00Z", "rating": 0.0, "duration": "01:00:00"}]"""
    )
    assert opened("carbon-aware-sdk").latest().gco2e_per_kwh == 70
    series = opened("carbon-aware-sdk").history(NOON - timedelta(hours=12), NOON + timedelta(hours=1))
    assert [reading.gco2e_per_kwh for reading in series] == [70]
    server.standing_reply = Reply(
        body=b"""[{"forecastData": [{"timestamp": "2026-11-24T13:00:00Z", "duration": 60, "value": 0},
                                    {"timestamp": "2026-11-24T14:00:00Z", "duration": 60, "value": 5}]}]"""
    )
    assert [reading.gco2e_per_kwh for reading in opened("carbon-aware-sdk").forecast(6)] == [5]
