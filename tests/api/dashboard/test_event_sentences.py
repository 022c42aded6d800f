"""Sentences of a job's events: every event type that the service writes has one."""

import re
from pathlib import Path

import pytest

from api.dashboard.jobs.event_sentences import describe_event
from store.lifecycle.status import JobStatus

ROOT = Path(__file__).parents[3]
RECORDED = re.compile(r'record(?:_attempt_event)?[(,]\s*(?:[\w.]+,\s*)*"([a-z_]+\.[a-z_]+)"')
NOTHING_SAID = {"marker": 7}


def list_event_types() -> set[str]:
    """The event types in calls of `record` and `record_attempt_event`, and those of transitions."""
    sources = (
        file.read_text() for folder in ("store", "scheduler", "worker") for file in (ROOT / folder).rglob("*.py")
    )
    return {found for text in sources for found in RECORDED.findall(text)} | {f"job.{status}" for status in JobStatus}


def test_every_recorded_event_type_has_a_sentence() -> None:
    assert len(list_event_types()) > 20
    for event_type in list_event_types():
        assert "marker" not in describe_event(event_type, NOTHING_SAID), f"{event_type} has no sentence"


def test_an_unknown_type_is_described_by_its_data() -> None:
    assert describe_event("moon.rose", {"phase": 0.123456, "over": "Kiel", "why": None}) == "phase: 0.1235; over: Kiel"


@pytest.mark.parametrize(
    ("event_type", "data", "sentence"),
    [
        ("job.submitted", {}, "Submitted"),
        ("job.queued", {"from": "deferred", "reason": None}, "Gate opened, queued"),
        ("job.queued", {"from": "paused", "reason": "resumed by ops"}, "Queued: resumed by ops"),
        ("job.running", {"worker": "worker-a", "attempt": 2}, "Claimed by worker-a in attempt 2"),
        (
            "job.dispatched",
            {"zone": "GB", "reason": None, "forced": True},
            "Dispatched to zone GB, since its deadline leaves no time to wait",
        ),
        (
            "job.deferred",
            {"reason": "cleaner at 3", "saving": 0.31},
            "Deferred to a cleaner hour: cleaner at 3 (estimated saving 31.0 %)",
        ),
        ("epoch.finished", {"epoch": 3, "rho_reached": 0.69, "loss": None}, "Epoch 3 finished: ρ reached 0.69, loss –"),
        ("training.started", {"steps_done": 40, "precision": "bf16"}, "Training resumed after step 40, in bf16"),
        (
            "micro_batch.halved",
            {"attempt": 1, "before": 8, "after": 4, "step": 3},
            "Out of memory in step 3 with 8 rows at once: it is repeated with 4",
        ),
        (
            "files.removed",
            {"what": ["artifacts", "checkpoints"]},
            "Removed after the retention period: artifacts, checkpoints",
        ),
    ],
)
def test_a_sentence_contains_the_events_data(event_type: str, data: dict[str, object], sentence: str) -> None:
    assert describe_event(event_type, data) == sentence
