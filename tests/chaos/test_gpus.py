"""Jobs on a worker with two GPUs, here two processes on a CPU: one job on both, or two side by side."""

import os
import random
import time
from collections.abc import Iterator, Mapping

import psutil
import pytest
from sqlalchemy import func, select

from store.tables import EnergyInterval
from tests.chaos.conftest import FaultPlan
from tests.chaos.history import check, check_weights
from tests.chaos.site import JOB, ServiceUnderTest, wait_until
from tests.torchrun import find_processes

SEED = int(os.environ.get("CHAOS_SEED", "5"))
ON_TWO = {"resources": {"gpus": 2}, "hyperparameters": {**JOB["hyperparameters"], "epochs": 2, "batch_size": 8}}
CPU_W, RAM_W = 90.0, 10.0
LATEST_SECONDS = 20.0


@pytest.fixture(scope="module")
def two_gpus(service: ServiceUnderTest) -> Iterator[ServiceUnderTest]:
    """The service, whose worker has two GPUs meanwhile, on a host of constant power."""
    service.stop("worker")
    settings = service.settings
    service.settings = settings.model_copy(update={"gpus": 2, "cpu_power_w": CPU_W, "ram_power_w": RAM_W})
    service.start("worker")
    yield service
    service.stop("worker")
    service.settings = settings
    service.start("worker")


def await_end(processes: Mapping[str, psutil.Process]) -> None:
    _, alive = psutil.wait_procs(list(processes.values()), timeout=30)
    assert alive == []


@pytest.fixture(scope="module")
def reference_pair(two_gpus: ServiceUnderTest, dataset: str) -> str:
    """Run a job on two GPUs without faults."""
    job = two_gpus.submit(dataset, **ON_TWO)
    wait_until("both processes train", lambda: {"0", "1"} <= find_processes(two_gpus.pid("worker")).keys())
    ended = two_gpus.wait_for(job, "succeeded")
    assert (ended["gpus"], ended["attempts"]) == (2, 1)
    wait_until("its processes are gone", lambda: find_processes(two_gpus.pid("worker")) == {})
    check(two_gpus.database, [job])
    return job


def test_a_job_on_two_gpus_is_paused_drained_and_killed_and_ends_with_the_same_weights(
    two_gpus: ServiceUnderTest, dataset: str, reference_pair: str
) -> None:
    service, job = two_gpus, two_gpus.submit(dataset, **ON_TWO)

    def await_attempt(number: int, *, epochs: int) -> dict[str, psutil.Process]:
        """Wait until an attempt trains beyond some epochs, and return its processes."""

        def count_starts() -> int:
            return sum(event["type"] == "training.started" for event in service.events(job))

        wait_until(f"attempt {number} trains", lambda: count_starts() == number)
        service.under_way(job, epochs=epochs)
        return find_processes(service.pid("worker"))

    started = await_attempt(1, epochs=0)
    service.client.post(f"/jobs/{job}/pause").raise_for_status()
    service.wait_for(job, "paused")
    await_end(started)
    service.client.post(f"/jobs/{job}/resume").raise_for_status()

    started = await_attempt(2, epochs=0)
    started["1"].kill()
    await_end(started)

    started = await_attempt(3, epochs=1)
    asked = time.monotonic()
    assert service.stop("worker") == 0
    assert time.monotonic() - asked < 20
    assert service.job(job)["status"] == "queued"
    await_end(started)
    service.start("worker")

    started = await_attempt(4, epochs=1)
    service.kill("worker")
    await_end(started)
    service.start("worker")

    service.wait_for(job, "succeeded")
    check(service.database, [job])
    check_weights(service.database, [job], reference_job=reference_pair)
    reasons = [event["data"].get("reason") or "" for event in service.events(job)]
    assert "process 1 of the run was killed" in reasons
    assert any("fell silent" in reason for reason in reasons)


@pytest.mark.skipif(os.environ.get("CHAOS") != "full", reason="in `make chaos`; the test before kills each kind once")
def test_processes_killed_at_random_moments_change_no_weight(
    two_gpus: ServiceUnderTest, dataset: str, reference_pair: str, fault_plan: FaultPlan
) -> None:
    moments, service = random.Random(SEED), two_gpus
    job = service.submit(dataset, **ON_TWO)
    for _ in range(fault_plan.kills // 5):
        service.wait_for(job, "running", "succeeded")
        time.sleep(moments.uniform(0.0, LATEST_SECONDS))
        victims = list(find_processes(service.pid("worker")).values())
        if victims:
            moments.choice(victims).kill()
    service.wait_for(job, "succeeded")
    check(service.database, [job])
    check_weights(service.database, [job], reference_job=reference_pair)


def test_a_cancelled_job_frees_both_gpus(two_gpus: ServiceUnderTest, dataset: str) -> None:
    service = two_gpus
    job = service.submit(dataset, **ON_TWO)
    service.under_way(job, epochs=0)
    started = find_processes(service.pid("worker"))
    service.client.post(f"/jobs/{job}/cancel").raise_for_status()
    service.wait_for(job, "cancelled")
    await_end(started)
    [worker] = [one for one in service.client.get("/workers").json()["data"] if one["state"] in ("idle", "busy")]
    assert (worker["gpus"], worker["gpus_free"]) == (2, 2)


def test_two_jobs_run_side_by_side_and_their_energies_add_up_to_the_hosts(
    two_gpus: ServiceUnderTest, dataset: str, reference_job: str
) -> None:
    service = two_gpus
    jobs = [service.submit(dataset) for _ in range(2)]
    wait_until("both run", lambda: all(service.job(job)["status"] == "running" for job in jobs))
    for job in jobs:
        service.wait_for(job, "succeeded")
    check_weights(service.database, jobs, reference_job=reference_job)
    rows = select(
        func.sum(EnergyInterval.energy_kwh),
        func.min(EnergyInterval.started_at),
        func.max(EnergyInterval.finished_at),
    ).where(EnergyInterval.job_id.in_(jobs), EnergyInterval.cpu_kwh > 0)
    with service.database.session() as session:
        kwh, began, ended = session.execute(rows).one()
    # One began before the other, and one ended after it: from the first to the last the host has one of them at least.
    assert kwh == pytest.approx((CPU_W + RAM_W) * (ended - began).total_seconds() / 3.6e6, rel=0.02)
