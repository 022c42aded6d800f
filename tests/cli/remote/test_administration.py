"""`greentune policy` and `keys`."""

import json

import pytest

from runtime.settings import Settings
from tests.cli.service import CommandRunner
from tests.keys import new_key

HALF = {"kind": "constant", "rho": 0.5}


def test_policies_are_stored_shown_simulated_and_deleted(
    greentune: CommandRunner, grid: None, settings: Settings
) -> None:
    assert greentune.shown("policy", "apply", "half", json.dumps(HALF)) == "half: version 1\n"
    assert greentune.json("policy", "apply", "half", json.dumps(HALF))["version"] == 2
    assert "POLICY: rho: " in greentune.refused("policy", "apply", "half", '{"kind": "constant", "rho": 2}', code=2)
    late = greentune.refused("policy", "apply", "half", json.dumps(HALF), "--if-version", "1", code=5)
    assert "newest version is 2" in late
    greentune.refused("policy", "apply", "half", json.dumps(HALF), "--if-version", "0", code=5)
    guarded = ("policy", "apply", "half", json.dumps(HALF), "--if-version", "2")
    assert greentune.shown(*guarded) == "half: version 3\n"
    assert "NAME: " in greentune.refused("policy", "apply", "A B", json.dumps(HALF), code=2)
    assert "constant" in greentune.shown("policy", "list")
    assert [each["name"] for each in greentune.json("policy", "list")] == ["half"]
    assert greentune.json("policy", "show", "half")["policy"]["rho"] == 0.5
    run = ("--work-hours", "2", "--epochs", "2", "--deadline-hours", "6", "--zone-history", "FR")
    found = greentune.json("policy", "simulate", "half", *run)
    assert (found["basis"]["zone"], found["work_share"]) == ("FR", 0.5)
    assert "saved by less work" in greentune.shown("policy", "simulate", json.dumps(HALF), *run)
    assert "--zone-history: " in greentune.refused("policy", "simulate", "half", *run[:-1], "GB", code=2)
    assert "--work-hours: " in greentune.refused("policy", "simulate", "half", "--work-hours", "0", *run[2:], code=2)
    assert "POLICY: " in greentune.refused("policy", "simulate", "none", *run, code=2)
    assert "--trace: " in greentune.refused("policy", "simulate", "half", *run, "--trace", "x.csv", code=2)
    user = CommandRunner(greentune.url, new_key(settings, "alice", "user"))
    assert "--key (GREENTUNE_KEY): " in user.refused("policy", "delete", "half", code=6)
    assert greentune("policy", "delete", "half").exit_code == 0
    greentune.refused("policy", "show", "half", code=4)


def test_keys_are_created_through_the_service_at_url(greentune: CommandRunner, url: str) -> None:
    made = greentune.json("keys", "create", "--owner", "carol", "--days", "3", "--url", url)
    assert (made["owner"], made["role"], made["key"][:4]) == ("carol", "user", "gtk_")
    assert "carol" in greentune.shown("keys", "list", "--url", url)
    assert made["id"] in {each["id"] for each in greentune.json("keys", "list", "--url", url)}
    assert "--owner: " in greentune.refused("keys", "create", "--owner", " ", "--url", url, code=2)
    assert greentune("keys", "revoke", made["id"], "--url", url).exit_code == 0
    greentune.refused("keys", "revoke", "key_none", "--url", url, code=4)
    assert CommandRunner(url, made["key"]).refused("keys", "list", "--url", url, code=6)


def test_keys_are_listed_as_json_at_the_database(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", settings.database_url)
    monkeypatch.setenv("GREENTUNE_SECRET_KEY", settings.secret)
    greentune = CommandRunner("http://127.0.0.1:1", None)
    made = greentune.json("keys", "create", "--owner", "carol")
    assert made["key"].startswith("gtk_")
    assert [each["id"] for each in greentune.json("keys", "list")] == [made["id"]]
