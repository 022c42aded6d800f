"""Gates on a real database: which jobs run, wait or pause, and that a deadline overrides the gate."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from greencore.clock import HOUR
from runtime.settings import Settings
from scheduler import Scheduler
from store.database import Database
from store.lifecycle.status import JobStatus
from store.repositories.jobs import JobRepository
from tests.carbon_provider_server import ManualClock
from tests.scheduler.stage import START, add_job, add_worker, claim_as_worker, events, read_job, write_trace

DEFER = {"kind": "constant", "rho": 1.0, "gate": {"mode": "defer"}}
PAUSE = {"kind": "constant", "rho": 1.0, "gate": {"mode": "pause"}}
# Dirty now, clean from the fourth hour to the sixth, dirty again.
DAY = [300.0] * 4 + [100.0] * 3 + [300.0] * 41

Opened = Callable[..., Scheduler]


@pytest.fixture
def opened(empty_broker: Settings, database: Database, clock: ManualClock, tmp_path: Path) -> Iterator[Opened]:
    """Opens a scheduler with a worker in zone X, whose hourly intensities from START are given."""
    with ExitStack() as stack:

        def open_(values: Sequence[float] = DAY, **changed: Any) -> Scheduler:
            zones = {"X": write_trace(tmp_path, values)}
            add_worker(database, "X")
            add_worker(database, "X", name="worker_2")
            return stack.enter_context(
                closing(Scheduler(empty_broker.model_copy(update={"zones": zones, **changed}), clock=clock))
            )

        yield open_


def test_a_deferred_job_is_dispatched_in_the_best_window(
    opened: Opened, database: Database, clock: ManualClock
) -> None:
    scheduler = opened()
    job_id = add_job(database, zone="X", policy=DEFER, hours=2)
    scheduler.tick()
    job = read_job(database, job_id)
    assert job.status is JobStatus.DEFERRED
    assert job.reason == "the best window begins at 2026-11-23 16:00 UTC, which saves 66.7%"
    assert job.not_before is not None
    assert job.gate is not None
    assert job.gate["opens"] is False
    clock.advance(hours=3, minutes=59)
    scheduler.tick()
    assert read_job(database, job_id).status is JobStatus.DEFERRED
    clock.advance(minutes=1)
    scheduler.tick()
    job = read_job(database, job_id)
    assert job.status is JobStatus.QUEUED
    assert job.dispatched_at == clock()
    assert job.reason == "now is the best window"


def test_a_job_without_a_gate_is_dispatched_at_once(opened: Opened, database: Database) -> None:
    scheduler = opened()
    job_id = add_job(database, zone="X", hours=2)
    scheduler.tick()
    assert read_job(database, job_id).dispatched_at == START


def test_a_saving_below_the_minimum_is_not_waited_for(opened: Opened, database: Database) -> None:
    scheduler = opened([100.0] * 4 + [97.0] * 44)
    job_id = add_job(database, zone="X", policy=DEFER, hours=2)
    scheduler.tick()
    job = read_job(database, job_id)
    assert job.dispatched_at == START
    assert job.reason == "waiting would save 3.0%, not more than min_saving 5.0%"


def test_a_deadline_overrides_the_gate_with_a_reason(opened: Opened, database: Database, clock: ManualClock) -> None:
    scheduler = opened()
    # Three hours of work and ten minutes of slack: the clean hours come too late.
    job_id = add_job(database, zone="X", policy=DEFER, hours=3, deadline=START + 3 * HOUR + timedelta(minutes=11))
    scheduler.tick()
    job = read_job(database, job_id)
    assert job.status is JobStatus.QUEUED
    closed = add_job(
        database,
        zone="X",
        policy={**DEFER, "gate": {"mode": "defer", "pause_above": 200, "resume_below": 150}},
        hours=3,
        deadline=START + 3 * HOUR + timedelta(minutes=11),
    )
    scheduler.tick()
    job = read_job(database, closed)
    assert job.status is JobStatus.DEFERRED
    assert job.reason == "300 gCO2e/kWh is above pause_above 200; it runs by 2026-11-23 12:10 UTC in any case"
    clock.advance(minutes=10)
    scheduler.tick()
    job = read_job(database, closed)
    assert job.status is JobStatus.QUEUED
    assert job.reason == "the slack before the deadline 2026-11-23 15:10 UTC is used up, so it runs regardless"
    assert events(database, closed)[-1].data["forced"] is True


def test_a_job_that_runs_is_paused_where_its_gate_closes(
    opened: Opened, database: Database, clock: ManualClock
) -> None:
    scheduler = opened([100.0] * 2 + [300.0] * 4 + [100.0] * 42)
    job_id = add_job(database, zone="X", policy=PAUSE, hours=4)
    scheduler.tick()
    assert read_job(database, job_id).dispatched_at == START
    claim_as_worker(database, job_id, at=clock())
    clock.advance(hours=1)
    scheduler.tick()
    assert read_job(database, job_id).control == "run"
    clock.advance(hours=1)
    scheduler.tick()
    job = read_job(database, job_id)
    assert job.control == "defer"
    closing_event = events(database, job_id)[-1]
    assert closing_event.type == "gate.closed"
    assert closing_event.data["reason"].startswith("the planned clean hours begin at 2026-11-23 18:00 UTC")


def test_defer_does_not_pause_a_job_that_runs(opened: Opened, database: Database, clock: ManualClock) -> None:
    scheduler = opened([100.0] * 2 + [110.0] * 4 + [100.0] * 42)
    job_id = add_job(database, zone="X", policy=DEFER, hours=4)
    scheduler.tick()
    claim_as_worker(database, job_id, at=clock())
    clock.advance(hours=2)
    scheduler.tick()
    assert read_job(database, job_id).control == "run"


def test_a_pause_that_costs_more_than_it_saves_is_not_made(
    opened: Opened, database: Database, clock: ManualClock
) -> None:
    scheduler = opened([100.0] * 2 + [110.0] * 1 + [100.0] * 45)
    gate = {"mode": "pause", "min_saving": 0.0}
    job_id = add_job(database, zone="X", policy={**PAUSE, "gate": gate}, hours=4)
    scheduler.tick()
    claim_as_worker(database, job_id, at=clock())
    with database.session() as session:
        # Loading the model took half an hour.
        JobRepository(session).record(job_id, "training.started", at=clock() + HOUR / 2)
    clock.advance(hours=2)
    scheduler.tick()
    assert read_job(database, job_id).control == "run"


def test_a_job_without_a_forecast_is_dispatched(opened: Opened, database: Database) -> None:
    scheduler = opened(zones={"FR": "static"})
    add_worker(database, "FR", name="worker_3")
    job_id = add_job(database, zone="FR", policy=PAUSE, hours=2)
    scheduler.tick()
    job = read_job(database, job_id)
    assert job.dispatched_at == START
    assert job.reason == "waiting would save 0.0%, not more than min_saving 5.0%"


def test_a_threshold_pauses_without_any_plan(opened: Opened, database: Database, clock: ManualClock) -> None:
    scheduler = opened([100.0] * 2 + [300.0] * 4 + [100.0] * 42)
    gate = {"mode": "none", "pause_above": 250.0, "resume_below": 200.0}
    job_id = add_job(database, zone="X", policy={**PAUSE, "gate": gate}, hours=4)
    scheduler.tick()
    claim_as_worker(database, job_id, at=clock())
    clock.advance(hours=2)
    scheduler.tick()
    assert read_job(database, job_id).control == "defer"


def test_a_job_of_unknown_duration_runs(opened: Opened, database: Database) -> None:
    scheduler = opened()
    job_id = add_job(database, zone="X", policy=PAUSE)
    scheduler.tick()
    assert read_job(database, job_id).dispatched_at == START
