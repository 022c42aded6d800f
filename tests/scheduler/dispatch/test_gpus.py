"""Jobs go to workers with as many free devices as they want, and side by side to those with several."""

import json
from ast import literal_eval
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
import redis

from runtime.settings import Settings
from scheduler import Scheduler
from scheduler.training_dispatch import REEVALUATION_INTERVAL
from store.database import Database
from store.lifecycle.leases import claim
from store.lifecycle.status import JobStatus
from store.lifecycle.transitions import transition
from store.repositories.workers import WorkerRepository
from store.tables import Job
from tests.carbon_provider_server import ManualClock
from tests.scheduler.stage import START, add_job, add_worker, claim_as_worker, read_job, write_trace


@pytest.fixture
def one_zone(empty_broker: Settings, tmp_path: Path) -> Settings:
    return empty_broker.model_copy(update={"zones": {"X": write_trace(tmp_path, [100.0] * 48)}})


@pytest.fixture
def start(one_zone: Settings, clock: ManualClock, database: Database) -> Iterator[Scheduler]:
    with closing(Scheduler(one_zone, clock=clock)) as scheduler:
        yield scheduler


def add_workers(database: Database, **gpus: int) -> None:
    for name, number in gpus.items():
        add_worker(database, "X", name=name, gpus=number, memory_bytes=10**9, computes_bf16=False)


def sent_to(broker: redis.Redis, *workers: str) -> dict[str, int]:
    return {name: int(broker.llen(f"train.{name}")) for name in workers}


def receive(broker: redis.Redis, *workers: str) -> list[tuple[str, str]]:
    """Take all messages of these workers' own queues; return each one's job and its worker."""
    found = []
    for worker in workers:
        while message := broker.lpop(f"train.{worker}"):
            assert isinstance(message, str)
            [job_id] = literal_eval(json.loads(message)["headers"]["argsrepr"])
            found.append((job_id, worker))
    return found


def finish(database: Database, job_id: str) -> None:
    with database.session() as session:
        transition(session, session.get_one(Job, job_id), JobStatus.SUCCEEDED, at=START)


def worker_is_idle(database: Database, name: str) -> bool:
    with database.session() as session:
        return WorkerRepository(session).count_free_gpus(name) > 0


def test_a_worker_gets_as_many_jobs_as_it_has_devices(
    start: Scheduler, database: Database, broker: redis.Redis
) -> None:
    add_workers(database, four=4)
    jobs = [add_job(database, zone="X", gpus=gpus) for gpus in (1, 2, 1, 1)]
    start.tick()
    assert sent_to(broker, "four", "X") == {"four": 3, "X": 0}
    assert [read_job(database, job).dispatched_at is not None for job in jobs] == [True, True, True, False]
    assert read_job(database, jobs[3]).reason == "waits for a free worker: it is next"


def test_a_job_goes_to_the_worker_with_the_fewest_free_devices_that_suffice(
    start: Scheduler, database: Database, broker: redis.Redis
) -> None:
    add_workers(database, eight=8, two=2, one=1)
    for gpus in (1, 2, 4):
        add_job(database, zone="X", gpus=gpus)
    start.tick()
    assert sent_to(broker, "eight", "two", "one", "X") == {"eight": 1, "two": 1, "one": 1, "X": 0}


def test_workers_with_one_device_each_share_their_zones_queue(
    start: Scheduler, database: Database, broker: redis.Redis
) -> None:
    add_workers(database, one=1, other=1)
    for _ in range(3):
        add_job(database, zone="X")
    start.tick()
    assert sent_to(broker, "one", "other", "X") == {"one": 0, "other": 0, "X": 2}


def test_one_gpu_jobs_do_not_starve_a_job_on_two(
    start: Scheduler, clock: ManualClock, database: Database, broker: redis.Redis
) -> None:
    add_workers(database, two=2, one=1)
    running = add_job(database, zone="X")
    claim_as_worker(database, running, at=START, worker="two")
    large = add_job(database, zone="X", gpus=2)
    small = [add_job(database, zone="X") for _ in range(3)]
    for _ in range(2):
        start.tick()
        clock.now += timedelta(seconds=1)
    # The free device of "two" is kept for the large job, that of "one" is not.
    assert sent_to(broker, "two", "one") == {"two": 0, "one": 1}
    assert read_job(database, large).reason == "waits for a worker with 2 free GPUs: it is next"
    with database.session() as session:
        session.get_one(Job, running).worker_id = "elsewhere"
    start.tick()
    assert read_job(database, large).dispatched_at is not None
    assert sum(read_job(database, job).dispatched_at is not None for job in small) == 1


def test_a_job_on_two_gpus_starts_in_a_stream_of_shorter_jobs_that_never_ends(
    start: Scheduler, clock: ManualClock, database: Database, broker: redis.Redis
) -> None:
    add_workers(database, two=2, one=1)
    running: list[tuple[str, int]] = []
    large, began, idle = None, dict[str, int](), 0
    for second in range(20):
        if second == 5:
            large = add_job(database, zone="X", gpus=2)
        for _ in range(2):
            add_job(database, zone="X", owner=f"owner {second % 2}")
        start.tick()
        for job, worker in receive(broker, "two", "one"):
            claim_as_worker(database, job, at=clock(), worker=worker)
            began[job] = second
            running.append((job, second + 1))  # so that one of "two" comes free each second, and never both
        idle += worker_is_idle(database, "one")
        for job, _ in [each for each in running if each[1] <= second]:
            finish(database, job)
        running = [each for each in running if each[1] > second]
        clock.now += timedelta(seconds=1)
    assert large in began
    assert began[large] < 15  # jobs that came before it go first
    assert idle == 0


def test_a_worker_that_joins_does_not_end_a_reservation(
    start: Scheduler, clock: ManualClock, database: Database, broker: redis.Redis
) -> None:
    add_workers(database, two=2)
    claim_as_worker(database, add_job(database, zone="X"), at=START, worker="two")
    add_job(database, zone="X", gpus=2)
    start.tick()
    add_job(database, zone="X")
    add_workers(database, one=1)
    claim_as_worker(database, add_job(database, zone="X"), at=START, worker="one")
    clock.now += timedelta(seconds=1)
    start.tick()
    assert sent_to(broker, "two", "one") == {"two": 0, "one": 0}


def test_a_job_that_is_evaluated_again_reserves_one_worker_only(
    start: Scheduler, clock: ManualClock, database: Database, broker: redis.Redis
) -> None:
    add_workers(database, first=2, second=2)
    for worker in ("first", "second"):
        claim_as_worker(database, add_job(database, zone="X"), at=START, worker=worker)
    add_job(database, zone="X", gpus=2)
    start.tick()
    for _ in range(2):
        add_job(database, zone="X")
    clock.now += REEVALUATION_INTERVAL
    start.tick()
    assert sent_to(broker, "first", "second") == {"first": 0, "second": 1}


def test_a_job_that_no_worker_has_the_gpus_for_waits_and_says_so(start: Scheduler, database: Database) -> None:
    add_workers(database, two=2, one=1)
    job = add_job(database, zone="X", gpus=4)
    start.tick()
    add_workers(database, more=2)
    start.tick()
    assert read_job(database, job).reason == "waits for a worker with 4 GPUs: the largest that is alive has 2"
    assert read_job(database, job).dispatched_at is None
    add_workers(database, four=4)
    start.tick()
    assert read_job(database, job).dispatched_at is not None


def test_a_restarted_scheduler_counts_the_messages_of_the_one_before(
    start: Scheduler, one_zone: Settings, clock: ManualClock, database: Database, broker: redis.Redis
) -> None:
    add_workers(database, two=2)
    for _ in range(3):
        add_job(database, zone="X")
    start.tick()
    start.close()
    with closing(Scheduler(one_zone, clock=clock)) as successor:
        successor.tick()
    assert sent_to(broker, "two", "X") == {"two": 2, "X": 0}


def test_a_restarted_scheduler_waits_for_a_message_whose_worker_it_does_not_know(
    start: Scheduler, one_zone: Settings, clock: ManualClock, database: Database, broker: redis.Redis
) -> None:
    add_workers(database, first=2, second=2)
    before = add_job(database, zone="X", gpus=2)
    start.tick()
    start.close()
    job = add_job(database, zone="X", gpus=2)
    with closing(Scheduler(one_zone, clock=clock)) as successor:
        successor.tick()
        assert sent_to(broker, "first", "second") == {"first": 1, "second": 0}
        assert read_job(database, job).reason == "waits for a worker with 2 free GPUs: it is next"
        claim_as_worker(database, before, at=START, worker="first")
        successor.tick()
    assert sent_to(broker, "first", "second") == {"first": 1, "second": 1}


def test_a_worker_claims_as_many_jobs_as_it_has_devices(database: Database) -> None:
    add_workers(database, two=2)

    def free() -> int:
        with database.session() as session:
            return WorkerRepository(session).count_free_gpus("two")

    assert free() == 2
    claim_as_worker(database, add_job(database, zone="X"), at=START, worker="two")
    assert free() == 1
    both = add_job(database, zone="X", gpus=2)
    with database.session() as session:
        assert claim(session, both, worker_id="two", device="cpu", at=START, lease_seconds=60) is not None
    assert free() == -1  # by a worker of an earlier version, which did not ask
