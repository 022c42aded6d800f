"""ETA of simulated runs, on a real database."""

import random
from datetime import UTC, datetime, timedelta

import pytest

from greencore.clock import HOUR
from planning.epoch_estimate import EpochEstimate
from planning.eta import Eta, QueueBacklog, compute_running_eta, compute_waiting_eta, load_queue_backlog, update_eta
from store.database import Database
from store.lifecycle.status import JobStatus
from store.lifecycle.transitions import transition
from store.repositories.jobs import JobRepository
from store.tables import Event, Job, Step
from tests.scheduler.stage import START, add_job, claim_as_worker, read_job

SECOND = timedelta(seconds=1)


def run_of(database: Database, *, epochs: int, steps: int, startup: float = 5.0, **columns: object) -> str:
    """A job whose training has just begun."""
    job_id = add_job(database, zone="FR", hours=1.0, epochs=epochs, policy=columns.pop("policy", None))  # type: ignore[arg-type]
    claim_as_worker(database, job_id, at=START - startup * SECOND)
    with database.session() as session:
        job = JobRepository(session).lock(job_id)
        assert job is not None
        job.steps, job.rho = steps, 0.6
        session.add(Event(job_id=job_id, at=START, type="training.started", data={}))
    return job_id


def live(database: Database, job_id: str, generator: random.Random, *, mean: float, end_of_epoch: float) -> list[Eta]:
    """Take all steps; return the ETA at each tenth of them, with the real end as `at` of the last."""
    with database.session() as session:
        job = JobRepository(session).lock(job_id)
        assert job is not None
        assert job.steps is not None
        now, found, per_epoch = START, [], job.steps // job.epochs
        # Machines have slow and fast stretches: each fifth of a run has a different speed.
        stretches = [generator.lognormvariate(0, 0.08) for _ in range(6)]
        for number in range(1, job.steps + 1):
            stretch = stretches[number * 5 // job.steps]
            now += mean * stretch * generator.lognormvariate(0, 0.2) * SECOND
            session.add(Step(job_id=job_id, number=number, at=now, loss=1.0))
            job.steps_done = number
            if number % per_epoch == 0:
                now += end_of_epoch * SECOND
                job.epochs_done += 1
            if number % max(job.steps // 10, 1) == 0:
                session.flush()
                expected = compute_running_eta(session, job, at=now)
                if expected is not None:
                    found.append(expected)
    return found


def test_the_interval_contains_the_real_end_of_most_runs_and_narrows(database: Database) -> None:
    generator, held, asked, early, late = random.Random(7), 0, 0, [], []
    for _ in range(12):
        job_id = run_of(database, epochs=3, steps=90)
        found = live(database, job_id, generator, mean=20.0, end_of_epoch=30.0)
        # The end includes an evaluation, as the start did.
        end = found[-1].at + generator.uniform(2, 8) * SECOND
        held += sum(eta.earliest <= end <= eta.latest for eta in found)
        asked += len(found)
        early.append(abs((found[0].finishes_at - end).total_seconds()))
        late.append(abs((found[-2].finishes_at - end).total_seconds()))
    assert held / asked > 0.85
    assert sum(late) < sum(early) / 2


def test_a_run_that_may_stop_early_may_end_at_once(database: Database) -> None:
    plain, stopping = (run_of(database, epochs=2, steps=60) for _ in range(2))
    with database.session() as session:
        session.get_one(Job, stopping).hyperparameters = {"early_stopping": {"patience": 2, "min_gain": 0.0}}
    [whole, early] = (
        live(database, job_id, random.Random(1), mean=20.0, end_of_epoch=2.0)[2] for job_id in (plain, stopping)
    )

    assert (early.finishes_at, early.latest) == (whole.finishes_at, whole.latest)
    assert early.earliest < whole.earliest
    assert early.earliest - early.at < timedelta(seconds=5)
    assert "may stop early" in early.basis
    assert "may stop early" not in whole.basis


def test_the_interval_narrows_towards_the_end(database: Database) -> None:
    found = live(database, run_of(database, epochs=2, steps=60), random.Random(1), mean=1.0, end_of_epoch=2.0)

    widths = [(eta.latest - eta.earliest).total_seconds() for eta in found]
    assert widths[-1] < widths[len(widths) // 2] < widths[0]
    assert (found[0].latest - found[0].earliest) < timedelta(seconds=200)


def test_a_policy_with_a_range_of_rho_widens_the_interval(database: Database) -> None:
    linear = {"kind": "linear", "clean": 100, "dirty": 400, "rho_max": 1.0, "rho_min": 0.3}
    constant, varying = (
        live(database, run_of(database, epochs=4, steps=40, policy=policy), random.Random(1), mean=1.0, end_of_epoch=0)
        for policy in (None, linear)
    )
    # The first ETA is computed in the first of four epochs, with 36 steps left, 30 of them in later epochs.
    assert varying[0].finishes_at == constant[0].finishes_at
    assert varying[0].latest - constant[0].latest > 15 * SECOND
    assert constant[0].earliest - varying[0].earliest > 0 * SECOND


def test_steps_of_a_lost_attempt_do_not_count(database: Database) -> None:
    job_id = run_of(database, epochs=1, steps=100)
    with database.session() as session:
        job = JobRepository(session).lock(job_id)
        assert job is not None
        session.add_all(Step(job_id=job_id, number=n, at=START + n * SECOND, loss=1.0) for n in range(1, 51))
        again = START + 10 * HOUR
        session.add(Event(job_id=job_id, at=again, type="training.started", data={}))
        job.steps_done = 51
        session.add(Step(job_id=job_id, number=51, at=again + SECOND, loss=1.0))
        session.flush()
        assert compute_running_eta(session, job, at=again + SECOND) is None
        session.add_all(Step(job_id=job_id, number=n, at=again + (n - 50) * SECOND, loss=1.0) for n in range(52, 61))
        job.steps_done = 60
        session.flush()
        found = compute_running_eta(session, job, at=again + 10 * SECOND)
    assert found is not None
    assert found.finishes_at == again + (10 + 40 + 5) * SECOND


def test_an_eta_that_has_hardly_moved_is_not_written(database: Database) -> None:
    job = Job(eta=None)
    hour = Eta(START + HOUR, START + 0.8 * HOUR, START + 1.5 * HOUR, "b", START)
    update_eta(job, hour)
    assert job.eta == hour.to_json()

    later = START + timedelta(minutes=1)
    update_eta(job, Eta(START + 1.01 * HOUR, START + 0.8 * HOUR, START + 1.5 * HOUR, "b", later))
    update_eta(job, None)
    assert Eta.from_json(job.eta) == hour

    moved = Eta(START + 1.1 * HOUR, START + 0.8 * HOUR, START + 1.5 * HOUR, "b", later)
    update_eta(job, moved)
    assert Eta.from_json(job.eta) == moved


def test_a_waiting_jobs_eta_includes_the_queue_before_it(database: Database) -> None:
    """Two workers; 2 h remain of the running job (half of 4 h), and 4 h are queued: (2 + 4) / 2 = 3 h of waiting."""
    claim_as_worker(database, add_job(database, zone="FR", hours=4.0, steps=10, steps_done=5), at=START)
    add_job(database, zone="FR", hours=4.0)
    add_job(database, zone="NO", hours=100.0)
    add_job(database, JobStatus.QUEUED, zone="FR", hours=50.0, priority=-1)
    mine = add_job(database, zone="FR", hours=1.0)
    epoch_estimate = EpochEstimate(1.0, 0.06, 0.0, "its own epochs", spread=1.5)
    with database.session() as session:
        job = JobRepository(session).lock(mine)
        assert job is not None
        queue = load_queue_backlog(session, "FR", priority=0, job_id=mine)
        found = compute_waiting_eta(session, job, epoch_estimate, gpus=2, at=START)
    assert (queue.running, queue.ahead) == (1, 1)
    assert found is not None
    assert (found.finishes_at - START) / HOUR == pytest.approx(3 + 0.6)
    assert (found.earliest - START) / HOUR == pytest.approx((3 + 0.6) / 1.5)
    assert (found.latest - START) / HOUR == pytest.approx((3 + 0.6) * 1.5)
    assert "1 running and 1 queued jobs before it" in found.basis


def test_a_waiting_jobs_eta_counts_the_devices_of_jobs_on_several(database: Database) -> None:
    """Of four devices three run a job of 6 device hours; then the two that are wanted are free."""
    claim_as_worker(database, add_job(database, zone="FR", hours=6.0, gpus=3, rho=1.0), at=START)
    mine = add_job(database, zone="FR", hours=2.0, gpus=2)
    on_two = EpochEstimate(1.0, 0.06, 0.0, "its own epochs")
    with database.session() as session:
        job = session.get_one(Job, mine)
        found, with_more = (compute_waiting_eta(session, job, on_two, gpus=gpus, at=START) for gpus in (4, 5))
    assert found is not None
    assert with_more is not None
    assert (found.finishes_at - START) / HOUR == pytest.approx(6 / 4 + 0.6)
    assert (with_more.finishes_at - START) / HOUR == pytest.approx(0.6)
    assert found.basis.endswith("1 running and 0 queued jobs before it, on 4 devices")


def test_a_paused_jobs_eta_has_the_evaluations_of_the_steps_left(database: Database) -> None:
    job_id = add_job(database, zone="FR", hours=1.0, steps=10, steps_done=5)
    found = EpochEstimate(1.0, 0.06, 0.1, "its own epochs", outside_hours=0.2).with_evaluations(2.0, 0.1)
    with database.session() as session:
        eta = compute_waiting_eta(session, session.get_one(Job, job_id), found, gpus=1, at=START)
    assert eta is not None
    assert (eta.finishes_at - START) / HOUR == pytest.approx(0.5 * 0.6 + 0.2 + 1.0)


def test_a_free_worker_means_no_waiting_time() -> None:
    assert QueueBacklog(running=1, ahead=0, flops=1e15, gpus=1).wait_hours(1e-15, of_gpus=2) == 0
    assert QueueBacklog(running=1, ahead=1, flops=1e15, gpus=2).wait_hours(1e-15, of_gpus=2) == 0.5


def test_a_job_on_two_devices_waits_until_both_are_free() -> None:
    one_runs = QueueBacklog(running=1, ahead=0, flops=1e15, gpus=1)
    assert one_runs.wait_hours(1e-15, of_gpus=3, wanted=2) == 0
    assert one_runs.wait_hours(1e-15, of_gpus=2, wanted=2) == 0.5


def test_a_finished_job_has_no_eta(database: Database) -> None:
    job_id = add_job(database, zone="FR")
    with database.session() as session:
        job = JobRepository(session).lock(job_id)
        assert job is not None
        update_eta(job, Eta(START, START, START, "b", datetime(2026, 1, 1, tzinfo=UTC)))
        transition(session, job, JobStatus.CANCELLED, at=START)
    assert read_job(database, job_id).eta is None
