from datetime import timedelta
from typing import Any, Literal

import pytest

from greencore.carbon import UnknownZone
from greencore.carbon.errors import InvalidResponse
from tests.carbon_provider_server import ProviderServer, Reply, rows
from tests.greencore.carbon.providers.conftest import NOON, Opened


@pytest.mark.parametrize("shape", ["usual", "list", "object", "regions"])
@pytest.mark.parametrize("place", [{"region": "13"}, {"postcode": "RG10"}])
def test_regional_responses_are_parsed_in_each_of_their_shapes(
    opened: Opened,
    server: ProviderServer,
    shape: Literal["usual", "list", "object", "regions"],
    place: dict[str, str],
) -> None:
    server.regional_shape = shape
    source = opened("uk", **place)
    if shape == "regions" and "postcode" in place:
        with pytest.raises(UnknownZone, match="answered 2 regions, none of them"):
            source.latest()
        return
    reading = source.latest()
    assert (reading.start, reading.gco2e_per_kwh, reading.estimated) == (NOON, 112, True)
    assert len(source.forecast(24)) == 49
    assert len(source.history(NOON - timedelta(hours=3), NOON)) == 6
    assert all(reading.estimated for reading in source.history(NOON - timedelta(hours=3), NOON))


def test_the_paths_name_the_region_or_the_postcode(opened: Opened, server: ProviderServer) -> None:
    for place in ({"region": "13"}, {"postcode": "RG10"}, {}):
        source = opened("uk", **place)
        source.latest()
        source.forecast(24)
        source.history(NOON - timedelta(hours=1), NOON)
    assert server.paths == [
        "/regional/regionid/13",
        "/regional/intensity/2026-11-24T12:00Z/fw48h/regionid/13",
        "/regional/intensity/2026-11-24T11:00Z/2026-11-24T12:30Z/regionid/13",
        "/regional/postcode/RG10",
        "/regional/intensity/2026-11-24T12:00Z/fw48h/postcode/RG10",
        "/regional/intensity/2026-11-24T11:00Z/2026-11-24T12:30Z/postcode/RG10",
        "/intensity",
        "/intensity/2026-11-24T12:00Z/fw48h",
        "/intensity/2026-11-24T11:00Z/2026-11-24T12:30Z",
    ]


def test_a_nation_is_requested_by_its_region_id(opened: Opened, server: ProviderServer) -> None:
    server.zones.add("16")
    opened("uk", region="Scotland").latest()
    assert server.paths == ["/regional/regionid/16"]


def test_a_response_for_another_region_is_refused(opened: Opened, server: ProviderServer) -> None:
    server.edit = lambda path, answer: {"data": [answer["data"][0] | {"regionid": 5}]}
    with pytest.raises(UnknownZone, match="uk was asked for region 13, but answered 5"):
        opened("uk", region="13").latest()


def test_a_measured_value_has_precedence_over_a_forecast(opened: Opened, server: ProviderServer) -> None:
    def edited(path: str, answer: Any) -> Any:
        answer["data"][0]["intensity"] = {"forecast": 266, "index": "moderate", **given}
        return answer

    server.edit = edited
    given: dict[str, int | None] = {}
    for actual, expected in ((263, (263, False)), (0, (0, False)), (None, (266, True))):
        given["actual"] = actual
        reading = opened("uk").latest()
        assert (reading.gco2e_per_kwh, reading.estimated) == expected


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b'{"error": {"code": "x", "message": "y"}}', "uk has no 'data': an object with 'error'"),
        (b'{"data": "none"}', "uk: data is 'none': expected a list"),
        (b'{"data": [{"from": "2026-11-24T12:00Z", "to": "2026-11-24T12:30Z"}]}', r"uk: data\[0\] has no 'intensity'"),
        (
            b'{"data": [{"from": "noon", "to": "2026-11-24T12:30Z", "intensity": {"forecast": 1}}]}',
            r"uk: data\[0\].from is 'noon': expected a time",
        ),
        (
            b'{"data": [{"from": "2026-11-24T12:00Z", "to": "2026-11-24T12:30Z", "intensity": {"forecast": "low"}}]}',
            r"uk: data\[0\].intensity.forecast is 'low': expected a number or null",
        ),
        (b"[]", r"uk is a list of 0: expected an object"),
    ],
)
def test_an_unexpected_response_names_the_field(
    opened: Opened, server: ProviderServer, answer: bytes, message: str
) -> None:
    server.standing_reply = Reply(body=answer)
    with pytest.raises(InvalidResponse, match=message):
        opened("uk").latest()


def test_a_refusal_that_is_not_about_the_place_is_quoted(opened: Opened, server: ProviderServer) -> None:
    body = b'{"error": {"code": "400 Bad Request", "message": "The date\n range\x00 is wrong."}}'
    server.standing_reply = Reply(status=400, body=body)
    with pytest.raises(InvalidResponse, match=r"uk answered 400: .*The date range is wrong"):
        opened("uk").latest()


def test_history_excludes_readings_that_have_not_begun(opened: Opened, server: ProviderServer) -> None:
    five = timedelta(minutes=5)
    server.rows = rows(NOON, hours=1, measured_until=NOON, value=lambda time: 90.0, step=five)
    series = opened("uk").history(NOON, NOON + timedelta(hours=1))
    assert [reading.start for reading in series] == [NOON, NOON + five, NOON + 2 * five]
