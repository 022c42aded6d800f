"""Servers and programs that go away: Redis, PostgreSQL, the scheduler, the API."""

import threading
import time
from collections import Counter

import httpx
import pytest

from tests.chaos.conftest import Force
from tests.chaos.history import check, check_weights
from tests.chaos.site import JOB, Site, wait_until


def test_jobs_come_through_while_redis_is_gone_and_comes_back_empty(
    site: Site, dataset: str, undisturbed: str, force: Force
) -> None:
    running = site.submit(dataset)
    site.under_way(running, epochs=0)
    waiting = site.submit(dataset)
    site.kill("valkey")
    site.flush_valkey()
    gone = time.monotonic()
    submitted = site.submit(dataset)
    assert site.client.get("/readyz").status_code == 503
    time.sleep(max(0.0, force.outage_seconds - (time.monotonic() - gone)))
    site.start("valkey")
    jobs = [running, waiting, submitted]
    for job in jobs:
        site.wait_for(job, "succeeded")
    check(site.database, jobs)
    check_weights(site.database, jobs, undisturbed=undisturbed)
    assert site.job(running)["attempts"] == 1


def test_postgresql_restarted_under_load_costs_answers_but_no_job(site: Site, dataset: str, undisturbed: str) -> None:
    jobs = [site.submit(dataset)]
    site.under_way(jobs[0], epochs=0)
    answers: Counter[int] = Counter()
    stop = threading.Event()
    to_submit = threading.Semaphore(2)

    def poll() -> None:
        with httpx.Client(base_url=site.client.base_url, timeout=30, trust_env=False) as client:
            while not stop.is_set():
                answers[client.get(f"/jobs/{jobs[0]}").status_code] += 1
                if answers[503] and to_submit.acquire(blocking=False):
                    answer = client.post("/jobs", json={**JOB, "dataset": dataset})
                    answers[answer.status_code] += 1
                    if answer.status_code == 201:
                        jobs.append(answer.json()["id"])
                    else:
                        to_submit.release()
                time.sleep(0.02)

    pollers = [threading.Thread(target=poll) for _ in range(4)]
    for poller in pollers:
        poller.start()
    time.sleep(1.0)
    assert site.stop("postgres") == 0
    time.sleep(2.0)
    site.start("postgres")
    site.await_server("postgres")
    time.sleep(1.0)
    stop.set()
    for poller in pollers:
        poller.join()
    assert set(answers) <= {200, 201, 503}, answers
    assert answers[503] > 0
    for job in jobs:
        site.wait_for(job, "succeeded")
    check(site.database, jobs)
    check_weights(site.database, jobs, undisturbed=undisturbed)


def test_a_killed_scheduler_is_followed_by_another_and_two_send_no_job_twice(
    site: Site, dataset: str, undisturbed: str
) -> None:
    site.start("second-scheduler", "scheduler")
    try:
        first = site.submit(dataset)
        wait_until("the job has been looked at", lambda: site.job(first)["status"] != "validating")
        site.kill("scheduler")
        jobs = [first, site.submit(dataset)]
        for job in jobs:
            site.wait_for(job, "succeeded")
    finally:
        site.start("scheduler")
        site.kill("second-scheduler")
    third = site.submit(dataset)
    site.wait_for(third, "succeeded")
    check(site.database, [*jobs, third])
    assert all(site.job(job)["attempts"] == 1 for job in [*jobs, third])
    check_weights(site.database, [*jobs, third], undisturbed=undisturbed)


def test_a_submission_whose_answer_was_lost_is_answered_on_its_repetition(site: Site, dataset: str) -> None:
    body = {**JOB, "dataset": dataset}
    headers = {"Idempotency-Key": "answer-lost"}
    site.kill("api")
    # The API itself, killed at the very moment at which it would answer: what it did is committed by then.
    site.start("dying-api", "tests.chaos.dying_api", str(site.settings.port))
    site.await_ready()
    with pytest.raises(httpx.TransportError):
        site.client.post("/jobs", json=body, headers=headers)
    site.kill("dying-api")
    site.start("api")
    site.await_ready()
    newest = site.client.get("/jobs", params={"limit": 1}).json()["data"][0]["id"]
    answer = site.client.post("/jobs", json=body, headers=headers)
    assert answer.status_code == 201, answer.text
    assert answer.json()["id"] == newest
    assert answer.headers["Location"] == f"/jobs/{newest}"
    assert site.client.get("/jobs", params={"limit": 1}).json()["data"][0]["id"] == newest
    site.wait_for(newest, "succeeded")
    check(site.database, [newest])
