"""A zone name that is unsafe in queue names and URLs is refused, with the allowed characters."""

import json

import pytest
from pydantic import ValidationError

from runtime.settings import Settings

pytestmark = pytest.mark.fault(number=26)

REFUSED = ("FR,DE", "FR DE", "", " ", "FR/DE", "FR?", "FR#", "Île", "FR\n", ".", "..", "-FR", "x" * 65, 'F"R', "F%2CR")
TAKEN = ("FR", "US-CAL-CISO", "NO-NO1", "CAISO_NORTH", "westeurope", "x", "13", "synthetic.day", "x" * 64)


@pytest.mark.parametrize("zone", REFUSED)
def test_a_name_unsafe_in_queue_names_and_urls_is_refused(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENTUNE_ZONES", json.dumps({"FR": "static", zone: "static"}))

    with pytest.raises(ValidationError, match="expected at most 64 of the characters") as refused:
        Settings()

    [fault] = refused.value.errors()
    assert fault["loc"] == ("zones",)
    assert len(str(fault["msg"])) < 400


@pytest.mark.parametrize("zone", TAKEN)
def test_names_of_providers_are_accepted(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENTUNE_ZONES", json.dumps({zone: "static"}))
    monkeypatch.setenv("GREENTUNE_SITE", json.dumps({"zone": zone}))

    settings = Settings()

    assert list(settings.zones) == [zone]
    assert settings.site is not None
    assert settings.site.zone == zone


def test_a_site_is_refused_with_the_same_message(monkeypatch: pytest.MonkeyPatch) -> None:
    for site in ("FR,DE", '{"zone": "FR,DE"}'):
        monkeypatch.setenv("GREENTUNE_SITE", site)
        with pytest.raises(ValidationError, match="expected at most 64 of the characters"):
            Settings()
