"""A job's savings, computed by hand: each has one cause, and lost energy is no saving."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from greencore.carbon import Basis, Reading
from greencore.carbon.accounting.pricing import price_by_reading
from greencore.clock import HOUR
from greencore.energy import EnergyInterval
from runtime.settings import Settings
from scheduler.settlement import settle_prices, store_counterfactuals
from store.database import Database
from store.intensity.readings import GridRepository
from store.lifecycle import progress
from store.lifecycle.actions import request_action
from store.lifecycle.leases import Lease, claim
from store.lifecycle.progress import StepLoss
from store.lifecycle.status import Action, JobStatus
from store.lifecycle.transitions import transition
from store.repositories.jobs import JobRepository
from store.tables import Epoch, Job
from tests.scheduler.stage import START, add_job, read_job

pytestmark = pytest.mark.fault(number=13)

READING = Reading(zone="FR", start=START, end=START + HOUR, gco2e_per_kwh=0, source="test", fetched_at=START)
LINES = ("less_work", "moved_in_time", "queueing", "owner_pause", "lost_work")


class Scene:
    """A job in France, ready at hour 0, and methods that move it on; each reading lasts an hour."""

    def __init__(self, database: Database, settings: Settings, *gco2e_per_kwh: float) -> None:
        self.database, self.settings = database, settings
        self.job_id = add_job(database, zone="FR", signal="average")
        with database.session() as session:
            GridRepository(session).put(
                replace(READING, start=hour(number), end=hour(number + 1), gco2e_per_kwh=value)
                for number, value in enumerate(gco2e_per_kwh)
            )

    def claimed(self, at: float, *, steps_done: int | None = None, epochs_done: int = 0, loaded: float = 0.0) -> Lease:
        """Claim the job; its training starts `loaded` hours later, from a checkpoint's steps; never where None."""
        with self.database.session() as session:
            lease = claim(session, self.job_id, worker_id="w", device="cpu", at=hour(at), lease_seconds=30 * 86_400)
            assert lease is not None
            if steps_done is not None:
                progress.start_training(
                    session,
                    lease,
                    at=hour(at + loaded),
                    steps=10,
                    steps_done=steps_done,
                    epochs_done=epochs_done,
                    precision="fp32",
                )
        return lease

    def used(
        self, lease: Lease, epoch: int, begins: float, ends: float, kwh: float, *, pue: float = 1.0, zone: str = "FR"
    ) -> None:
        interval = EnergyInterval(hour(begins), hour(ends), kwh, 0.0, 0.0, "RAPL", "none", "none")
        with self.database.session() as session:
            series = GridRepository(session).series_with_fallback(
                zone, Basis(), interval.start, interval.end, self.settings
            )
            progress.add_energy(session, lease, epoch, interval, price_by_reading(interval, series, pue=pue))

    def stepped(self, lease: Lease, number: int, at: float) -> None:
        with self.database.session() as session:
            taken = [StepLoss(number, hour(at), 1.0)]
            progress.report_step(session, lease, steps=10, steps_done=number, loss=1.0, taken=taken)

    def epoch(self, lease: Lease, begins: float, ends: float | None, *, number: int = 1, share: float = 0.5) -> None:
        with self.database.session() as session:
            session.merge(
                Epoch(
                    job_id=self.job_id,
                    number=number,
                    attempt=lease.attempt,
                    started_at=hour(begins),
                    finished_at=None if ends is None else hour(ends),
                    rho_asked=share,
                    reason="",
                    intensity_estimated=False,
                    flops=None if ends is None else share * 1e15,
                    full_flops=None if ends is None else 1e15,
                )
            )

    def moved(self, to: JobStatus, at: float, **data: Any) -> None:
        with self.database.session() as session:
            transition(session, self.locked(session), to, at=hour(at), **data)

    def gate_closed(self, lease: Lease, at: float) -> None:
        with self.database.session() as session:
            job = self.locked(session)
            job.control = "defer"
            JobRepository(session).record(job.id, "gate.closed", at=hour(at), reason="dirty")
            session.flush()
            progress.release_job(session, lease, at=hour(at))

    def asked(self, action: Action, at: float) -> None:
        with self.database.session() as session:
            request_action(session, self.locked(session), action, by="alice", at=hour(at))

    def succeeded(self, lease: Lease, at: float) -> Mapping[str, Any]:
        """End the job with its result, and return its account."""
        with self.database.session() as session:
            progress.succeed(session, lease, at=hour(at), artifacts=[], evaluation={})
        return self.account(at)

    def account(self, at: float) -> Mapping[str, Any]:
        settle_prices(self.database, self.settings, at=hour(at + 1))
        store_counterfactuals(self.database, self.settings, at=hour(at + 1))
        found = self.job.counterfactuals
        assert found is not None
        if "full_now" in found:
            full = found["full_now"]["emissions_gco2e"]
            whole = sum(found[f"{line}_saving"] for line in LINES)
            assert whole == pytest.approx((full - self.job.emissions_gco2e) / full), "the savings are the whole saving"
        return found

    @property
    def job(self) -> Job:
        return read_job(self.database, self.job_id)

    def locked(self, session: Any) -> Job:
        job = JobRepository(session).lock(self.job_id)
        assert job is not None
        return job


def hour(number: float) -> datetime:
    return START + number * HOUR


def lines(found: Mapping[str, Any]) -> dict[str, float]:
    """The savings that are not 0, by name."""
    return {line: found[f"{line}_saving"] for line in LINES if found[f"{line}_saving"] != 0}


@pytest.fixture
def stage(database: Database, settings: Settings) -> Any:
    return lambda *gco2e_per_kwh: Scene(database, settings, *gco2e_per_kwh)


def test_energy_outside_of_epochs_does_not_grow_with_the_flops(stage: Any) -> None:
    scene = stage(*[100] * 8)
    lease = scene.claimed(0, steps_done=0, loaded=1)
    scene.used(lease, 0, 0, 1, 1.0)  # loading
    scene.used(lease, 1, 1, 2, 1.0)
    scene.epoch(lease, 1, 2)
    found = scene.succeeded(lease, 2)
    assert found["full_now"]["energy_kwh"] == pytest.approx(1 + 2)
    assert found["full_now"]["hours"] == pytest.approx(1 + 2)
    assert found["full_now"]["emissions_gco2e"] == pytest.approx(300)
    assert found["constant_now"]["emissions_gco2e"] == pytest.approx(200)
    assert lines(found) == {"less_work": pytest.approx(1 / 3)}


def test_energy_of_the_final_evaluation_does_not_grow_with_the_flops(stage: Any) -> None:
    scene = stage(*[100] * 8)
    lease = scene.claimed(0, steps_done=0)
    scene.used(lease, 1, 0, 1, 1.0)
    scene.used(lease, 0, 1, 3, 4.0)
    scene.epoch(lease, 0, 1, share=0.25)
    found = scene.succeeded(lease, 3)
    assert found["full_now"]["energy_kwh"] == pytest.approx(4 + 4)
    assert lines(found) == {"less_work": pytest.approx(3 / 8)}


@pytest.mark.parametrize("recorded", [True, False])
def test_an_attempt_that_was_lost_is_a_loss(stage: Any, recorded: bool) -> None:
    """1 kWh lost, 1 kWh taken again at 62.5 %: full is 1.6, what was emitted 2; 37.5 % less work, −62.5 % lost."""
    scene = stage(*[100] * 8)
    steps_done = 0 if recorded else None
    first = scene.claimed(0, steps_done=steps_done)
    scene.epoch(first, 0, None, share=0.625)
    scene.used(first, 1, 0, 1, 1.0)
    scene.moved(JobStatus.QUEUED, 1, lost=1)
    second = scene.claimed(1, steps_done=steps_done)
    scene.epoch(second, 1, 2, share=0.625)
    scene.used(second, 1, 1, 2, 1.0)
    found = scene.succeeded(second, 2)
    assert found["full_now"]["emissions_gco2e"] == pytest.approx(160)
    assert found["constant_now"]["emissions_gco2e"] == pytest.approx(100)
    assert found["constant_now"]["hours"] == pytest.approx(1)
    assert lines(found) == {"less_work": pytest.approx(0.375), "lost_work": pytest.approx(-0.625)}
    assert sum(lines(found).values()) == pytest.approx(-0.25)


def test_only_work_after_the_checkpoint_is_lost_and_loading_again(stage: Any) -> None:
    scene = stage(*[100] * 12)
    first = scene.claimed(0, steps_done=0, loaded=1)
    scene.used(first, 0, 0, 1, 1.0)
    scene.epoch(first, 1, None)
    scene.used(first, 1, 1, 5, 4.0)
    scene.stepped(first, 5, 4)  # the checkpoint; one hour's work is not in it
    scene.moved(JobStatus.QUEUED, 5, lost=1)
    second = scene.claimed(5, steps_done=5, loaded=2)
    scene.used(second, 0, 5, 7, 2.0)  # loaded again
    scene.used(second, 1, 7, 9, 2.0)
    scene.epoch(second, 1, 9)
    found = scene.succeeded(second, 9)
    # In the result: 1 kWh of loading and 3 + 2 of the epoch at a half; lost: 1 of the epoch and 2 of loading.
    assert found["constant_now"]["energy_kwh"] == pytest.approx(6)
    assert found["full_now"]["energy_kwh"] == pytest.approx(1 + 10)
    assert lines(found) == {"less_work": pytest.approx(5 / 11), "lost_work": pytest.approx(-3 / 11)}


def test_lost_work_that_delays_the_rest_to_cleaner_hours_is_no_saving_in_time(stage: Any) -> None:
    scene = stage(400, 100, 100, 100)
    first = scene.claimed(0, steps_done=0)
    scene.epoch(first, 0, None, share=1.0)
    scene.used(first, 1, 0, 1, 1.0)
    scene.moved(JobStatus.QUEUED, 1, lost=1)
    second = scene.claimed(1, steps_done=0)
    scene.epoch(second, 1, 2, share=1.0)
    scene.used(second, 1, 1, 2, 1.0)
    # 400 at once; 400 lost and 100 emitted: lost work cost 400 and put 1 kWh where it emits 300 less.
    assert lines(scene.succeeded(second, 2)) == {"lost_work": pytest.approx(-100 / 400)}


def test_training_that_was_done_is_kept_where_the_evaluation_after_it_was_lost(stage: Any) -> None:
    scene = stage(*[100] * 12)
    first = scene.claimed(0, steps_done=0)
    scene.epoch(first, 0, 2)
    scene.used(first, 1, 0, 2, 2.0)
    scene.stepped(first, 10, 2)
    scene.used(first, 0, 2, 3, 1.0)  # evaluated in part
    scene.moved(JobStatus.QUEUED, 3, lost=1)
    with_result = scene.claimed(3)
    scene.used(with_result, 0, 3, 5, 2.0)
    found = scene.succeeded(with_result, 5)
    assert found["full_now"]["energy_kwh"] == pytest.approx(4 + 2)
    assert lines(found) == {"less_work": pytest.approx(2 / 6), "lost_work": pytest.approx(-1 / 6)}


def test_waiting_for_a_worker_moves_nothing_in_time(stage: Any) -> None:
    scene = stage(400, 400, 100, 100, 100)
    lease = scene.claimed(2, steps_done=0)
    scene.epoch(lease, 2, 3, share=1.0)
    scene.used(lease, 1, 2, 3, 1.0)
    assert lines(scene.succeeded(lease, 3)) == {"queueing": pytest.approx(0.75)}


def test_waiting_for_a_worker_into_dirtier_hours_is_below_zero(stage: Any) -> None:
    scene = stage(100, 100, 300, 300)
    lease = scene.claimed(2, steps_done=0)
    scene.epoch(lease, 2, 3)
    scene.used(lease, 1, 2, 3, 1.0)
    assert lines(scene.succeeded(lease, 3)) == {"less_work": 0.5, "queueing": pytest.approx(-200 / 200)}


def test_a_gate_and_a_queue_one_after_the_other_have_a_line_each(stage: Any) -> None:
    scene = stage(400, 200, 100, 100)
    scene.moved(JobStatus.DEFERRED, 0)
    scene.moved(JobStatus.QUEUED, 1)  # the gate has opened; a worker takes it an hour later
    lease = scene.claimed(2, steps_done=0)
    scene.epoch(lease, 2, 3, share=1.0)
    scene.used(lease, 1, 2, 3, 1.0)
    # Without the gate it would have run an hour earlier, at 200; without the queue as well at 400.
    found = scene.succeeded(lease, 3)
    assert lines(found) == {"moved_in_time": pytest.approx(0.25), "queueing": pytest.approx(0.5)}


def test_a_pause_by_the_gate_is_moved_in_time_with_what_loading_again_costs(stage: Any) -> None:
    scene = stage(100, 400, 400, 100, 100)
    first = scene.claimed(0, steps_done=0)
    scene.epoch(first, 0, None, share=1.0)
    scene.used(first, 1, 0, 1, 1.0)
    scene.stepped(first, 5, 1)
    scene.gate_closed(first, 1)
    scene.moved(JobStatus.DEFERRED, 1)
    scene.moved(JobStatus.QUEUED, 3)
    second = scene.claimed(3, steps_done=5, loaded=0.5)
    scene.used(second, 0, 3, 3.5, 0.5)
    scene.used(second, 1, 3.5, 4.5, 1.0)
    scene.epoch(second, 0, 4.5, share=1.0)
    found = scene.succeeded(second, 4.5)
    # At once: 100 + 400. As it was: 200, and 50 for loading again.
    assert found["full_now"]["emissions_gco2e"] == pytest.approx(500)
    assert lines(found) == {"moved_in_time": pytest.approx((500 - 250) / 500)}


def test_a_pause_by_the_owner_is_neither_the_gates_nor_the_queues(stage: Any) -> None:
    scene = stage(400, 400, 100, 100, 100)
    first = scene.claimed(0, steps_done=0)
    scene.epoch(first, 0, None, share=1.0)
    scene.used(first, 1, 0, 1, 1.0)
    scene.stepped(first, 5, 1)
    scene.asked(Action.PAUSE, 1)
    scene.moved(JobStatus.PAUSED, 1)
    scene.asked(Action.RESUME, 2)
    second = scene.claimed(2, steps_done=5)
    scene.used(second, 1, 2, 3, 1.0)
    scene.epoch(second, 0, 3, share=1.0)
    assert lines(scene.succeeded(second, 3)) == {"owner_pause": pytest.approx(300 / 800)}


def test_the_time_until_a_retry_is_the_owners_and_the_work_of_the_failed_attempt_is_lost(stage: Any) -> None:
    scene = stage(400, 400, 100, 100)
    first = scene.claimed(0, steps_done=0)
    scene.epoch(first, 0, None, share=1.0)
    scene.used(first, 1, 0, 1, 1.0)
    scene.moved(JobStatus.FAILED, 1, reason="it broke")
    assert "failed without a result" in scene.account(1)["missing"]
    with scene.database.session() as session:
        scene.locked(session).estimate = {"full_flops": 1.0}
    scene.asked(Action.RETRY, 2)
    second = scene.claimed(2, steps_done=0)
    scene.epoch(second, 2, 3, share=1.0)
    scene.used(second, 1, 2, 3, 1.0)
    # 400 at once. Lost: 400, and the hour that it took moved nothing; the owner's hour moved 1 kWh from 400 to 100.
    found = scene.succeeded(second, 3)
    assert lines(found) == {"owner_pause": pytest.approx(0.75), "lost_work": pytest.approx(-1.0)}


@pytest.mark.parametrize(
    ("to", "words"), [(JobStatus.FAILED, "failed without a result"), (JobStatus.CANCELLED, "was cancelled")]
)
def test_a_job_without_a_result_has_saved_nothing(stage: Any, to: JobStatus, words: str) -> None:
    scene = stage(*[100] * 8)
    lease = scene.claimed(0, steps_done=0)
    scene.epoch(lease, 0, 1)
    scene.used(lease, 1, 0, 1, 1.0)
    if to is JobStatus.CANCELLED:
        scene.asked(Action.CANCEL, 1)
    scene.moved(to, 1)
    found = scene.account(1)
    assert words in found["missing"]
    assert list(found) == ["missing"]
    assert scene.job.emissions_gco2e == pytest.approx(100)
    assert scene.job.settled_at is not None


def test_counterfactuals_have_the_pue_of_the_sites_that_the_job_ran_at(
    database: Database, settings: Settings, stage: Any
) -> None:
    scene = stage(*[100] * 8)
    lease = scene.claimed(0, steps_done=0)
    scene.epoch(lease, 0, 2)
    scene.used(lease, 1, 0, 1, 3.0, pue=1.2)
    scene.used(lease, 1, 1, 2, 1.0, pue=2.0)
    found = scene.succeeded(lease, 2)
    drawn_kwh = 3 * 1.2 + 1 * 2.0
    assert scene.job.emissions_gco2e == pytest.approx(100 * drawn_kwh)
    for name, times in (("full_now", 2), ("constant_now", 1), ("oracle", 1)):
        assert found[name]["emissions_gco2e"] == pytest.approx(times * 100 * drawn_kwh)
    assert lines(found) == {"less_work": pytest.approx(0.5)}


def test_the_cost_of_the_probe_is_no_saved_work(stage: Any, database: Database) -> None:
    scene = stage(*[100] * 8)
    lease = scene.claimed(0, steps_done=0)
    scene.epoch(lease, 0, 1, share=0.5)
    with database.session() as session:
        session.get_one(Epoch, (scene.job_id, 1)).probe_flops = 0.3e15
    scene.used(lease, 1, 0, 1, 0.8)
    assert lines(scene.succeeded(lease, 1)) == {"less_work": pytest.approx(0.2)}


def test_an_account_is_priced_on_the_jobs_basis(stage: Any, database: Database) -> None:
    scene = stage(*[100] * 8)
    lease = scene.claimed(0, steps_done=0)
    scene.epoch(lease, 0, 1)
    scene.used(lease, 1, 0, 1, 1.0)
    settle_prices(database, scene.settings, at=hour(2))
    with database.session() as session:  # revised after its price was final
        rows = GridRepository(session).readings_between("FR", Basis(), hour(0), hour(8))
        GridRepository(session).put(replace(row, gco2e_per_kwh=150) for row in rows)
    found = scene.succeeded(lease, 1)
    assert found["constant_now"]["emissions_gco2e"] == pytest.approx(100)
    assert lines(found) == {"less_work": pytest.approx(0.5)}


def test_energy_priced_after_the_end_is_accounted_for_then(stage: Any) -> None:
    scene = stage()
    scene.job_id = add_job(scene.database, zone="site-7", signal="average")
    lease = scene.claimed(0, steps_done=0)
    scene.epoch(lease, 0, 1)
    scene.used(lease, 1, 0, 1, 1.0, zone="site-7")
    assert "1 of its 1 kWh have no price" in scene.succeeded(lease, 1)["missing"]
    estimate = replace(READING, zone="site-7", end=hour(8), gco2e_per_kwh=300, estimated=True)
    with scene.database.session() as session:
        GridRepository(session).put([estimate])
    found = scene.account(1)
    assert scene.job.settled_at is None
    assert found["constant_now"]["emissions_gco2e"] == pytest.approx(300)
    assert lines(found) == {"less_work": pytest.approx(0.5)}
