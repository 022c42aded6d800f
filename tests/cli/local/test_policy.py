"""`greentune policy`: offline, without torch, with every error named by its option."""

import json
import math
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cli.main import app

START = datetime(2025, 3, 1, tzinfo=UTC)
PAUSE = '{"kind": "constant", "rho": 1.0, "gate": {"mode": "pause", "min_saving": 0.0}}'
RUN = ("--work-hours", "4", "--epochs", "4", "--deadline-hours", "24")


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Return a trace of 20 days, each cleanest at noon; two rows are missing and two are estimates."""
    rows = [
        f"{(START + timedelta(hours=hour)).isoformat()},{200 + 100 * math.cos(2 * math.pi * hour / 24):.3f},{hour < 2}"
        for hour in range(480)
    ]
    del rows[50:52]
    file = tmp_path / "days.csv"
    file.write_text("# label: synthetic\ndatetime,gco2e_per_kwh,data estimated\n" + "\n".join(rows) + "\n")
    return file


def greentune(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "160"})


def simulated(*arguments: str) -> Any:
    """Return the JSON of the command."""
    result = greentune("policy", "simulate", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_every_full_hour_is_simulated_and_the_two_savings_are_shown_apart(trace: Path) -> None:
    result = greentune("policy", "simulate", PAUSE, "--trace", str(trace), *RUN, "--zone", "ES")

    assert result.exit_code == 0, result.output
    for shown in (
        "457 runs in ES",
        "saved by less work",
        "saved by moving it in time",
        "share of the oracle's saving",
        "478 readings of trace (synthetic), 2 of them estimates",
        "99.6% of that time covered",
        "All figures are estimates",
        "300 W while it computes",
    ):
        assert shown in result.stdout


def test_one_start_shows_its_decisions(trace: Path) -> None:
    start = "2025-03-10T00:00"
    result = greentune(
        "policy", "simulate", PAUSE, "--trace", str(trace), *RUN, "--start", start, "--forecast", "perfect"
    )

    assert result.exit_code == 0, result.output
    assert "One run, ended 2025-03-10 1" in result.stdout
    assert "2025-03-10 00:00" in result.stdout
    for action in ("wait", "epoch", "finish"):
        assert action in result.stdout


def test_json_is_what_the_service_would_answer(trace: Path) -> None:
    found = simulated(PAUSE, "--trace", str(trace), *RUN, "--start", "2025-03-10T01:00:00+01:00", "--power-w", "600")

    assert found["starts"] == 1
    assert found["decisions"][0]["time"] == "2025-03-10T00:00:00Z"
    assert found["moved_in_time_saving"] > 0.2
    assert found["basis"]["estimated"] is True
    assert found["basis"]["from"] == "2025-03-01T00:00:00Z"
    assert any("600 W" in assumption for assumption in found["basis"]["assumptions"])


def test_the_emission_factors_of_a_trace_are_reported(trace: Path) -> None:
    direct = trace.with_name("direct.csv")
    direct.write_text(trace.read_text().replace("gco2e_per_kwh", "Carbon Intensity gCO₂eq/kWh (direct)"))

    assert simulated(PAUSE, "--trace", str(trace), *RUN)["basis"]["emission_factors"] == ["lifecycle"]
    assert simulated(PAUSE, "--trace", str(direct), *RUN)["basis"]["emission_factors"] == ["direct"]


def test_a_policy_is_read_from_a_file_too(trace: Path, tmp_path: Path) -> None:
    file = tmp_path / "pause.json"
    file.write_text(PAUSE)

    assert simulated(str(file), "--trace", str(trace), *RUN) == simulated(PAUSE, "--trace", str(trace), *RUN)


def test_idle_power_adds_emissions(trace: Path) -> None:
    lazy = simulated(PAUSE, "--trace", str(trace), *RUN)
    awake = simulated(PAUSE, "--trace", str(trace), *RUN, "--idle-power-w", "100")

    assert awake["emissions_g"] > lazy["emissions_g"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"POLICY": '{"kind": "quota"}'}, ["POLICY: kind: given 'quota'"]),
        ({"POLICY": '{"kind": "constant", "rho": 2, "colour": 1}'}, ["POLICY: rho:", "POLICY: colour:"]),
        ({"POLICY": '{"kind": '}, ["POLICY: not JSON"]),
        ({"POLICY": "nowhere.json"}, ["POLICY: nowhere.json: there is no such file"]),
        ({"POLICY": "."}, ["POLICY: .: cannot be read"]),
        ({"--trace": "nowhere.csv"}, ["--trace: nowhere.csv: there is no such file"]),
        ({"--work-hours": "0"}, ["--work-hours: given 0"]),
        ({"--work-hours": "nan"}, ["--work-hours: given nan"]),
        ({"--epochs": "0"}, ["--epochs: given 0"]),
        ({"--deadline-hours": "-1"}, ["--deadline-hours: given -1"]),
        ({"--deadline-hours": "1000"}, ["--trace: it covers", "1000 h"]),
        ({"--start": "noon"}, ["--start: 'noon' is not a time"]),
        ({"--start": "2020-01-01"}, ["--start: 2020-01-01T00:00:00+00:00 needs the series"]),
        ({"--forecast": "tarot"}, ["--forecast: 'tarot' is not one of own, persistence, perfect"]),
        ({"--power-w": "0"}, ["--power-w: given 0"]),
        ({"--idle-power-w": "-1"}, ["--idle-power-w: given -1"]),
    ],
    ids=str,
)
def test_a_fault_is_one_message_that_names_its_option(trace: Path, changed: dict[str, str], words: list[str]) -> None:
    options = {"--trace": str(trace), **dict(zip(RUN[::2], RUN[1::2], strict=True)), **changed}
    policy = options.pop("POLICY", PAUSE)

    result = greentune("policy", "simulate", policy, *(part for option in options.items() for part in option))

    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr


def test_a_valid_policy_is_shown_with_its_defaults() -> None:
    result = greentune("policy", "check", '{"kind": "constant", "rho": 0.5}')

    assert result.exit_code == 0
    shown = json.loads(result.stdout)
    assert (shown["rho"], shown["gate"]["mode"], shown["on_missing"]) == (0.5, "none", "fallback")


def test_an_invalid_policy_is_refused_with_every_error() -> None:
    result = greentune("policy", "check", '{"kind": "linear", "clean": 300, "dirty": 100, "rho_max": 2}')

    assert result.exit_code == 2
    assert "POLICY: rho_max:" in result.stderr
    assert "POLICY: rho_min:" in result.stderr


def test_a_simulation_imports_neither_torch_nor_server_packages() -> None:
    program = (
        "import sys, cli.main, cli.local.policy_simulation; "
        "assert not {'torch', 'transformers', 'fastapi', 'sqlalchemy', 'celery'} & set(sys.modules), sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.fault(number=20)
def test_the_first_hundred_errors_of_a_policy_are_shown_with_a_count() -> None:
    step = {"up_to": 1, "rho": 2, **{f"unknown{number}": 1 for number in range(4)}}
    result = greentune("policy", "check", json.dumps({"kind": "steps", "steps": [step] * 50}))

    assert result.exit_code == 2
    lines = result.stderr.splitlines()
    assert len(lines) == 101
    assert lines[-1].endswith("and 150 more faults")

    huge = greentune("policy", "check", json.dumps({"kind": "steps", "steps": [{}] * 300_000}))
    assert huge.stderr.splitlines() == ["greentune: POLICY: steps: given 300,000 items: expected at most 100"]
