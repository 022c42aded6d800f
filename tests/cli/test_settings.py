"""Invalid settings are named in one message on stderr, with exit code 2, before anything starts."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli.errors import SettingError
from cli.main import app
from cli.stack.data_folder import make_secret, read_secret
from cli.stack.embedded import LOOPBACK
from greencore.host_network import find_free_port
from runtime.settings import KEPT_FROM_WORKERS, Settings


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def greentune(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def assert_refused(result: Result, *words: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr
    assert not Path("var", "postgres").exists()


@pytest.mark.parametrize(
    ("variable", "value", "word"),
    [
        ("GREENTUNE_PORT", "eighty", "GREENTUNE_PORT: Input should be a valid integer"),
        ("GREENTUNE_TICK_SECONDS", "0", "GREENTUNE_TICK_SECONDS: Input should be greater than 0"),
        ("GREENTUNE_ZONES", "{DE: static", "GREENTUNE_ZONES: expected JSON"),
        ("GREENTUNE_ZONES", '{"DE": 5}', "GREENTUNE_ZONES.DE: Input should be a valid string"),
        ("GREENTUNE_HOST", "nowhere.invalid", "--host (GREENTUNE_HOST): 'nowhere.invalid'"),
        ("DATABASE_URL", "sqlite:///jobs.db", "DATABASE_URL: GreenTune keeps its data in PostgreSQL"),
        ("DATABASE_URL", "postgresql://u:secret@127.0.0.1:1/x", "DATABASE_URL: PostgreSQL cannot be reached"),
        ("DATABASE_URL", "postgresql://127.0.0.1:1/x?no_such=1", "DATABASE_URL: PostgreSQL cannot be reached"),
    ],
)
def test_serve_names_the_variable_at_fault(
    variable: str, value: str, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    result = greentune("serve", *([] if variable == "GREENTUNE_PORT" else ["--port", str(find_free_port(LOOPBACK))]))
    assert result.exit_code == 2, result.output
    assert word in result.stderr
    assert "secret" not in result.stderr


def test_serve_names_every_fault_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENTUNE_PORT", "0")
    monkeypatch.setenv("GREENTUNE_LOG_FORMAT", "xml")
    assert_refused(greentune("serve"), "GREENTUNE_PORT", "GREENTUNE_LOG_FORMAT")


def test_serve_refuses_a_port_in_use_before_it_starts_anything(taken_port: int) -> None:
    result = greentune("serve", "--port", str(taken_port))
    assert_refused(result, f"--port (GREENTUNE_PORT): port {taken_port} on 127.0.0.1 cannot be taken")


def test_serve_refuses_a_data_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("")
    result = greentune("serve", "--port", str(find_free_port(LOOPBACK)))
    assert result.exit_code == 2, result.output
    assert "--data-dir (GREENTUNE_DATA_DIR)" in result.stderr


def test_serve_names_redis_where_it_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "http://127.0.0.1")
    result = greentune("serve", "--port", str(find_free_port(LOOPBACK)))
    assert result.exit_code == 2, result.output
    assert "REDIS_URL: Redis URL must specify one of" in result.stderr


def test_migrate_names_the_database_that_it_cannot_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1:1/x")
    assert_refused(greentune("migrate"), "DATABASE_URL: PostgreSQL cannot be used")


def test_a_port_out_of_range_is_refused() -> None:
    assert greentune("serve", "--port", "70000").exit_code == 2


def test_keys_name_the_missing_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    assert_refused(greentune("keys", "create", "--owner", "carol"), "GREENTUNE_SECRET_KEY is not set", "secret-key")
    monkeypatch.setenv("GREENTUNE_SECRET_KEY", "too short")
    result = greentune("keys", "list")
    assert_refused(result, "GREENTUNE_SECRET_KEY")
    assert "too short" not in result.stderr


def test_a_stored_secret_is_read_and_a_damaged_one_is_reported(tmp_path: Path) -> None:
    made = make_secret(tmp_path)
    assert read_secret(tmp_path) == made
    assert (tmp_path / "secret-key").stat().st_mode & 0o777 == 0o600
    (tmp_path / "secret-key").write_text("half of")
    with pytest.raises(SettingError, match="secret-key holds no secret"):
        read_secret(tmp_path)


def test_the_environment_of_a_worker_has_every_setting_but_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {"SECRET_KEY": "s" * 32, "ELECTRICITY_MAPS_TOKEN": "t", "WATTTIME_USER": "u", "WATTTIME_PASSWORD": "p"}
    for name, value in secrets.items():
        monkeypatch.setenv(f"GREENTUNE_{name}", value)
    everything = Settings().environment()
    told = Settings().environment(without=KEPT_FROM_WORKERS)
    assert set(everything) - set(told) == {f"GREENTUNE_{name}" for name in secrets}
    assert told.items() <= everything.items()
