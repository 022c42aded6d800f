"""`greentune doctor`: states of its checks, advice, and no secrets."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cli.doctor.hardware import check_rapl
from cli.main import app
from cli.stack.data_folder import advertise_service
from cli.stack.embedded import LOOPBACK
from greencore.host_network import find_free_port
from runtime.settings import Settings

SECRET = "a secret of the tests, long enough to be one"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GREENTUNE_DATA_DIR", str(tmp_path / "var"))


def doctor(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["doctor", *arguments])


def examined(result: Result) -> dict[str, Any]:
    return {check["name"]: check for check in json.loads(result.stdout)}


def test_a_current_database_passes_and_an_unreachable_redis_fails(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", settings.database_url)
    monkeypatch.setenv("REDIS_URL", f"redis://user:{SECRET[:8]}@{LOOPBACK}:{find_free_port(LOOPBACK)}/0")
    monkeypatch.setenv("GREENTUNE_SECRET_KEY", SECRET)
    zones = {"FR": "static", "DE": "electricity-maps", "US": "watttime", "X": "static:y"}
    monkeypatch.setenv("GREENTUNE_ZONES", json.dumps(zones))
    monkeypatch.setenv("GREENTUNE_ELECTRICITY_MAPS_TOKEN", "token-of-the-tests")

    result = doctor("--json")
    found = examined(result)

    assert result.exit_code == 1
    assert "redis" in result.stderr
    assert (found["postgresql"]["state"], found["schema"]["state"]) == ("ok", "ok")
    assert found["redis"]["state"] == "failed"
    assert "set REDIS_URL" in found["redis"]["mend"]
    assert found["python"]["state"] == found["packages: service"]["state"] == found["secret key"]["state"] == "ok"
    assert found["data folder"]["state"] == found["catalogue"]["state"] == "ok"
    assert found["source electricity-maps"]["found"] == "DE; GREENTUNE_ELECTRICITY_MAPS_TOKEN set"
    assert "GREENTUNE_WATTTIME_USER, GREENTUNE_WATTTIME_PASSWORD is not set" in found["source watttime"]["found"]
    assert "X: " in found["source static"]["found"]
    assert found["carbon sources"]["state"] == "skipped"
    for secret in (SECRET, SECRET[:8], "token-of-the-tests"):
        assert secret not in result.output


def test_servers_that_are_not_named_are_skipped(valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", valkey_url)
    monkeypatch.setenv("GREENTUNE_ZONES", '{"FR": "static"}')
    result = doctor("--online")

    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert "ok       redis: answers" in lines
    assert any(line.startswith("skipped  postgresql: none is named") for line in lines)
    assert any(line.startswith("ok       zone FR: ") for line in lines)
    assert any(line.startswith("warning  secret key: ") for line in lines)


@pytest.mark.fault(number=11)
def test_a_missing_site_is_a_warning(valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", valkey_url)
    monkeypatch.setenv("GREENTUNE_ZONES", '{"FR": "static"}')
    unknown = examined(doctor("--json"))["site"]
    assert (unknown["state"], "world's mean" in unknown["found"]) == ("warning", True)
    assert "GREENTUNE_SITE" in unknown["mend"]
    monkeypatch.setenv("GREENTUNE_SITE", '{"zone": "FR", "pue": 1.2}')
    known = examined(doctor("--json"))["site"]
    assert (known["state"], known["found"]) == ("ok", "FR, PUE 1.2")
    monkeypatch.setenv("GREENTUNE_PUE", "1.2")
    refused = doctor()
    assert (refused.exit_code, "GREENTUNE_PUE is no longer read: set GREENTUNE_SITE" in refused.stderr) == (2, True)


def test_an_outdated_schema_and_an_unwritable_folder_fail(
    empty_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_database_url)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GREENTUNE_DATA_DIR", str(tmp_path / "file"))
    monkeypatch.setenv("GREENTUNE_CATALOGUE", str(tmp_path / "none.toml"))
    monkeypatch.setenv("GREENTUNE_URL", f"http://{LOOPBACK}:{find_free_port(LOOPBACK)}")

    found = examined(doctor("--json"))

    assert found["schema"] == {
        "name": "schema",
        "state": "failed",
        "found": found["schema"]["found"],
        "mend": "run `greentune migrate`",
    }
    assert found["data folder"]["state"] == found["catalogue"]["state"] == found["service"]["state"] == "failed"


def test_an_unreadable_energy_counter_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_rapl(tmp_path).state == "warning"
    counter = tmp_path / "intel-rapl:0" / "energy_uj"
    counter.parent.mkdir()
    counter.write_text("1")
    assert check_rapl(tmp_path).state == "ok"
    # Root may read everything, whatever the file says.
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert check_rapl(tmp_path).state == "warning"
    assert "chmod" in check_rapl(tmp_path).mend


@pytest.mark.fault(number=22)
def test_the_service_of_the_given_data_folder_is_checked(tmp_path: Path) -> None:
    url = f"http://{LOOPBACK}:{find_free_port(LOOPBACK)}"
    with advertise_service(tmp_path, url):
        found = examined(doctor("--json", "--data-dir", str(tmp_path)))

    assert found["service"]["state"] == "failed"
    assert url in found["service"]["found"]
