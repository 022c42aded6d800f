"""Outages of Redis, PostgreSQL, the scheduler and the API."""

import threading
import time
from collections import Counter

import httpx
import pytest

from tests.chaos.conftest import FaultPlan
from tests.chaos.history import check, check_weights
from tests.chaos.site import JOB, ServiceUnderTest, wait_until


def test_jobs_succeed_although_redis_is_down_and_loses_its_data(
    service: ServiceUnderTest, dataset: str, reference_job: str, fault_plan: FaultPlan
) -> None:
    running = service.submit(dataset)
    service.under_way(running, epochs=0)
    waiting = service.submit(dataset)
    service.kill("valkey")
    service.flush_valkey()
    gone = time.monotonic()
    submitted = service.submit(dataset)
    assert service.client.get("/readyz").status_code == 503
    time.sleep(max(0.0, fault_plan.outage_seconds - (time.monotonic() - gone)))
    service.start("valkey")
    jobs = [running, waiting, submitted]
    for job in jobs:
        service.wait_for(job, "succeeded")
    check(service.database, jobs)
    check_weights(service.database, jobs, reference_job=reference_job)
    assert service.job(running)["attempts"] == 1


def test_a_postgresql_restart_under_load_loses_no_job(
    service: ServiceUnderTest, dataset: str, reference_job: str
) -> None:
    jobs = [service.submit(dataset)]
    service.under_way(jobs[0], epochs=0)
    answers: Counter[int] = Counter()
    stop = threading.Event()
    to_submit = threading.Semaphore(2)

    def poll() -> None:
        with httpx.Client(base_url=service.client.base_url, timeout=30, trust_env=False) as client:
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
    assert service.stop("postgres") == 0
    time.sleep(2.0)
    service.start("postgres")
    service.await_server("postgres")
    time.sleep(1.0)
    stop.set()
    for poller in pollers:
        poller.join()
    assert set(answers) <= {200, 201, 503}, answers
    assert answers[503] > 0
    for job in jobs:
        service.wait_for(job, "succeeded")
    check(service.database, jobs)
    check_weights(service.database, jobs, reference_job=reference_job)


def test_a_killed_scheduler_is_followed_by_another_and_two_send_no_job_twice(
    service: ServiceUnderTest, dataset: str, reference_job: str
) -> None:
    service.start("second-scheduler", "scheduler")
    try:
        first = service.submit(dataset)
        wait_until("the job has been looked at", lambda: service.job(first)["status"] != "validating")
        service.kill("scheduler")
        jobs = [first, service.submit(dataset)]
        for job in jobs:
            service.wait_for(job, "succeeded")
    finally:
        service.start("scheduler")
        service.kill("second-scheduler")
    third = service.submit(dataset)
    service.wait_for(third, "succeeded")
    check(service.database, [*jobs, third])
    assert all(service.job(job)["attempts"] == 1 for job in [*jobs, third])
    check_weights(service.database, [*jobs, third], reference_job=reference_job)


def test_a_submission_whose_answer_was_lost_is_answered_on_its_repetition(
    service: ServiceUnderTest, dataset: str
) -> None:
    body = {**JOB, "dataset": dataset}
    headers = {"Idempotency-Key": "answer-lost"}
    service.kill("api")
    # The API itself, killed at the very moment at which it would answer: what it did is committed by then.
    service.start("dying-api", "tests.chaos.dying_api", str(service.settings.port))
    service.await_ready()
    with pytest.raises(httpx.TransportError):
        service.client.post("/jobs", json=body, headers=headers)
    service.kill("dying-api")
    service.start("api")
    service.await_ready()
    newest = service.client.get("/jobs", params={"limit": 1}).json()["data"][0]["id"]
    answer = service.client.post("/jobs", json=body, headers=headers)
    assert answer.status_code == 201, answer.text
    assert answer.json()["id"] == newest
    assert answer.headers["Location"] == f"/jobs/{newest}"
    assert service.client.get("/jobs", params={"limit": 1}).json()["data"][0]["id"] == newest
    service.wait_for(newest, "succeeded")
    check(service.database, [newest])
