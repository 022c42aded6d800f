"""The page about policies: its examples are read, its figures are those of the results, and nothing is left out."""

import csv
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from benchmarks.carbon import policy_pictures
from benchmarks.carbon.policies import AIMED_SHARE, EPOCHS, POLICIES
from benchmarks.carbon.policy_tables import FULL, find_row
from benchmarks.measured_blocks import PAGES, fill_measured_blocks
from benchmarks.measured_blocks import POLICIES_PAGE as PAGE
from benchmarks.report import RESULTS
from greencore.carbon.fallback import FALLBACK_STEPS
from greencore.carbon.opening import PROVIDERS, SOURCE_SPECS
from greencore.carbon.trace import OPTIONS as TRACE_OPTIONS
from greencore.policy import Gate, Smoothing, parse_policy
from greencore.policy.context import ASSUMED_LOSS_PER_EPOCH
from greencore.policy.kinds.policy import RESUME_SHARE
from greencore.policy.models import POLICY_KINDS
from runtime.settings import Settings

TEXT = PAGE.read_text()
HOW_TO = (PAGE.parent / "how-to" / "policy.md").read_text()
SOURCES = (PAGE.parent / "reference" / "sources.md").read_text()
ACCOUNTING = (PAGE.parent / "explanation" / "accounting.md").read_text()
PROSE = re.sub(r"<!-- measured: .*?<!-- end -->|```.*?```", "", TEXT, flags=re.DOTALL)
RESULT: dict[str, Any] = json.loads((RESULTS / "policies.json").read_text())
EXAMPLES: list[dict[str, Any]] = [
    json.loads(block) for block in re.findall(r"```json\n(.*?)```", TEXT + HOW_TO, re.DOTALL)
]
PICTURES: list[tuple[str, str]] = re.findall(r"!\[(.*?)\]\((.*?)\)", TEXT)


def test_every_figure_that_was_measured_is_what_the_results_say() -> None:
    for page in PAGES:
        assert "<!-- measured: " in page.read_text()
        assert fill_measured_blocks(page.read_text()) == page.read_text()


def test_a_figure_that_is_not_the_measured_one_is_noticed(tmp_path: Path) -> None:
    rows = [{**row, "oracle_share": 0.123} for row in RESULT["rows"]]
    (tmp_path / "policies.json").write_text(json.dumps({"rows": rows}))
    assert "12.3 %" in fill_measured_blocks(TEXT, tmp_path)
    assert "12.3 %" not in TEXT


def test_prose_quotes_no_figure_but_what_must_hold() -> None:
    assert set(re.findall(r"([\d.]+) %", PROSE)) == {"2", "70", "85"}


def test_what_the_prose_says_of_the_results_is_so() -> None:
    assert all(RESULT["checks"].values())
    assert any("2 % over the oracle" in check for check in RESULT["checks"])
    assert any("at least 70%" in check for check in RESULT["checks"])
    for grid in POLICIES:
        assert "The aim of 85 % is missed on both grids" in " ".join(PROSE.split())
        assert find_row(RESULT["rows"], grid, FULL, "pause", "own", 0.0)["oracle_share"] < AIMED_SHARE == 0.85
        assert "epochs are fewer than 17" in " ".join(PROSE.split())
        assert find_row(RESULT["rows"], grid, "budget", "none")["epochs_run"] < EPOCHS == 17


def test_every_kind_under_every_gate_was_measured_on_both_grids() -> None:
    for grid in POLICIES:
        for kind in POLICY_KINDS:
            for gate in ("none", "defer", "pause"):
                assert find_row(RESULT["rows"], grid, kind, gate)["starts"] > 7000


def test_the_data_are_attributed() -> None:
    assert "© [Electricity Maps]" in TEXT
    assert "ODbL 1.0" in TEXT
    assert any("Electricity Maps, ODbL 1.0" in note for note in RESULT["notes"])


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: str(example["kind"]))
def test_every_example_is_a_policy(example: dict[str, Any]) -> None:
    assert parse_policy(example).to_json()["kind"] == example["kind"]


def test_the_example_of_each_kind_is_the_one_that_was_measured() -> None:
    for kind in POLICY_KINDS:
        assert find_row(RESULT["rows"], "ES 2022", kind, "none")["body"] == next(
            example for example in EXAMPLES if example["kind"] == kind
        )


def test_what_the_examples_and_tables_name_is_all_that_there_is() -> None:
    assert re.findall(r"^### (\w+)$", TEXT, re.MULTILINE)[: len(POLICY_KINDS)] == list(POLICY_KINDS)
    assert re.findall(r'^\| `"(none|defer|pause)"`', TEXT, re.MULTILINE) == ["none", "defer", "pause"]
    forms = re.search(r"^\| `on_missing` .*?\n\n", TEXT, re.MULTILINE | re.DOTALL)
    assert forms is not None
    cells = re.findall(r"^\| `([^`]+)`(?: \(default\))? \| ", forms[0], re.MULTILINE)
    named = [json.loads(cell) for cell in cells[1:]]
    assert [str(form) for form in named] == ["fallback", "hold", "{'rho': 0.6}", "fail"]
    for form in named:
        parse_policy({"kind": "constant", "rho": 0.7, "on_missing": form})


def test_every_source_is_in_the_table_with_its_options_and_its_key() -> None:
    # A later table, of yearly means, has rows of the same names.
    lines = reversed(SOURCES.splitlines())
    table = {name: line for line in lines for name in SOURCE_SPECS if line.startswith(f"| `{name}` | ")}
    assert table.keys() >= {*SOURCE_SPECS}
    assert "GREENTUNE_ELECTRICITY_MAPS_TOKEN" in table["electricity-maps"]
    assert "GREENTUNE_WATTTIME_USER" in table["watttime"]
    assert {name for name, line in table.items() if "marginal" in line} == {"watttime", "carbon-aware-sdk"}
    [options] = re.findall(r"^Options follow .*?\n\n", SOURCES, re.MULTILINE | re.DOTALL)
    for provider in PROVIDERS:
        assert f"`{provider.name}`" in options
        assert all(f"`{option}`" in options for option in provider.options)
    assert all(f"`{option}`" in options for option in TRACE_OPTIONS)


def test_every_step_of_the_fallback_chain_has_its_row_in_order() -> None:
    [table] = re.findall(r"^\| step \| shown as .*?\n\n", SOURCES, re.MULTILINE | re.DOTALL)
    steps = re.findall(r"^\| ([\w ]+) \| `([^`]+)`", table, re.MULTILINE)
    assert [step for step, _ in steps] == list(FALLBACK_STEPS)
    assert all(shown == step or shown.startswith(f"{step} (") for step, shown in steps if step != "fresh")


def test_every_setting_that_the_pages_name_is_there_with_its_default() -> None:
    fields = {f"GREENTUNE_{name}".upper(): field for name, field in Settings.model_fields.items()}
    pages = TEXT + HOW_TO + SOURCES + ACCOUNTING
    assert {*re.findall(r"GREENTUNE_[A-Z_]+", pages)} - {"GREENTUNE_KEY", "GREENTUNE_URL"} <= fields.keys()
    defaults = re.findall(r"`(GREENTUNE_\w+)` \(([\d.]+)\)", pages)
    assert len(defaults) == 3
    assert all(fields[name].default == float(value) for name, value in defaults)


def test_the_defaults_of_gate_and_smoothing_are_those_that_the_page_says() -> None:
    gate, smoothing = Gate(pause_above=100.0), Smoothing()
    assert f"`min_saving` (default {gate.min_saving:g})" in TEXT
    assert f"`max_delay_hours` (default {gate.max_delay_hours:g})" in TEXT
    assert gate.resume_below == pytest.approx(90)
    assert f"{RESUME_SHARE:g} of `pause_above` where it is not given" in TEXT
    for name, value in smoothing.model_dump().items():
        assert f"`{name}` ({value:g})" in TEXT
    assert f"until there are two it is taken to be {ASSUMED_LOSS_PER_EPOCH:g}" in TEXT


def test_each_kind_and_the_gate_has_a_picture_that_is_described(tmp_path: Path) -> None:
    drawn = {Path(target).name: alt for alt, target in PICTURES}
    assert drawn.keys() == {f"{name}.svg" for name in (*POLICY_KINDS, "gate")}
    for alt, target in PICTURES:
        assert len(alt) > 40
        assert "<svg" in (PAGE.parent / target).read_text()
    policy_pictures.main(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == drawn.keys()


def test_every_link_leads_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert all(target.startswith("https://") or (PAGE.parent / target).is_file() for target in targets)


def test_the_python_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with (tmp_path / "es.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["datetime", "gco2e_per_kwh"])
        for hour in range(24 * 6):
            time = datetime(2022, 1, 3, tzinfo=UTC) + timedelta(hours=hour)
            rows.writerow([time.isoformat(), 300 if hour % 24 < 12 else 100])
    monkeypatch.chdir(tmp_path)
    [example] = re.findall(r"```python\n(.*?)```", HOW_TO, re.DOTALL)
    exec(example, {})
    assert re.fullmatch(r"\d+ g: [\d.]+% less work, [\d.]+% moved in time\n", capsys.readouterr().out)


def test_the_readme_names_settings_that_there_are_and_a_policy_that_is_one() -> None:
    readme = (PAGE.parents[1] / "README.md").read_text()
    known = {f"GREENTUNE_{name}".upper() for name in Settings.model_fields}
    assert {*re.findall(r"GREENTUNE_\w+", readme)} - {"GREENTUNE_KEY", "GREENTUNE_URL"} <= known
    [section] = re.findall(r"^## Choose a policy\n(.*?)^## ", readme, re.MULTILINE | re.DOTALL)
    [example] = re.findall(r"```json\n(.*?)```", section, re.DOTALL)
    parse_policy(json.loads(example))
    assert "(docs/policies.md)" in section
