"""Workers that are killed, drained, or race each other."""

import os
import random
import time

from tests.chaos.conftest import Force
from tests.chaos.history import check, check_weights
from tests.chaos.site import Site, wait_until
from worker.app import TRAIN, make_app, send, train_queue

SEED = int(os.environ.get("CHAOS_SEED", "5"))
# Long enough for an attempt to train to its end, so that kills meet every part of it.
LATEST_SECONDS = 6.0


def test_workers_killed_at_random_moments_lose_no_job_and_change_no_weight(
    site: Site, dataset: str, undisturbed: str, force: Force
) -> None:
    moments = random.Random(SEED)
    jobs = [site.submit(dataset) for _ in range(2)]
    open_jobs = list(jobs)
    for _ in range(force.kills):
        open_jobs = [job for job in open_jobs if site.job(job)["status"] != "succeeded"]
        if not open_jobs:
            open_jobs = [site.submit(dataset)]
            jobs += open_jobs
        site.wait_for_one(open_jobs, "running")
        time.sleep(moments.uniform(0.0, LATEST_SECONDS))
        if moments.random() < 0.3:
            site.kill_child("worker")
        else:
            site.restart("worker")
    for job in jobs:
        site.wait_for(job, "succeeded")
    check(site.database, jobs)
    check_weights(site.database, jobs, undisturbed=undisturbed)


def test_a_drained_worker_hands_its_job_back_from_the_middle_of_an_epoch(
    site: Site, dataset: str, undisturbed: str
) -> None:
    job = site.submit(dataset)
    site.under_way(job)
    asked = time.monotonic()
    assert site.stop("worker") == 0
    assert time.monotonic() - asked < 20
    given_back = site.job(job)
    assert given_back["status"] == "queued"
    site.start("worker")
    site.wait_for(job, "succeeded")
    check(site.database, [job])
    check_weights(site.database, [job], undisturbed=undisturbed)
    assert site.job(job)["attempts"] == 2


def test_two_workers_race_for_one_job_and_one_of_them_runs_it(site: Site, dataset: str, undisturbed: str) -> None:
    site.start("rival", "worker", "train")
    try:
        celery = make_app(site.settings)
        job = site.submit(dataset)
        wait_until("the job is prepared", lambda: site.job(job)["status"] in ("queued", "running"))
        for _ in range(4):
            send(celery, TRAIN, job, queue=train_queue("X"))
        site.wait_for(job, "succeeded")
        celery.close()
    finally:
        site.kill("rival")
    check(site.database, [job])
    assert site.job(job)["attempts"] == 1
    check_weights(site.database, [job], undisturbed=undisturbed)
