"""A host's processor and memory energy is allocated to the attempts that run on it, and adds up to what it used."""

import random
from collections.abc import Sequence
from datetime import timedelta
from threading import Thread

import pytest
from sqlalchemy import func, select, update

from greencore.energy import UnreportedPeriod
from greencore.energy.interval import JOULES_PER_KWH
from runtime.settings import Settings
from scheduler.reclaim import reclaim_lost_jobs
from store.accounting import metering
from store.database import Database
from store.lifecycle.leases import Lease, renew
from store.lifecycle.status import JobStatus
from store.lifecycle.transitions import transition
from store.repositories.jobs import JobRepository
from store.tables import EnergyInterval, Job, MeteredAttempt
from tests.scheduler.stage import backdate_lease
from tests.store.accounting.hosts import CPU_W, GPU_W, NOON, RAM_W, Host, billed, idle

pytestmark = pytest.mark.fault(number=15)


def test_a_job_alone_on_its_host_is_billed_all_of_it(database: Database) -> None:
    host = Host(database)
    alone = host.start()
    host.seconds = 60
    host.meter(alone, 0)
    assert billed(database, alone) == pytest.approx(CPU_W * 60)
    assert billed(database, alone, "ram") == pytest.approx(RAM_W * 60)


def test_a_job_that_runs_within_an_interval_of_another_shares_only_that_time(database: Database) -> None:
    host = Host(database)
    long = host.start()
    host.seconds = 20
    short = host.start()
    host.seconds = 50
    host.stop(short)
    host.meter(short, 20)
    host.seconds = 60
    host.meter(long, 0)
    assert billed(database, short) == pytest.approx(CPU_W * 30 / 2)
    assert billed(database, long) == pytest.approx(CPU_W * (20 + 30 / 2 + 10))
    with database.session() as session:
        rows = session.scalars(
            select(EnergyInterval).where(EnergyInterval.job_id == long.job_id).order_by(EnergyInterval.started_at)
        ).all()
    assert [(row.finished_at - NOON).total_seconds() for row in rows] == [20, 50, 60]


@pytest.mark.parametrize(
    ("held", "shares"),
    [
        ([[], []], [0.5, 0.5]),
        ([["a"], ["b", "c", "d"]], [0.25, 0.75]),
        ([[], [], []], [1 / 3] * 3),
        ([["a"], []], [0.5, 0.5]),
        ([["a", "b"], [], ["c"]], [0.5, 0.25, 0.25]),
    ],
)
def test_a_host_is_shared_by_number_of_gpus_and_each_job_is_billed_its_own_gpus(
    database: Database, held: Sequence[Sequence[str]], shares: Sequence[float]
) -> None:
    host = Host(database)
    leases = [host.start(*gpus) for gpus in held]
    host.seconds = 60
    for lease, gpus in zip(leases, held, strict=True):
        host.meter(lease, 0, gpus=len(gpus))
    assert [billed(database, lease) / (CPU_W * 60) for lease in leases] == pytest.approx(shares)
    assert [billed(database, lease, "gpu") for lease in leases] == pytest.approx(
        [len(gpus) * GPU_W * 60 for gpus in held]
    )


def test_a_job_of_several_processes_without_a_gpu_has_a_share_for_each(database: Database) -> None:
    host = Host(database)
    leases = [host.start(), host.start(processes=3)]
    host.seconds = 60
    for lease in leases:
        host.meter(lease, 0)
    assert [billed(database, lease) / (CPU_W * 60) for lease in leases] == pytest.approx([0.25, 0.75])


def test_jobs_on_other_hosts_share_nothing(database: Database) -> None:
    here, there = Host(database), Host(database, "boot-2")
    first, second = here.start(), there.start()
    here.seconds = there.seconds = 60
    here.meter(first, 0)
    there.meter(second, 0)
    assert billed(database, first) == billed(database, second) == pytest.approx(CPU_W * 60)


@pytest.mark.parametrize("seed", range(4))
def test_jobs_and_idle_energy_add_up_to_the_host_in_any_order_of_events(database: Database, seed: int) -> None:
    chance, host = random.Random(seed), Host(database)
    running: dict[Lease, float] = {}
    ever, sampled = list[Lease](), 0.0
    for _ in range(30):
        host.seconds += chance.uniform(0.5, 25)
        match chance.choice(("start", "stop", "meter", "meter", "sample")):
            case "start" if len(running) < 4:
                lease = host.start(*(f"GPU-{len(ever)}-{n}" for n in range(chance.randrange(3))))
                running[lease] = host.seconds
                ever.append(lease)
            case "stop" if running:
                lease = chance.choice(list(running))
                host.stop(lease)
                host.meter(lease, running.pop(lease))
            case "meter" if running:
                lease = chance.choice(list(running))
                host.meter(lease, running[lease])
                running[lease] = host.seconds
            case _:
                host.store_idle(host.sample(sampled))
                sampled = host.seconds
    for lease, since in running.items():
        host.meter(lease, since)
    host.store_idle(host.sample(sampled))
    jobs = sum(billed(database, lease) for lease in ever)
    assert jobs + idle(database) == pytest.approx(CPU_W * host.seconds)
    assert sum(billed(database, lease, "ram") for lease in ever) + idle(database, "ram") == pytest.approx(
        RAM_W * host.seconds
    )


def test_a_wall_clock_that_jumps_changes_no_share(database: Database) -> None:
    host = Host(database)
    first, second = host.start(), host.start()
    host.seconds = 60
    host.meter(first, 0, wall_ahead=timedelta(hours=-3))
    host.meter(second, 0, wall_ahead=timedelta(hours=8))
    assert billed(database, first) == billed(database, second) == pytest.approx(CPU_W * 30)


def test_an_interval_that_is_stored_again_after_the_shares_have_changed_counts_once(
    database: Database, settings: Settings
) -> None:
    host = Host(database)
    first, dying = host.start(), host.start()
    show_life(database, dying, host, at=20)
    host.seconds = 60
    assert host.meter(first, 0)
    lose(database, dying, settings)
    assert not host.meter(first, 0)
    assert billed(database, first) == pytest.approx(CPU_W * 30)


def show_life(database: Database, lease: Lease, host: Host, *, at: float) -> None:
    host.seconds = at
    with database.session() as session:
        renew(session, lease, lease_seconds=60, unstored=UnreportedPeriod(host.now, 0), host_seconds=at)


def lose(database: Database, lease: Lease, settings: Settings) -> None:
    backdate_lease(database, lease.job_id)
    reclaim_lost_jobs(database, settings, at=NOON)


def seen_ago(database: Database, lease: Lease, seconds: float) -> None:
    with database.session() as session:
        session.execute(
            update(MeteredAttempt)
            .where(MeteredAttempt.job_id == lease.job_id)
            .values(seen_at=func.now() - timedelta(seconds=seconds))
        )


def test_an_attempt_that_died_shares_its_host_until_it_died(database: Database, settings: Settings) -> None:
    host = Host(database)
    living, dying = host.start(), host.start()
    show_life(database, dying, host, at=20)
    lose(database, dying, settings)
    host.seconds = 60
    host.meter(living, 0)
    assert billed(database, living) == pytest.approx(CPU_W * (20 / 2 + 40))


def test_the_share_left_to_a_dead_attempt_until_it_was_reclaimed_is_idle_energy(
    database: Database, settings: Settings
) -> None:
    host = Host(database)
    living, dying = host.start(), host.start()
    host.seconds = 60
    host.meter(dying, 0)
    show_life(database, dying, host, at=60)
    seen_ago(database, dying, 50)
    host.seconds = 110
    host.meter(living, 0)
    lose(database, dying, settings)
    assert idle(database) == pytest.approx(CPU_W / 2 * 50, rel=0.05)
    assert idle(database, "ram") == pytest.approx(RAM_W / 2 * 50, rel=0.05)
    with database.session() as session:
        assert session.get_one(Job, living.job_id).status is JobStatus.RUNNING


@pytest.mark.parametrize("stored", [40, 75, 90])
@pytest.mark.parametrize("gpus", [(), ("a", "b", "c")])
def test_a_host_with_a_dead_attempt_is_billed_once_whenever_the_others_stored_their_energy(
    database: Database, settings: Settings, stored: float, gpus: Sequence[str]
) -> None:
    """One attempt dies at second 40 and is reclaimed 60 s later; the other's energy is stored up to `stored`."""
    host = Host(database)
    living, dying = host.start(*gpus), host.start()
    host.seconds = 40
    host.meter(dying, 0)
    show_life(database, dying, host, at=40)
    host.meter(living, 0)
    if stored > 40:
        host.seconds = stored
        host.meter(living, 40)
    seen_ago(database, dying, 60)
    lose(database, dying, settings)
    host.seconds = 150
    host.meter(living, stored)
    for component, watts in (("cpu", CPU_W), ("ram", RAM_W)):
        jobs = billed(database, living, component) + billed(database, dying, component)
        assert jobs + idle(database, component) == pytest.approx(watts * 150)


def test_a_failed_attempt_leaves_its_host_too(database: Database) -> None:
    host = Host(database)
    staying, failing = host.start(), host.start()
    show_life(database, failing, host, at=30)
    with database.session() as session:
        job = JobRepository(session).lock(failing.job_id)
        assert job is not None
        transition(session, job, JobStatus.FAILED, at=NOON)
    host.seconds = 60
    host.meter(staying, 0)
    assert billed(database, staying) == pytest.approx(CPU_W * 45)


def test_codecarbons_total_is_compared_with_the_attempts_share(database: Database) -> None:
    host = Host(database)
    first, _ = host.start(), host.start()
    host.seconds = 60
    host.meter(first, 0)
    whole_kwh = (CPU_W + RAM_W) * 60 / JOULES_PER_KWH
    with database.session() as session:
        metering.close_meter(session, first, at=NOON, tracker_kwh=whole_kwh)
        job = session.get_one(Job, first.job_id)
        assert job.tracker_kwh == pytest.approx(job.energy_kwh) == pytest.approx(whole_kwh / 2)
        assert "energy.differs" not in [event.type for event in JobRepository(session).events(job.id, limit=10).data]


def test_idle_energy_is_counted_once_however_many_workers_sample_it(database: Database) -> None:
    host = Host(database)
    host.seconds = 60
    host.store_idle(host.sample(0))
    host.store_idle(host.sample(10))
    host.seconds = 90
    host.store_idle(host.sample(30))
    assert idle(database) == pytest.approx(CPU_W * 90)


def test_gpus_that_no_job_holds_are_idle_while_others_compute(database: Database) -> None:
    host = Host(database)
    holder = host.start("GPU-a")
    host.seconds = 60
    host.store_idle(host.sample(0, gpu_w={"GPU-a": 700, "GPU-b": 70}))
    host.meter(holder, 0)
    assert idle(database) == 0
    assert idle(database, "gpu") == pytest.approx(70 * 60)


def test_a_sample_that_jobs_used_in_part_is_idle_at_the_power_of_an_idle_one(database: Database) -> None:
    host = Host(database)
    host.seconds = 60
    host.store_idle(host.sample(0, cpu_w=50))
    host.seconds = 90
    job = host.start()
    host.seconds = 120
    host.store_idle(host.sample(60, cpu_w=125))
    host.meter(job, 90)
    assert idle(database) == pytest.approx(50 * 90)


def test_samples_wait_while_it_is_unknown_whether_an_attempt_runs(database: Database, settings: Settings) -> None:
    host = Host(database)
    dying = host.start()
    show_life(database, dying, host, at=30)
    seen_ago(database, dying, 40)
    host.seconds = 60
    first = host.sample(0)
    host.seconds = 120
    second = host.sample(60)
    assert host.store_idle(first, second) == 0
    lose(database, dying, settings)
    assert host.store_idle(first, second) == 2
    assert idle(database) == pytest.approx(CPU_W * 90)


def test_jobs_of_two_hosts_are_reclaimed_while_others_there_store_their_energy(
    database: Database, settings: Settings
) -> None:
    hosts = [Host(database, "boot-1"), Host(database, "boot-2")]
    lost = [host.start() for host in hosts]
    stay = [host.start() for host in hosts]
    faults: list[BaseException] = []

    def store(host: Host, lease: Lease) -> None:
        try:
            for second in range(40):
                host.seconds = float(second + 1)
                host.meter(lease, float(second))
        except BaseException as fault:  # noqa: BLE001  (a thread's error would otherwise be lost)
            faults.append(fault)

    threads = [Thread(target=store, args=pair) for pair in zip(hosts, stay, strict=True)]
    for lease in lost:
        with database.session() as session:
            renew(session, lease, lease_seconds=60, unstored=UnreportedPeriod(NOON, 50), host_seconds=0)
        backdate_lease(database, lease.job_id)
    for thread in threads:
        thread.start()
    reclaim_lost_jobs(database, settings, at=NOON)
    for thread in threads:
        thread.join()
    assert faults == []
    assert all(billed(database, lease) > 0 for lease in (*lost, *stay))
