""".env.example names every setting with the default that it has, and nothing that is none."""

import pytest

from runtime.settings import REPLACED, Settings
from tests.deployment.compose import variables
from tests.deployment.environment_example import EXAMPLE, read_variables

# Compose reads this one by itself.
OF_COMPOSE = {"COMPOSE_PROFILES"}


def variable(setting: str) -> str:
    return setting.upper() if setting in ("database_url", "redis_url") else f"GREENTUNE_{setting}".upper()


def test_nothing_is_missing_and_nothing_is_there_that_nobody_reads() -> None:
    read = {variable(setting) for setting in Settings.model_fields} | variables() | OF_COMPOSE
    assert set(read_variables()) == read - REPLACED.keys()


@pytest.mark.parametrize("setting", Settings.model_fields)
def test_the_default_is_the_one_that_holds(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = read_variables()[variable(setting)]
    default = Settings.model_fields[setting].default
    if not shown.value:
        assert default is None
        return
    monkeypatch.setenv(variable(setting), shown.value)
    assert getattr(Settings(), setting) == default


def test_only_what_has_no_default_has_to_be_written() -> None:
    assert {name for name, shown in read_variables().items() if not shown.optional} == {
        "POSTGRES_PASSWORD",
        "GREENTUNE_SECRET_KEY",
    }


@pytest.mark.parametrize("name", read_variables())
def test_each_is_explained(name: str) -> None:
    assert read_variables()[name].explained


def test_it_holds_no_secret() -> None:
    shown = read_variables()
    assert all(not shown[name].value for name in shown if name.endswith(("_PASSWORD", "_KEY", "_TOKEN", "_USER")))
    assert max(map(len, EXAMPLE.read_text().splitlines())) <= 140
