"""The country of the yearly mean for a zone: the one that its source names, not one with the zone's name."""

import pytest

from greencore.carbon import Credentials, InvalidSpec, UnknownZone, open_source
from greencore.carbon.specification import static_mean
from greencore.carbon.static import StaticMean
from tests.greencore.carbon.test_series import at

pytestmark = pytest.mark.fault(number=16)

KEYS = Credentials(electricity_maps_token="token", watttime_user="user", watttime_password="password")


@pytest.mark.parametrize(
    ("zone", "spec", "country"),
    [
        # US states, and labels that are also country codes.
        ("CA", "electricity-maps?zone=US-CAL-CISO", "US"),
        ("CA", "electricity-maps", "CA"),
        ("DE", "electricity-maps?zone=US-MIDA-PJM", "US"),
        ("GA", "electricity-maps?zone=US-SE-SOCO&emission_factors=direct", "US"),
        ("IN", "electricity-maps?url=http://127.0.0.1:9&zone=US-MIDW-MISO", "US"),
        ("US-CAL-CISO", "electricity-maps", "US"),
        ("NO-NO2", "electricity-maps", "NO"),
        ("IN-WE", "electricity-maps", "IN"),
        ("home", "electricity-maps?zone=FR", "FR"),
        ("home", "electricity-maps", "WORLD"),
        # The zone's name does not tell the country of a recording or of an operator's service.
        ("DE", "trace:de.csv", "WORLD"),
        ("CA", "trace:caiso.csv?speed=10&anchor=2026-11-01T00:00:00Z", "WORLD"),
        ("CA", "trace:caiso.csv?static=USA", "USA"),
        ("CA", "trace:caiso.csv?speed=10&static=us&anchor=2026-11-01T00:00:00Z", "US"),
        ("DE", "carbon-aware-sdk?url=http://127.0.0.1:9", "WORLD"),
        ("westus", "carbon-aware-sdk?url=http://127.0.0.1:9&static=USA", "USA"),
        ("CAISO_NORTH", "watttime", "WORLD"),
        ("CA", "watttime?region=CAISO_NORTH", "WORLD"),
        # Providers of one country, or of countries by their codes.
        ("FR", "uk", "GBR"),
        ("London", "uk?region=13", "GBR"),
        ("DE", "energy-charts", "DE"),
        ("CA", "energy-charts?country=de", "DE"),
        ("XX", "energy-charts?country=uk", "GBR"),
        ("XX", "energy-charts?country=eu", "WORLD"),
        ("XX", "energy-charts?country=all", "WORLD"),
        # The option has precedence.
        ("CA", "electricity-maps?zone=US-CAL-CISO&static=WORLD", "WORLD"),
        ("GB", "uk?static=IRL&region=1", "IRL"),
        # The static source itself.
        ("CA", "static", "CA"),
        ("CA", "static:USA", "USA"),
        ("US-CA", "static:USA", "USA"),
        ("earth", "static:world", "WORLD"),
    ],
)
def test_the_mean_is_the_one_of_the_country_that_the_source_names(zone: str, spec: str, country: str) -> None:
    found = static_mean(spec, zone)
    assert found.country == country
    reading = found.reading(zone, at(5.5))
    assert (reading.zone, reading.start, reading.end, reading.estimated) == (zone, at(5), at(6), True)
    if country == "WORLD" and not spec.startswith("static"):
        assert (reading.source, reading.gco2e_per_kwh) == ("static (world)", 475.0)


@pytest.mark.parametrize(
    ("spec", "zone", "label"),
    [
        ("static", "FR", "static"),
        ("static:FRA", "Paris", "static"),
        ("uk", "GB", "static (GBR)"),
        ("electricity-maps?zone=US-CAL-CISO", "CA", "static (USA)"),
        ("trace:day.csv", "FR", "static (world)"),
    ],
)
def test_a_mean_is_labelled_with_its_country(spec: str, zone: str, label: str) -> None:
    assert static_mean(spec, zone).reading(zone, at(0)).source == label


def test_california_does_not_have_the_mean_of_canada() -> None:
    of_california = static_mean("electricity-maps?zone=US-CAL-CISO", "CA").reading("CA", at(0)).gco2e_per_kwh
    of_canada = static_mean("static", "CA").reading("CA", at(0)).gco2e_per_kwh
    assert of_california == static_mean("static:USA", "X").reading("X", at(0)).gco2e_per_kwh
    assert of_california > 2 * of_canada


def test_the_default_is_the_mean_of_the_world() -> None:
    assert StaticMean().reading("Z", at(0)).gco2e_per_kwh == 475.0


@pytest.mark.parametrize(
    "spec",
    [
        "uk?static=FRA",
        "uk?region=13&static=FRA",
        "energy-charts?static=WORLD&country=de",
        "electricity-maps?static=US&zone=US-CAL-CISO",
        "watttime?static=USA",
        "carbon-aware-sdk?static=USA&url=http://127.0.0.1:9",
    ],
)
def test_every_provider_takes_the_option(spec: str) -> None:
    assert open_source(spec, "Z", credentials=KEYS).zone == "Z"


@pytest.mark.parametrize("option", ["static=", "static=XYZ", "static=Germany", "static=FRA&static=DEU"])
@pytest.mark.parametrize("source", ["uk", "electricity-maps", "trace:day.csv"])
def test_an_option_that_names_no_country_is_refused(source: str, option: str) -> None:
    with pytest.raises(InvalidSpec, match="the option 'static'"):
        open_source(f"{source}?{option}", "Z", credentials=KEYS)


@pytest.mark.parametrize(("spec", "zone"), [("static", "US-CA"), ("static:XYZ", "FR"), ("static", "home")])
def test_a_static_zone_of_no_country_is_refused_as_it_is_opened(spec: str, zone: str) -> None:
    with pytest.raises(UnknownZone):
        open_source(spec, zone)
