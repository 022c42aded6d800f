"""The demonstration's own data, how it follows a job, and what it shows; the whole of it runs in `make run`."""

import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from rich.console import Console

import cli.demo
from api.main import create_app
from cli.demo.client import Client, RequestRefused
from cli.demo.follow import follow
from cli.demo.report import show_result
from cli.demo.run import HYPERPARAMETERS, POLICY, SAMPLE_PROMPT
from cli.errors import CommandError
from cli.stack import Stack
from greencore.carbon import open_source
from greencore.dataset import PromptRow, load_rows
from greencore.hyperparameters import Hyperparameters
from greencore.policy import Circumstances, decide, parse_policy
from store.settings import Settings
from tests.keys import bearer

HERE = Path(cli.demo.__file__).parent


def test_the_rows_teach_one_format_and_do_not_hold_the_sample() -> None:
    rows = load_rows(HERE / "dataset.jsonl")
    assert len(rows) == 40
    for row in rows:
        assert isinstance(row, PromptRow)
        assert row.prompt.startswith("Report: ")
        assert row.prompt.endswith("\nStatus:")
        level, action = row.completion.split("]")[0], row.completion.split(": ")[1]
        assert (level, action) in {(" [GREEN", "run now"), (" [AMBER", "slow down"), (" [RED", "wait")}
        assert row.prompt != SAMPLE_PROMPT
    assert len({row.prompt for row in rows if isinstance(row, PromptRow)}) == 40


def test_the_day_is_labelled_synthetic_and_asks_for_every_rho() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    day = open_source(f"trace:{HERE / 'synthetic-day.csv'}?anchor=2026-01-01T00:00:00Z", "X", clock=lambda: start)
    readings = list(day.history(start, start.replace(day=2)))
    assert len(readings) == 24
    assert {reading.source for reading in readings} == {"trace (synthetic)"}
    policy = parse_policy(POLICY)
    asked = [decide(policy, Circumstances(now=reading.start, reading=reading)).rho for reading in readings]
    assert set(asked) == {0.5, 0.7, 1.0}
    # So that a run of a few hours of this day never sees one ρ alone.
    assert max(len(run) for run in "".join({0.5: "a", 0.7: "b", 1.0: "c"}[rho] for rho in asked * 2).split("b")) <= 4


def test_the_hyperparameters_are_valid() -> None:
    Hyperparameters.model_validate(HYPERPARAMETERS)


class Script(Client):
    """Answers with one state of a job after another, and with its last one for ever."""

    def __init__(self, *jobs: dict[str, Any], epochs: list[dict[str, Any]]) -> None:
        self._jobs, self._epochs = iter(jobs), epochs
        self._last: dict[str, Any] = {}

    def job(self, job_id: str) -> dict[str, Any]:
        self._last = next(self._jobs, self._last)
        return self._last

    def epochs(self, job_id: str) -> list[dict[str, Any]]:
        return self._epochs[: self._last["progress"]["epochs_done"]]


def job(status: str, epochs_done: int = 0, **other: Any) -> dict[str, Any]:
    progress = {"epochs": 2, "epochs_done": epochs_done, "steps_done": 10 * epochs_done, "share": epochs_done / 2}
    empty = {"reason": None, "error": None, "rho": None, "loss": None, "energy_kwh": 0.0, "emissions_gco2e": 0.0}
    return {"status": status, "progress": progress, **empty, **other}


EPOCHS: list[dict[str, Any]] = [
    {
        "number": number,
        "rho_asked": rho,
        "rho_reached": rho - 0.001,
        "reason": f"[{intensity}] is what it is",
        "intensity": {"gco2e_per_kwh": intensity},
        "flops": rho * 1e12,
        "full_flops": 1e12,
        "probe_flops": 5e10,
        "train_loss": 1.5,
        "energy": energy,
        "emissions_gco2e": emissions,
    }
    for number, rho, intensity, energy, emissions in (
        (1, 1.0, 120.0, {"total_kwh": 0.001}, 0.12),
        (2, 0.5, 350.0, None, None),
    )
]
DONE = {
    "id": "job_1",
    "model": "small",
    "device": "cpu",
    "energy_kwh": 0.0015,
    "emissions_gco2e": 0.2,
    "emissions_basis": {"energy_methods": {"cpu": ["RAPL"], "ram": ["estimate"]}},
    "evaluation": {
        "rows": 4,
        "rouge": {
            "before": {"rouge1": 1, "rouge2": 0, "rougeL": 1},
            "after": {"rouge1": 90, "rouge2": 80, "rougeL": 90},
        },
        "sample": {"prompt": "Report: x\nStatus:", "before": "two\nlines", "after": " [GREEN] x"},
    },
}


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), soft_wrap=True, highlight=False, markup=False, width=200)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_following_shows_each_change_once_where_there_is_no_terminal(console: Console) -> None:
    states = [job("validating"), job("queued"), job("running"), job("running", 1), job("running", 1)]
    states.append(job("succeeded", 2, energy_kwh=0.001))
    follow(console, Script(*states, epochs=EPOCHS), "job_1", pause=lambda: None)
    assert shown(console).splitlines() == [
        "  validating: preparing the model and the rows",
        "  queued: waiting for the worker",
        "  running: training",
        "  epoch 1/2: ρ = 1.00, [120.0] is what it is",
        "  epoch 2/2: ρ = 0.50, [350.0] is what it is",
        "  succeeded",
    ]


def test_a_failed_job_fails_the_demonstration_with_its_reason(console: Console) -> None:
    failed = job("failed", error={"title": "no", "detail": "dataset: line 3: not JSON"})
    with pytest.raises(CommandError, match="job_1 has failed: dataset: line 3: not JSON"):
        follow(console, Script(failed, epochs=[]), "job_1", pause=lambda: None)


def test_a_job_that_does_not_move_is_given_up(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.demo.follow.LONGEST_SILENCE_SECONDS", 0.0)
    with pytest.raises(CommandError, match="job_1 is queued, and nothing has happened"):
        follow(console, Script(job("queued"), epochs=[]), "job_1", pause=lambda: None)


def test_the_report_shows_costs_methods_and_what_was_learned(console: Console, tmp_path: Path) -> None:
    artifacts = [{"name": "model.safetensors", "bytes": 1234}]
    show_result(console, DONE, EPOCHS, artifacts, folder=tmp_path, curve="a synthetic day")
    text = shown(console)
    assert "0.001500" in text  # the whole job
    assert "0.000500" in text  # what lies outside of the epochs
    assert "75.0%" in text
    assert "cpu: RAPL, ram: estimate" in text
    assert "ROUGE-1 1.0 → 90.0" in text
    assert "two ⏎ lines" in text
    assert "[GREEN] x" in text
    assert f'from_pretrained("{tmp_path}")' in text
    assert "/jobs/job_1/artifacts/model.safetensors" in text


def test_a_problem_is_told_with_its_fields() -> None:
    import httpx

    body = {"title": "Unprocessable", "detail": "2 faults", "errors": [{"field": "model", "message": "is unknown"}]}
    transport = httpx.MockTransport(lambda request: httpx.Response(422, text=json.dumps(body)))
    with Client("http://service") as client:
        client._http.close()
        client._http = httpx.Client(base_url="http://service", transport=transport)
        with pytest.raises(RequestRefused, match="POST /jobs: 2 faults; model: is unknown"):
            client.submit_job({})


def test_a_service_that_does_not_answer_is_told_as_that() -> None:
    with Client("http://127.0.0.1:1") as client, pytest.raises(CommandError, match="GET /jobs/x: the service does not"):
        client.job("x")


def test_its_key_is_a_users_and_is_of_no_use_afterwards(settings: Settings) -> None:
    from cli.demo.run import _own_key

    with TestClient(create_app(settings)) as client, _own_key(Stack(settings, say=print)) as key:
        assert client.get("/jobs", headers=bearer(key)).status_code == 200
        assert client.get("/keys", headers=bearer(key)).status_code == 403
    # Revoked by another process: a new API asks at once, this one within seconds.
    with TestClient(create_app(settings)) as later:
        assert later.get("/jobs", headers=bearer(key)).status_code == 401
