"""A job goes only to workers whose device holds its steps, as predicted, and computes its attention."""

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from greencore.carbon import Basis
from greencore.device import Device
from planning.device_fit import choose_recomputation
from runtime.settings import Settings
from scheduler import Scheduler
from scheduler.job_placement import Fleet, evaluate_waiting_job
from store.database import Database
from store.repositories.workers import WorkerRepository
from store.tables import Job
from tests.carbon_provider_server import ManualClock
from tests.scheduler.stage import add_job, add_worker, claim_as_worker, read_job, write_trace

GIGABYTE = 10**9


@pytest.fixture
def scheduler(empty_broker: Settings, database: Database, clock: ManualClock, tmp_path: Path) -> Iterator[Scheduler]:
    """CLEAN has a small device and a GPU of 24 GB, DIRTY a GPU of 80 GB."""
    zones = {
        "CLEAN": write_trace(tmp_path, [100.0] * 48, name="clean"),
        "DIRTY": write_trace(tmp_path, [500.0] * 48, name="dirty"),
    }
    for name, zone, size in (("tiny", "CLEAN", 8), ("medium", "CLEAN", 24), ("large", "DIRTY", 80)):
        add_worker(
            database, zone, name=name, device="GPU", memory_bytes=size * GIGABYTE, computes_bf16=name != "medium"
        )
    with closing(Scheduler(empty_broker.model_copy(update={"zones": zones}), clock=clock)) as scheduler:
        yield scheduler


def add_prepared_job(database: Database, needs: dict[str, Any], zone: str | None = None, **hyperparameters: Any) -> str:
    estimate = {"full_flops": 1e9, "memory_needs": needs}
    return add_job(database, zone=zone, hyperparameters=hyperparameters, estimate=estimate)


def need(kept: int, recomputed: int | None = None) -> dict[str, int | None]:
    return {"kept": kept * GIGABYTE, "recomputed": None if recomputed is None else recomputed * GIGABYTE}


@pytest.mark.parametrize(
    ("needs", "zone", "queue"),
    [
        ({}, "CLEAN", "train.CLEAN"),
        ({"bf16": need(5)}, "CLEAN", "train.CLEAN"),
        ({"bf16": need(30), "fp32": need(60)}, "DIRTY", "train.DIRTY"),
        ({"bf16": need(30, 20), "fp32": need(60, 23)}, "CLEAN", "train.medium"),  # tiny is too small for it
        ({"bf16": need(20), "fp32": need(40)}, "DIRTY", "train.DIRTY"),  # the medium GPU computes in float32
    ],
)
def test_the_cleanest_zone_is_one_whose_device_holds_the_job(
    scheduler: Scheduler, database: Database, broker: redis.Redis, needs: dict[str, Any], zone: str, queue: str
) -> None:
    job_id = add_prepared_job(database, needs)
    scheduler.tick()
    assert read_job(database, job_id).zone == zone
    assert broker.llen(queue) == 1


@pytest.mark.parametrize(
    ("needs", "begun_in", "zone"),
    [
        ({"bf16": need(14), "fp32": need(28)}, None, "DIRTY"),
        ({"bf16": need(14), "fp32": need(28)}, "bf16", "CLEAN"),
        ({"bf16": need(7), "fp32": need(28)}, None, "CLEAN"),
        ({"bf16": need(7), "fp32": need(28)}, "fp32", "DIRTY"),
    ],
)
def test_a_run_goes_on_where_its_own_precision_fits(
    scheduler: Scheduler, database: Database, needs: dict[str, Any], begun_in: str | None, zone: str
) -> None:
    job_id = add_job(database, estimate={"full_flops": 1e9, "memory_needs": needs}, precision=begun_in)
    scheduler.tick()
    assert read_job(database, job_id).zone == zone


def test_a_job_that_no_live_device_holds_waits_with_the_figures(
    scheduler: Scheduler, database: Database, broker: redis.Redis
) -> None:
    asked = add_prepared_job(database, {"bf16": need(40, 30), "fp32": need(80, 60)}, zone="CLEAN")
    anywhere = add_prepared_job(database, {"bf16": need(90, 85), "fp32": need(99, 99)})
    scheduler.tick()
    assert [read_job(database, job_id).reason for job_id in (asked, anywhere)] == [
        "waits for a worker whose device holds the 30 GB of its steps: the closest that is alive (GPU) has 8 GB",
        "waits for a worker whose device holds the 85 GB of its steps: the closest that is alive (GPU) has 80 GB",
    ]
    assert (broker.llen("train.CLEAN"), broker.llen("train.DIRTY")) == (0, 0)


def test_a_job_on_several_gpus_goes_to_a_zone_with_a_worker_whose_devices_hold_it(
    scheduler: Scheduler, database: Database, broker: redis.Redis
) -> None:
    for name, zone, size, gpus in (("pair", "CLEAN", 8, 2), ("large", "DIRTY", 80, 4)):
        add_worker(database, zone, name=name, device="GPU", memory_bytes=size * GIGABYTE, computes_bf16=True, gpus=gpus)
    needs = {"bf16": need(30), "fp32": need(30)}
    anywhere, clean, four = (
        add_job(database, zone=zone, gpus=gpus, estimate={"full_flops": 1e9, "memory_needs": needs})
        for zone, gpus in ((None, 2), ("CLEAN", 2), ("CLEAN", 4))
    )
    scheduler.tick()
    assert read_job(database, anywhere).zone == "DIRTY"
    assert broker.llen("train.large") == 1
    # The GPU of 24 GB is alone in its machine, and not the closest.
    assert read_job(database, clean).reason == (
        "waits for a worker whose device holds the 30 GB of its steps: the closest that is alive (GPU) has 8 GB"
    )
    assert read_job(database, four).reason == "waits for a worker with 4 GPUs: the largest that is alive has 2"


@pytest.mark.parametrize(
    ("needs", "given", "least", "closest"),
    [
        ({"bf16": need(10), "fp32": need(30)}, {}, 10, "(GPU) has 8"),
        ({"bf16": need(30), "fp32": need(21)}, {}, 21, "(cpu) has 20"),
        ({"bf16": need(30)}, {"attention": "flash", "precision": "bf16"}, 30, "(GPU) has 8"),
    ],
)
def test_the_reason_has_the_figures_of_the_device_that_lacks_least(
    scheduler: Scheduler, database: Database, needs: dict[str, Any], given: dict[str, Any], least: int, closest: str
) -> None:
    add_worker(database, "CLEAN", name="medium", memory_bytes=20 * GIGABYTE, computes_bf16=False)
    job_id = add_prepared_job(database, needs, zone="CLEAN", **given)
    scheduler.tick()
    expected = (
        f"waits for a worker whose device holds the {least} GB of its steps: the closest that is alive {closest} GB"
    )
    assert read_job(database, job_id).reason == expected


@pytest.mark.usefixtures("scheduler")
def test_the_reason_is_of_devices_in_the_zones_where_the_job_may_go(
    empty_broker: Settings, database: Database, clock: ManualClock
) -> None:
    """The zone CLEAN, with devices of 8 and 24 GB, has marginal intensities, and DIRTY, with 80 GB, average ones."""
    bases = {"CLEAN": Basis("marginal", "direct"), "DIRTY": Basis()}
    job_id = add_prepared_job(database, {"bf16": need(30), "fp32": need(60)})
    with database.session() as session:
        workers = WorkerRepository(session).list_live(within=timedelta(minutes=5))
        job = session.get_one(Job, job_id)
        job.signal = "marginal"
        assert evaluate_waiting_job(session, job, Fleet(workers, bases), empty_broker, at=clock()) is None
        assert "holds the 30 GB of its steps: the closest that is alive (GPU) has 8 GB" in str(job.reason)
        assert evaluate_waiting_job(session, job, Fleet(workers[:1], bases), empty_broker, at=clock()) is None
        assert job.reason == "waits for a worker of a zone with a marginal intensity: none is alive"


@pytest.mark.parametrize("setting", ["auto", False])
def test_a_job_whose_blocks_cannot_recompute_waits_for_a_device_that_holds_it(
    scheduler: Scheduler, database: Database, broker: redis.Redis, setting: Any
) -> None:
    job_id = add_prepared_job(database, {"bf16": need(90), "fp32": need(99)}, gradient_checkpointing=setting)
    scheduler.tick()
    assert "whose device holds the 90 GB of its steps" in str(read_job(database, job_id).reason)
    assert (broker.llen("train.CLEAN"), broker.llen("train.DIRTY")) == (0, 0)


def test_a_job_waits_for_the_device_that_holds_it_while_a_smaller_one_is_free(
    scheduler: Scheduler, database: Database, broker: redis.Redis, clock: ManualClock
) -> None:
    add_worker(database, "CLEAN", name="big", device="GPU", memory_bytes=90 * GIGABYTE, computes_bf16=True)
    running = add_prepared_job(database, {"bf16": need(85), "fp32": need(85)})
    scheduler.tick()
    claim_as_worker(database, running, at=clock(), worker="big")
    broker.flushdb()
    waiting = add_prepared_job(database, {"bf16": need(85), "fp32": need(85)})
    scheduler.tick()
    assert broker.llen("train.CLEAN") == 0
    assert read_job(database, waiting).reason == "waits for a free worker: it is next"


def test_one_job_is_sent_to_each_device_that_holds_it_and_no_other_is_looked_at_again(
    scheduler: Scheduler, database: Database, broker: redis.Redis, clock: ManualClock
) -> None:
    needs = {"bf16": need(30, 20), "fp32": need(60, 23)}
    jobs = [add_prepared_job(database, needs, zone="CLEAN") for _ in range(3)]
    for _ in range(3):
        scheduler.tick()
        clock.advance(seconds=2)

    def count_messages() -> tuple[int, int]:
        return broker.llen("train.medium"), broker.llen("train.CLEAN")

    assert count_messages() == (1, 0)
    assert [read_job(database, job_id).dispatched_at is not None for job_id in jobs] == [True, False, False]
    assert read_job(database, jobs[2]).reason == "waits for a free worker: 1 job is ahead of it"
    small = add_prepared_job(database, {"bf16": need(5), "fp32": need(5)}, zone="CLEAN")
    scheduler.tick()
    assert read_job(database, small).dispatched_at is not None  # the tiny device is free
    assert count_messages() == (1, 1)


def test_flash_attention_goes_to_a_worker_with_a_gpu_alone(scheduler: Scheduler, database: Database) -> None:
    for name in ("tiny", "medium"):
        add_worker(database, "CLEAN", name=name, memory_bytes=90 * GIGABYTE)
    anywhere, clean = (
        add_prepared_job(database, {}, zone=zone, attention="flash", precision="bf16") for zone in (None, "CLEAN")
    )
    scheduler.tick()
    assert read_job(database, anywhere).zone == "DIRTY"
    assert "waits for a worker with a GPU" in str(read_job(database, clean).reason)


def test_blocks_recompute_by_the_memory_of_the_device_where_a_job_runs() -> None:
    def choose(size: int, setting: Any = "auto", needs: Any = None) -> Any:
        known = needs if needs is not None else {"fp32": need(30, 20)}
        job = Job(hyperparameters={"gradient_checkpointing": setting}, estimate={"memory_needs": known})
        return choose_recomputation(job, Device("cpu", size * GIGABYTE))

    assert (choose(30), choose(29), choose(19)) == (False, True, True)
    assert (choose(10, setting=False), choose(90, setting=True)) == (False, True)
    assert (
        choose(29, needs={"fp32": need(30)}) == choose(29, needs={}) == choose(29, needs={"bf16": need(30)}) == "auto"
    )


@pytest.mark.parametrize(("begun_in", "recomputes"), [(None, False), ("bf16", False), ("fp32", True)])
def test_blocks_recompute_by_the_precision_of_the_run(begun_in: str | None, recomputes: bool) -> None:
    needs = {"bf16": need(14, 9), "fp32": need(28, 18)}
    job = Job(hyperparameters={}, estimate={"memory_needs": needs}, precision=begun_in)
    assert choose_recomputation(job, Device("GPU", 20 * GIGABYTE, computes_bf16=True)) is recomputes
