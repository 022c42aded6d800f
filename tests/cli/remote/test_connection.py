"""How a command finds its service, and what it says where there is none."""

import socket
import time
from pathlib import Path

import pytest

from cli.completion import TIMEOUT_SECONDS, complete_job, complete_policy, complete_zone
from cli.stack.data_folder import advertise_service, discover_service
from cli.stack.embedded import LOOPBACK
from greencore.host_network import find_free_port
from greentune.client import Client
from greentune.models import Job
from tests.cli.service import CommandRunner

HALF = {"kind": "constant", "rho": 0.5}


def test_an_unreachable_service_and_an_unknown_key_have_different_errors(url: str) -> None:
    away = CommandRunner(f"http://{LOOPBACK}:{find_free_port(LOOPBACK)}", "gtk_any")
    assert "start `greentune serve`, or name the service with --url" in away.refused("jobs", code=7)
    assert "--key (GREENTUNE_KEY): " in CommandRunner(url, None).refused("jobs", code=6)
    assert "--key (GREENTUNE_KEY): " in CommandRunner(url, "gtk_é").refused("jobs", code=2)
    assert "--url (GREENTUNE_URL): " in CommandRunner("nowhere", None).refused("jobs", code=2)


def test_the_service_of_a_data_folder_is_found_while_it_runs(
    url: str, operator_key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GREENTUNE_DATA_DIR", str(tmp_path))
    with advertise_service(tmp_path, url):
        assert CommandRunner("", operator_key).json("jobs") == []
    assert discover_service(tmp_path) is None
    (tmp_path / "service-url").write_text(f"{2**22 + 1} {url}\n")
    assert discover_service(tmp_path) is None, "it was left behind by a process that is gone"


def test_names_are_completed_where_the_service_answers_and_errors_are_silent(
    greentune: CommandRunner,
    client: Client,
    job: Job,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    client.put_policy("half", HALF)
    monkeypatch.setattr("cli.completion.TIMEOUT_SECONDS", 30.0)
    monkeypatch.setenv("GREENTUNE_URL", greentune.url)
    monkeypatch.setenv("GREENTUNE_KEY", str(greentune.key))
    assert complete_job("job_") == [job.id]
    assert complete_job("x") == []
    assert (complete_policy("h"), complete_zone("F")) == (["half"], ["FR"])
    monkeypatch.setenv("GREENTUNE_URL", f"http://{LOOPBACK}:{find_free_port(LOOPBACK)}")
    assert complete_job("") == []
    monkeypatch.setenv("GREENTUNE_URL", "nowhere")
    capsys.readouterr()
    assert complete_job("") == []
    assert capsys.readouterr() == ("", "")


def test_a_completion_does_not_wait_for_a_service_that_does_not_answer(
    greentune: CommandRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server((LOOPBACK, 0)) as silent:
        monkeypatch.setenv("GREENTUNE_URL", f"http://{LOOPBACK}:{silent.getsockname()[1]}")
        monkeypatch.setenv("GREENTUNE_KEY", str(greentune.key))
        begun = time.monotonic()
        assert complete_job("") == []
        assert TIMEOUT_SECONDS <= time.monotonic() - begun < 10 * TIMEOUT_SECONDS
