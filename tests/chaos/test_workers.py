"""Workers that are killed, drained, or race each other."""

import os
import random
import time

import pytest

from tests.chaos.conftest import FaultPlan
from tests.chaos.history import check, check_weights
from tests.chaos.site import ServiceUnderTest, wait_until
from worker.app import TRAIN_TASK, make_app, send_task, train_queue

SEED = int(os.environ.get("CHAOS_SEED", "5"))
# Long enough for an attempt to train to its end, so that kills meet every part of it.
LATEST_SECONDS = 6.0


def test_workers_killed_at_random_moments_lose_no_job_and_change_no_weight(
    service: ServiceUnderTest, dataset: str, reference_job: str, fault_plan: FaultPlan
) -> None:
    moments = random.Random(SEED)
    jobs = [service.submit(dataset) for _ in range(2)]
    open_jobs = list(jobs)
    for _ in range(fault_plan.kills):
        open_jobs = [job for job in open_jobs if service.job(job)["status"] != "succeeded"]
        if not open_jobs:
            open_jobs = [service.submit(dataset)]
            jobs += open_jobs
        service.wait_for_one(open_jobs, "running")
        time.sleep(moments.uniform(0.0, LATEST_SECONDS))
        if moments.random() < 0.3:
            service.kill_child("worker")
        else:
            service.restart("worker")
    for job in jobs:
        service.wait_for(job, "succeeded")
    check(service.database, jobs)
    check_weights(service.database, jobs, reference_job=reference_job)


def test_a_job_goes_on_from_its_checkpoints_after_a_kill_and_a_drain_in_mid_epoch(
    service: ServiceUnderTest, dataset: str, reference_job: str
) -> None:
    job = service.submit(dataset)
    service.under_way(job, epochs=1)
    service.restart("worker")
    service.under_way(job, epochs=2)
    asked = time.monotonic()
    assert service.stop("worker") == 0
    assert time.monotonic() - asked < 20
    given_back = service.job(job)
    assert given_back["status"] == "queued"
    service.start("worker")
    service.wait_for(job, "succeeded")
    check(service.database, [job])
    check_weights(service.database, [job], reference_job=reference_job)

    events = service.events(job)
    assert any("fell silent" in (event["data"].get("reason") or "") for event in events)
    starts = [event["data"]["epochs_done"] for event in events if event["type"] == "training.started"]
    assert 0 == starts[0] < starts[1] < starts[2]
    assert len(list(service.settings.job_dir(job).glob("checkpoint-*"))) == 2

    # Lost energy is no saving, and no gate has moved anything.
    wait_until("it is accounted for", lambda: service.job(job)["counterfactuals"] is not None)
    ended = service.job(job)
    full = ended["counterfactuals"]["full_now"]["emissions_gco2e"]
    lines = [name for name in ended if name.endswith("_saving")]
    assert ended["lost_work_saving"] < 0 == ended["moved_in_time_saving"] == ended["owner_pause_saving"]
    assert sum(ended[name] for name in lines) == pytest.approx((full - ended["emissions_gco2e"]) / full)


def test_two_workers_race_for_one_job_and_one_of_them_runs_it(
    service: ServiceUnderTest, dataset: str, reference_job: str
) -> None:
    service.start("rival", "tests.slow_worker", "train")
    try:
        celery = make_app(service.settings)
        job = service.submit(dataset)
        wait_until("the job is prepared", lambda: service.job(job)["status"] in ("queued", "running"))
        for _ in range(4):
            send_task(celery, TRAIN_TASK, job, queue=train_queue("X"))
        service.wait_for(job, "succeeded")
        celery.close()
    finally:
        service.kill("rival")
    check(service.database, [job])
    assert service.job(job)["attempts"] == 1
    check_weights(service.database, [job], reference_job=reference_job)
