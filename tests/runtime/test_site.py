"""`GREENTUNE_SITE`: its two forms, invalid values, and the removed settings that it replaces."""

import json

import pytest
from pydantic import ValidationError

from cli.configuration import read_settings
from cli.errors import SettingError
from runtime.settings import Settings
from runtime.site import UNKNOWN_SITE, UNKNOWN_ZONE, Site

pytestmark = pytest.mark.fault(number=11)


@pytest.fixture(autouse=True)
def zones(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Known zones, in an environment without any other setting."""
    monkeypatch.setenv("GREENTUNE_ZONES", '{"FR": "static", "US-CAISO": "static:USA", "A_b": "static:FRA"}')


@pytest.mark.parametrize(
    ("text", "site"),
    [
        ("FR", Site(zone="FR")),
        (" FR ", Site(zone="FR")),
        ("US-CAISO", Site(zone="US-CAISO")),
        ("A_b", Site(zone="A_b")),
        ('{"zone": "FR"}', Site(zone="FR")),
        ('{"zone": "FR", "pue": 1.2}', Site(zone="FR", pue=1.2)),
        ('{"zone": "FR", "pue": 10}', Site(zone="FR", pue=10.0)),
    ],
)
def test_a_site_is_a_zone_or_a_zone_and_its_pue(text: str, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENTUNE_SITE", text)
    settings = Settings()
    assert settings.site == settings.training_site == site
    told = settings.environment()["GREENTUNE_SITE"]
    monkeypatch.setenv("GREENTUNE_SITE", told)
    assert Settings().site == site


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "GREENTUNE_SITE: is empty"),
        ("SE", "GREENTUNE_SITE: the zone 'SE' is not in GREENTUNE_ZONES: expected one of A_b, FR, US-CAISO"),
        ('{"zone": "SE", "pue": 1.2}', "the zone 'SE' is not in GREENTUNE_ZONES"),
        (UNKNOWN_ZONE, "is not in GREENTUNE_ZONES"),
        ('["FR"]', "GREENTUNE_SITE.zone: given the zone"),
        ("FR,SE", "GREENTUNE_SITE.zone: given the zone 'FR,SE'"),
        ('{"zone": "FR"', "GREENTUNE_SITE: is not JSON"),
        ('{"pue": 1.2}', "GREENTUNE_SITE: zone: Field required"),
        ('{"zone": "FR", "PUE": 1.2}', "GREENTUNE_SITE: PUE: Extra inputs are not permitted"),
        ('{"zone": "FR", "pue": 0.99}', "GREENTUNE_SITE: pue: Input should be greater than or equal to 1"),
        ('{"zone": "FR", "pue": 10.1}', "GREENTUNE_SITE: pue: Input should be less than or equal to 10"),
        ('{"zone": "FR", "pue": NaN}', "GREENTUNE_SITE: pue: Input should be"),
        ('{"zone": "FR", "pue": null}', "GREENTUNE_SITE: pue: Input should be a valid number"),
        ("x" * 1000, "GREENTUNE_SITE"),
    ],
)
def test_an_invalid_site_is_refused_with_the_reason(text: str, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENTUNE_SITE", text)
    with pytest.raises(SettingError) as refused:
        read_settings()
    assert fault in str(refused.value)
    assert len(str(refused.value)) < 400
    with pytest.raises(ValidationError):
        Settings()


def test_without_a_site_it_is_unknown() -> None:
    settings = Settings()
    assert (settings.site, settings.training_site) == (None, UNKNOWN_SITE)
    assert "GREENTUNE_SITE" not in settings.environment()


def test_no_zone_may_have_the_name_of_the_unknown_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENTUNE_ZONES", json.dumps({UNKNOWN_ZONE: "static:FRA"}))
    with pytest.raises(SettingError, match=r"GREENTUNE_ZONES: site-unknown is reserved"):
        read_settings()


@pytest.mark.parametrize("name", ["GREENTUNE_WORKER_ZONES", "GREENTUNE_PUE", "greentune_pue"])
@pytest.mark.parametrize("value", ["", "1.2", '["FR"]'])
def test_a_removed_setting_is_refused_with_the_new_name(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingError, match=rf"^{name.upper()} is no longer read: set GREENTUNE_SITE"):
        read_settings()
    with pytest.raises(ValidationError, match="GREENTUNE_SITE"):
        Settings()
