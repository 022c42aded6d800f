"""Every epoch gets a ρ with the source and age of its intensity, whatever faults a provider has."""

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest

from greencore.clock import HOUR
from greencore.policy import RhoDecision, decide_rho
from runtime.settings import Settings
from scheduler import Scheduler
from store.database import Database
from store.lifecycle.status import JobStatus
from store.repositories.jobs import get_job_policy
from tests.carbon_provider_server import ManualClock, ProviderServer, Reply, rows
from tests.scheduler.stage import START, add_job, add_worker, claim_as_worker, read_job
from worker.training.policy_context import build_policy_context

POLICIES: dict[str, dict[str, Any]] = {
    "linear": {"kind": "linear", "clean": 100, "dirty": 140, "rho_max": 1.0, "rho_min": 0.4},
    "percentile": {"kind": "percentile", "window_hours": 168, "rho_max": 1.0, "rho_min": 0.4},
    "budget": {"kind": "budget", "budget_gco2e": 500, "rho_max": 1.0, "rho_min": 0.4},
}
STEPS = {"fresh", "stale", "forecast", "yesterday", "last week", "static"}


def without(field: str) -> Callable[[str, Any], Any]:
    """A change of the provider's answer that replaces every value of a field by null."""

    def edit(_: str, answer: Any) -> Any:
        if isinstance(answer, dict):
            return {name: None if name == field else edit("", value) for name, value in answer.items()}
        return [edit("", value) for value in answer] if isinstance(answer, list) else answer

    return edit


def absurd(_: str, answer: Any) -> Any:
    """Every number is negative or beyond belief."""
    if isinstance(answer, dict):
        return {name: absurd("", value) for name, value in answer.items()}
    if isinstance(answer, list):
        return [absurd("", value) for value in answer]
    return answer if not isinstance(answer, int | float) else (-50 if answer % 2 < 1 else 1e9)


FAULTS: dict[str, Callable[[ProviderServer], None]] = {
    "no network": lambda server: server.stop(),
    "500": lambda server: setattr(server, "standing_reply", Reply(status=500, body=b"oops")),
    "401": lambda server: setattr(server, "standing_reply", Reply(status=401, body=b"{}")),
    "429": lambda server: setattr(server, "standing_reply", Reply(status=429, body=b"{}")),
    "html": lambda server: setattr(server, "standing_reply", Reply(body=b"<html></html>")),
    "truncated": lambda server: setattr(server, "standing_reply", Reply(cut=25)),
    "nulls": lambda server: setattr(server, "edit", without("intensity")),
    "absurd": lambda server: setattr(server, "edit", absurd),
    "nothing": lambda server: setattr(server, "standing_reply", Reply(body=b'{"data": []}')),
}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def provider(clock: ManualClock) -> Iterator[ProviderServer]:
    with ProviderServer(clock=clock) as server:
        server.rows = rows(
            START - timedelta(days=10),
            hours=24 * 12,
            measured_until=clock(),
            value=lambda at: 100.0 + at.hour,
        )
        yield server


@pytest.fixture
def scheduler(
    settings: Settings, database: Database, provider: ProviderServer, clock: ManualClock
) -> Iterator[Scheduler]:
    zones = {"GB": provider.spec("uk")}
    add_worker(database, "GB")
    changed = settings.model_copy(update={"zones": zones, "history_days": 9.0})
    with closing(Scheduler(changed, clock=clock)) as scheduler:
        yield scheduler


def tick(scheduler: Scheduler) -> None:
    """Run one tick, and wait for the polls that it started."""
    scheduler.tick()
    for zone in scheduler._intensity_poller._zones.values():
        if zone.running is not None:
            zone.running.result(timeout=60)


def decided(database: Database, settings: Settings, job_id: str, clock: ManualClock) -> RhoDecision:
    with database.session() as session:
        job = read_job(database, job_id)
        policy = get_job_policy(job)
        return decide_rho(policy, build_policy_context(session, job, policy, settings, epochs_left=2, at=clock()))


@pytest.mark.parametrize("fault", FAULTS)
def test_every_epoch_has_a_rho_with_source_and_age(
    scheduler: Scheduler,
    settings: Settings,
    database: Database,
    provider: ProviderServer,
    clock: ManualClock,
    fault: str,
) -> None:
    jobs = {kind: add_job(database, zone="GB", policy=policy, hours=4, epochs=2) for kind, policy in POLICIES.items()}
    tick(scheduler)
    for job_id in jobs.values():
        claim_as_worker(database, job_id, at=clock())
    FAULTS[fault](provider)
    found = []
    for hours in (0.25, 2.0, 20.0, 30.0, 150.0):
        clock.advance(hours=hours)
        tick(scheduler)
        for kind, job_id in jobs.items():
            decision = decided(database, settings, job_id, clock)
            assert 0.4 <= decision.rho <= 1.0, kind
            assert decision.source, kind
            assert decision.age_seconds is not None, kind
            assert decision.step in STEPS, kind
            assert decision.source.split(" (")[0] in {*STEPS, "uk", "own forecast"}, decision.source
            assert read_job(database, job_id).status is JobStatus.RUNNING
            found.append(decision.step)
    assert "forecast" in found or "yesterday" in found or "last week" in found


@pytest.mark.parametrize("fault", ["no network", "429", "html"])
def test_a_deferred_job_is_dispatched_before_its_slack_is_used_up(
    scheduler: Scheduler, database: Database, provider: ProviderServer, clock: ManualClock, fault: str
) -> None:
    policy = {"kind": "constant", "rho": 1.0, "gate": {"mode": "defer", "pause_above": 50.0, "resume_below": 40.0}}
    deadline = START + 30 * HOUR
    job_id = add_job(database, zone="GB", policy=policy, hours=4, deadline=deadline)
    tick(scheduler)
    assert read_job(database, job_id).status is JobStatus.DEFERRED
    FAULTS[fault](provider)
    while read_job(database, job_id).dispatched_at is None:
        clock.advance(hours=1)
        assert clock() <= deadline - 4 * HOUR + HOUR
        tick(scheduler)
    job = read_job(database, job_id)
    assert job.gate is not None
    assert job.gate["forced"] is True
    assert job.reason is not None
    assert "runs regardless" in job.reason
