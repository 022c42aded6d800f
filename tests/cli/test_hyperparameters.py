"""Hyperparameters as options, from their schema."""

import subprocess
import sys
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from cli.errors import ExitCode, SettingError
from cli.hyperparameters import option_of, parse_settings, setting_options, validate_hyperparameters
from cli.main import app
from greencore.settings.fields import list_settings
from greencore.settings.hyperparameters import Hyperparameters
from tests.stand_in_settings import StandIn

HYPERPARAMETER_COMMANDS = ("submit", "estimate", "train")


def options_of(command: str) -> list[str]:
    commands: Any = typer.main.get_command(app)
    return [option for parameter in commands.commands[command].params for option in parameter.opts]


def test_each_setting_of_a_schema_is_an_option_in_the_panel_of_its_group() -> None:
    options = {option.opts[0]: option for option in setting_options(StandIn)}
    assert list(options)[:6] == ["--rounds", "--speed", "--size", "--packing", "--marks", "--probe-rank"]
    assert options["--size"].rich_help_panel == "Batches"
    assert options["--probe-targets"].rich_help_panel == "A probe"
    assert options["--size"].help == "Rows at a time; at least 1, at most 100; or “auto”"
    assert options["--speed"].help == "How fast; above 0, at most 1; default 0.5"
    assert options["--probe-targets"].help == "Where it applies; separated by commas or “all”"


def test_options_that_were_given_are_nested_as_in_the_schema() -> None:
    given: dict[str, Any] = {option.name: None for option in setting_options(StandIn)}
    given |= {"rounds": 4, "packing": "off", "size": "auto", "probe_rank": 16, "probe_targets": "q,v"}
    assert parse_settings(given, StandIn) == {
        "rounds": 4,
        "size": "auto",
        "packing": False,
        "probe": {"rank": 16, "targets": ["q", "v"]},
    }


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "1e999"])
def test_a_number_that_json_cannot_hold_is_refused_by_its_option(number: str) -> None:
    with pytest.raises(SettingError, match=r"^--speed: (nan|-?inf) is not a finite number$"):
        parse_settings({"speed": float(number)}, StandIn)
    result = CliRunner().invoke(app, ["submit", "--model", "m", "--dataset", "d", "--learning-rate", number])
    assert result.exit_code == ExitCode.USAGE
    assert "--learning-rate: " in result.stderr
    assert "is not a finite number" in result.stderr


@pytest.mark.parametrize("command", HYPERPARAMETER_COMMANDS)
def test_every_hyperparameter_is_an_option_of_each_command(command: str) -> None:
    wanted = {"--" + "-".join(field.path).replace("_", "-") for field in list_settings(Hyperparameters)}
    assert wanted <= set(options_of(command))
    assert "--hyperparameters" not in options_of(command)


@pytest.mark.parametrize("command", HYPERPARAMETER_COMMANDS)
def test_the_help_of_a_command_shows_them(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).stdout
    assert "--learning-rate" in shown
    assert "Evaluation" in shown


def test_a_path_is_named_by_its_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.hyperparameters._schema", lambda: StandIn)
    assert option_of("probe.targets[2]") == "--probe-targets"
    assert option_of("rounds") == "--rounds"
    assert option_of("probe") == "--probe-…"
    assert option_of("absent") is None


def test_each_fault_is_named_by_its_option(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingError, match=r"^--epochs: .*1\n--seed: .*0$"):
        validate_hyperparameters({"epochs": 0, "seed": -1})
    monkeypatch.setattr("cli.hyperparameters._schema", lambda: StandIn)
    with pytest.raises(SettingError, match=r"^--size: .* or 'auto'\n--probe-targets: input should be a valid string$"):
        validate_hyperparameters({"size": "x", "probe": {"targets": [7]}})


def test_the_help_of_all_commands_does_not_import_the_schema() -> None:
    program = (
        "import sys, typer; from cli.main import app; command = typer.main.get_command(app); "
        "command(['--help'], standalone_mode=False); assert 'pydantic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


def test_a_run_that_needs_evaluations_is_refused_without_held_out_rows() -> None:
    arguments = ["train", "--model", "m", "--dataset", "d.jsonl", "--eval-share", "0", "--keep", "best"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == ExitCode.USAGE
    assert "--keep: needs evaluations, and no row is held out: give a validation dataset" in result.stderr
