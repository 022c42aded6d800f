"""A job's history in words: every type of event that the service writes has a sentence."""

import re
from pathlib import Path

import pytest

from api.dashboard.jobs.event_sentences import describe_event
from store.lifecycle.status import JobStatus

ROOT = Path(__file__).parents[3]
RECORDED = re.compile(r'record\(\s*[\w.]+,\s*"([a-z_]+\.[a-z_]+)"')
NOTHING_SAID = {"marker": 7}


def written() -> set[str]:
    """The types that are recorded anywhere, and those that transitions make."""
    sources = (
        file.read_text() for folder in ("store", "scheduler", "worker") for file in (ROOT / folder).rglob("*.py")
    )
    return {found for text in sources for found in RECORDED.findall(text)} | {f"job.{status}" for status in JobStatus}


def test_every_type_that_is_written_has_a_sentence_of_its_own() -> None:
    assert len(written()) > 20
    for event_type in written():
        assert "marker" not in describe_event(event_type, NOTHING_SAID), f"{event_type} is told by its data alone"


def test_a_type_that_is_not_known_is_told_by_its_data() -> None:
    assert describe_event("moon.rose", {"phase": 0.123456, "over": "Kiel", "why": None}) == "phase: 0.1235; over: Kiel"


@pytest.mark.parametrize(
    ("event_type", "data", "told"),
    [
        ("job.submitted", {}, "Submitted"),
        ("job.queued", {"from": "deferred", "reason": None}, "Its gate has opened, waits in the queue"),
        ("job.queued", {"from": "paused", "reason": "resumed by ops"}, "Waits in the queue: resumed by ops"),
        ("job.running", {"worker": "worker-a", "attempt": 2}, "Taken up by worker-a in attempt 2"),
        (
            "job.dispatched",
            {"zone": "GB", "reason": None, "forced": True},
            "Sent to zone GB, since its deadline leaves no time to wait",
        ),
        (
            "job.deferred",
            {"reason": "cleaner at 3", "saving": 0.31},
            "Waits for a greener hour: cleaner at 3 (saves 31.0 % est.)",
        ),
        ("epoch.finished", {"epoch": 3, "rho_reached": 0.69, "loss": None}, "Epoch 3 is over: ρ reached 0.69, loss –"),
        ("training.started", {"steps_done": 40, "precision": "bf16"}, "Training goes on after step 40, in bf16"),
        (
            "files.removed",
            {"what": ["artifacts", "checkpoints"]},
            "Removed after the time that files are kept: artifacts, checkpoints",
        ),
    ],
)
def test_what_happened_is_told_with_what_is_known_of_it(event_type: str, data: dict[str, object], told: str) -> None:
    assert describe_event(event_type, data) == told
