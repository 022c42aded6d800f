"""The page about running the service: what it names is there, and nothing is missing in it."""

import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families as parse
from typer.testing import CliRunner

from api.health.readiness import Readiness
from api.main import create_app
from cli.main import app as command
from runtime.settings import Settings
from store.database import Database
from tests.keys import bearer, new_key

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "how-to" / "operate.md").read_text()
METRICS = (DOCS / "reference" / "metrics.md").read_text()


def section(title: str) -> str:
    return re.split(r"^## ", PAGE.split(f"## {title}\n", 1)[1], flags=re.MULTILINE)[0]


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_metric_is_explained_with_its_type(settings: Settings) -> None:
    with TestClient(create_app(settings), headers=bearer(new_key(settings))) as client:
        scraped = {family.name: family for family in parse(client.get("/metrics").text)}
    described = {row[0].strip("`").removesuffix("_total"): row[1] for row in rows(METRICS)}

    own = {name: family.type for name, family in scraped.items() if not name.endswith("_created")}
    assert described == own
    for row in rows(METRICS):
        family = scraped[row[0].strip("`").removesuffix("_total")]
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(re.findall(r"`(\w+)`", row[2])), sample.name


def test_every_part_that_may_be_missing_is_explained(database: Database, settings: Settings) -> None:
    parts = {
        row[0].strip("`") for row in rows(section("Is it alive, and can it work")) if not row[0].startswith("`GET")
    }
    source = Path(Readiness.__module__.replace(".", "/") + ".py")
    named = set(re.findall(r'return \{"(\w+)":|faults\["(\w+)"\]', (Path(__file__).parents[2] / source).read_text()))
    assert parts == {one or other for one, other in named}


@pytest.mark.parametrize("variable", sorted(set(re.findall(r"GREENTUNE_[A-Z_]+", PAGE))))
def test_every_setting_is_one(variable: str) -> None:
    assert variable.removeprefix("GREENTUNE_").lower() in Settings.model_fields


def test_the_commands_options_are_those_that_there_are() -> None:
    described = (
        CliRunner().invoke(command, ["keys", "create", "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"}).output
    )
    options = re.findall(r"--[a-z-]+", re.findall(r"greentune keys create .*", PAGE)[0])
    assert options
    assert all(option in described for option in options)
