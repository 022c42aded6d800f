import pytest

from greencore.carbon import InvalidSpec, open_source
from greencore.carbon.specification import Credentials

KEYS = Credentials(electricity_maps_token="a-token", watttime_user="ada", watttime_password="a-password")


@pytest.mark.parametrize(
    ("spec", "signal"),
    [
        ("uk", "average"),
        ("uk?region=13", "average"),
        ("uk?region=wales", "average"),
        ("uk?postcode=SW1A", "average"),
        ("electricity-maps?zone=DE&version=v4&url=https://example.org/em/&emission_factors=direct", "average"),
        ("watttime?region=CAISO_NORTH", "marginal"),
        ("energy-charts?country=de", "average"),
        ("carbon-aware-sdk?url=http://sdk:8080&location=westeurope&signal=marginal", "marginal"),
        ("static", "average"),
    ],
)
def test_a_specification_opens_its_source_without_a_request(spec: str, signal: str) -> None:
    source = open_source(spec, "FR", credentials=KEYS)
    assert (source.zone, source.signal) == ("FR", signal)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("gb", "unknown carbon source 'gb': expected one of static, trace:FILE, uk, electricity-maps, watttime,"),
        ("gb?region=1", "unknown carbon source 'gb'"),
        ("", "unknown carbon source ''"),
        ("Static", "unknown carbon source 'Static'"),
        ("trace.csv", "unknown carbon source 'trace.csv'"),
        ("static:", "static takes a country after ':', but was given ':'"),
        ("static?x=1", "static takes a country after"),
        ("uk:13", r"the source uk takes its options after '\?', not after ':'"),
        ("uk?zone=13", "uk has no option 'zone': expected region or postcode or url"),
        ("uk?region=", "the option 'region' of uk is empty"),
        ("uk?region=1&region=2", "the option 'region' of uk is given twice"),
        ("uk?region=18", "the option 'region' of uk is unknown: expected 1 to 17, england, scotland, wales"),
        ("uk?region=0", "the option 'region' of uk is unknown"),
        ("uk?region=1&postcode=SW1A", "the options 'region' and 'postcode' of uk are both given"),
        ("electricity-maps?version=v5", "the option 'version' of electricity-maps is unknown: expected v3 or v4"),
        ("electricity-maps?emission_factors=all", "'emission_factors' of electricity-maps is unknown"),
        ("electricity-maps?region=DE", "electricity-maps has no option 'region'"),
        ("watttime?zone=DE", "watttime has no option 'zone'"),
        ("energy-charts?zone=DE", "energy-charts has no option 'zone'"),
        ("carbon-aware-sdk", "carbon-aware-sdk needs the option 'url'"),
        ("carbon-aware-sdk?url=http://sdk&signal=mean", "'signal' of carbon-aware-sdk is unknown: expected average or"),
        ("carbon-aware-sdk?url=sdk:8080", "the option 'url' of carbon-aware-sdk is not an address"),
    ],
)
def test_an_invalid_specification_is_named(spec: str, message: str) -> None:
    with pytest.raises(InvalidSpec, match=message):
        open_source(spec, "FR", credentials=KEYS)


@pytest.mark.parametrize(
    ("spec", "credentials", "key"),
    [
        ("electricity-maps", None, "electricity_maps_token"),
        ("electricity-maps", Credentials(electricity_maps_token=" "), "electricity_maps_token"),
        ("watttime", Credentials(electricity_maps_token="x"), "watttime_user"),
        ("watttime", Credentials(watttime_user="x"), "watttime_password"),
    ],
)
def test_a_missing_key_is_named(spec: str, credentials: Credentials | None, key: str) -> None:
    with pytest.raises(InvalidSpec, match=f"the source {spec} needs the key {key}, which is not set"):
        open_source(spec, "FR", credentials=credentials)


def test_a_provider_needs_a_zone() -> None:
    with pytest.raises(InvalidSpec, match="zone is empty"):
        open_source("uk", "")
