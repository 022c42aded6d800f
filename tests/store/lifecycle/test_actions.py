"""Actions on a job follow the table of transitions, whatever else happens to the job meanwhile."""

from collections.abc import Callable
from datetime import timedelta
from random import Random
from threading import Barrier, Thread

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from greencore.clock import HOUR
from greencore.policy import RhoDecision
from planning.epoch_estimate import EpochEstimate
from runtime.settings import Settings
from scheduler.job_gate import evaluate_job_gate
from store.database import Database
from store.lifecycle import progress
from store.lifecycle.actions import ActionRefused, list_possible_actions, request_action
from store.lifecycle.evaluations import MeasuredEvaluation, record_early_stop, record_evaluation
from store.lifecycle.leases import Lease, LeaseLost, claim
from store.lifecycle.status import ACTION_TRANSITIONS, ALLOWED_TRANSITIONS, FINAL, HELD_BY_A_WORKER, Action, JobStatus
from store.lifecycle.transitions import TransitionRefused, transition
from store.repositories.jobs import JobRepository
from store.tables import Dataset, Epoch, Job
from tests.scheduler.stage import START, add_job, claim_as_worker, events, read_job

LATER = START + 48 * HOUR


def do(database: Database, job_id: str, action: Action, *, by: str = "alice") -> None:
    with database.session() as session:
        job = JobRepository(session).lock(job_id)
        assert job is not None
        request_action(session, job, action, by=by, at=LATER)


def put(database: Database, job_id: str, **columns: object) -> None:
    with database.session() as session:
        session.execute(update(Job).where(Job.id == job_id).values(**columns))


def failed(database: Database, **columns: object) -> str:
    """Add a job that failed in the middle of its first attempt."""
    job_id = add_job(database, zone="FR", hours=1.0)
    lease = claim_as_worker(database, job_id, at=START)
    with database.session() as session:
        progress.report_step(session, lease, steps=10, steps_done=4, loss=1.0)
        progress.fail(session, lease, at=START + HOUR, error={"title": "Full", "detail": "the disk is full"})
    put(database, job_id, energy_kwh=0.5, **columns)
    return job_id


def test_every_transition_of_an_action_is_allowed() -> None:
    for targets in ACTION_TRANSITIONS.values():
        for current, to in targets.items():
            assert to in ALLOWED_TRANSITIONS[current]
    assert all(JobStatus.VALIDATING in ALLOWED_TRANSITIONS[current] for current in ACTION_TRANSITIONS[Action.RETRY])
    assert set(ACTION_TRANSITIONS) == set(Action)


def test_a_job_that_no_worker_holds_is_cancelled_at_once(database: Database) -> None:
    for status in (JobStatus.VALIDATING, JobStatus.QUEUED, JobStatus.DEFERRED, JobStatus.PAUSED):
        job_id = add_job(database, JobStatus.VALIDATING if status is JobStatus.VALIDATING else JobStatus.QUEUED)
        put(database, job_id, status=status)
        do(database, job_id, Action.CANCEL)
        job = read_job(database, job_id)
        assert (job.status, job.finished_at, job.control) == (JobStatus.CANCELLED, LATER, "run")
        assert events(database, job_id)[-1].data["by"] == "alice"


def test_a_worker_that_holds_a_job_is_asked_to_pause_and_then_to_cancel(database: Database) -> None:
    job_id = add_job(database, zone="FR")
    lease = claim_as_worker(database, job_id, at=START)
    do(database, job_id, Action.PAUSE)
    job = read_job(database, job_id)
    assert (job.status, job.control, job.control_at) == (JobStatus.PAUSING, "pause", LATER)
    assert job.lease_token == lease.token
    do(database, job_id, Action.CANCEL)
    job = read_job(database, job_id)
    assert (job.status, job.control) == (JobStatus.CANCELLING, "cancel")
    with database.session() as session:
        progress.release_job(session, lease, at=LATER)
    job = read_job(database, job_id)
    assert (job.status, job.control, job.control_at, job.worker_id) == (JobStatus.CANCELLED, "run", None, None)


def test_a_refusal_states_the_status_and_the_possible_actions(database: Database) -> None:
    job_id = add_job(database)
    with pytest.raises(
        ActionRefused, match=f"cannot resume {job_id}: it is queued; possible actions: cancel and pause"
    ):
        do(database, job_id, Action.RESUME)


def test_a_resumed_jobs_gate_is_reset_and_paused_time_does_not_count_as_delay(
    database: Database,
) -> None:
    job_id = add_job(database)
    put(database, job_id, gate={"committed": True}, not_before=START + 24 * HOUR, started_at=START)
    do(database, job_id, Action.PAUSE)
    do(database, job_id, Action.RESUME)
    job = read_job(database, job_id)
    assert (job.status, job.gate, job.not_before, job.dispatched_at) == (JobStatus.QUEUED, None, None, None)
    assert (job.released_at, job.ready_at, job.queued_at) == (LATER, START, LATER)


def test_a_gates_longest_delay_counts_from_when_the_job_was_resumed(database: Database, settings: Settings) -> None:
    policy = {"kind": "constant", "rho": 1.0, "gate": {"mode": "defer", "max_delay_hours": 12}}
    job_id = add_job(database, policy=policy)
    put(database, job_id, started_at=START)
    do(database, job_id, Action.PAUSE)
    do(database, job_id, Action.RESUME)
    epoch_estimate = EpochEstimate(epoch_hours=2.0, epoch_kwh=0.1, startup_hours=0.0, basis="its own epochs")
    with database.session() as session:
        job = JobRepository(session).lock(job_id)
        assert job is not None
        evaluate_job_gate(session, job, epoch_estimate, settings, zone="FR", computing=False, at=LATER)
        assert job.gate is not None
        assert job.gate["deadline"] == (LATER + 14 * HOUR).isoformat()


def test_a_gate_leaves_time_for_the_evaluations_of_the_steps_left(database: Database, settings: Settings) -> None:
    policy = {"kind": "constant", "rho": 1.0, "gate": {"mode": "defer", "max_delay_hours": 12}}
    found = EpochEstimate(2.0, 0.1, 0.0, "its own epochs").with_evaluations(3.0, 0.1)
    with_deadline, without = (
        add_job(database, policy=policy, deadline=LATER + 4 * HOUR),
        add_job(database, policy=policy),
    )
    urgent = []
    with database.session() as session:
        for job_id, done in ((with_deadline, 0), (with_deadline, 90), (without, 0)):
            job = JobRepository(session).lock(job_id)
            assert job is not None
            job.steps, job.steps_done = 100, done
            decision = evaluate_job_gate(session, job, found, settings, zone="FR", computing=False, at=LATER)
            urgent.append(decision.forced)
    assert urgent == [True, False, True]
    assert (read_job(database, without).gate or {})["deadline"] == (START + 17 * HOUR).isoformat()


def test_a_job_that_had_not_started_is_ready_when_it_is_resumed(database: Database) -> None:
    job_id = add_job(database)
    do(database, job_id, Action.PAUSE)
    do(database, job_id, Action.RESUME)
    assert read_job(database, job_id).ready_at == LATER


def test_a_retried_job_loses_its_outcome_and_keeps_its_progress_and_energy(database: Database) -> None:
    job_id = failed(database, lost_attempts=3, settled_at=LATER, counterfactuals={"missing": "none"})
    do(database, job_id, Action.RETRY)
    job = read_job(database, job_id)
    assert job.status is JobStatus.QUEUED
    assert (job.error, job.finished_at, job.settled_at, job.counterfactuals) == (None, None, None, None)
    assert (job.lost_attempts, job.attempts, job.steps_done, job.energy_kwh) == (0, 1, 4, 0.5)
    assert (job.ready_at, job.released_at) == (START, LATER)
    assert claim_as_worker(database, job_id, at=LATER).attempt == 2


def test_an_epoch_that_an_early_stop_ended_is_open_again_once_it_is_resumed(database: Database) -> None:
    """The attempt was lost after the stop was recorded and before the checkpoint of its step."""
    job_id = add_job(database, zone="FR", hours=1.0)
    lease = claim_as_worker(database, job_id, at=START)
    with database.session() as session:
        progress.start_epoch(session, lease, 1, RhoDecision(0.6, "constant", None, None, None, None, True), at=START)
        record_early_stop(session, lease, step=4, reason="stopped", at=START)
        progress.resume_epoch(session, lease, 1)
        assert session.get_one(Epoch, (job_id, 1)).finished_at is None


def test_the_best_evaluation_is_the_lowest_also_where_its_step_is_repeated(database: Database) -> None:
    lease = claim_as_worker(database, add_job(database, zone="FR", hours=1.0), at=START)
    best = []
    for step, loss in ((1, 3.0), (2, 2.0), (3, 2.5), (3, 2.0), (2, 4.0), (4, 1.0)):
        figures = dict.fromkeys(("accuracy", "rouge1", "rouge2", "rouge_l", "rouge_rows", "epoch_ended"))
        measured = MeasuredEvaluation(step=step, epoch=1.0, loss=loss, rows=1, seconds=1.0, **figures)
        with database.session() as session:
            record_evaluation(session, lease, measured, metered_from=START, at=START)
        found = read_job(database, lease.job_id).best or {}
        best.append((found["step"], found["loss"]))
    assert best == [(1, 3.0), (2, 2.0), (2, 2.0), (2, 2.0), (3, 2.0), (4, 1.0)]


def test_a_micro_batch_that_differs_from_an_earlier_attempts_is_stored_and_recorded(database: Database) -> None:
    lease = claim_as_worker(database, add_job(database, zone="FR", hours=1.0), at=START)
    for rows in (8, 8, 4):
        with database.session() as session:
            progress.choose_micro_batch(session, lease, at=START, rows=rows, reason="measured")
    chosen = [event.data["rows"] for event in events(database, lease.job_id) if event.type == "micro_batch.chosen"]
    assert (read_job(database, lease.job_id).micro_batch_size, chosen) == (4, [8, 4])


def test_a_job_without_an_estimate_is_validated_again_when_it_is_retried(database: Database) -> None:
    job_id = add_job(database, JobStatus.VALIDATING, dispatched_at=START)
    with database.session() as session:
        job = JobRepository(session).lock(job_id)
        assert job is not None
        JobRepository(session).fail(job, at=START, error={"title": "No", "detail": "no"})
    do(database, job_id, Action.RETRY)
    job = read_job(database, job_id)
    assert (job.status, job.dispatched_at, job.error) == (JobStatus.VALIDATING, None, None)


def test_a_job_whose_files_were_removed_is_not_retried(database: Database) -> None:
    job_id = failed(database, files_removed_at=START)
    with pytest.raises(ActionRefused, match=r"its files were removed at 2026-11-23.*possible actions: none"):
        do(database, job_id, Action.RETRY)
    assert list_possible_actions(read_job(database, job_id)) == []


def test_a_job_whose_dataset_was_deleted_is_not_retried(database: Database) -> None:
    job_id = failed(database)
    with database.session() as session:
        session.execute(update(Dataset).values(deleted_at=LATER))
    with pytest.raises(ActionRefused, match=r"its dataset ds_.* was deleted"):
        do(database, job_id, Action.RETRY)
    assert read_job(database, job_id).error is not None


def test_a_cancel_and_a_claim_at_the_same_time_agree(database: Database) -> None:
    """The second transaction sees the effect of the first: a worker never holds a cancelled job."""
    leases: list[Lease | None] = []
    outcomes = set()
    for _ in range(12):
        job_id = add_job(database, zone="FR")
        barrier = Barrier(2)

        def cancel(job_id: str = job_id, barrier: Barrier = barrier) -> None:
            barrier.wait()
            do(database, job_id, Action.CANCEL)

        def take(job_id: str = job_id, barrier: Barrier = barrier) -> None:
            with database.session() as session:
                barrier.wait()
                leases.append(claim(session, job_id, worker_id="w", device="cpu", at=LATER, lease_seconds=60))

        threads = [Thread(target=cancel), Thread(target=take)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        job, lease = read_job(database, job_id), leases.pop()
        outcomes.add((job.status, lease is None))
        assert (job.lease_token is None) == (lease is None)
    assert outcomes <= {(JobStatus.CANCELLED, True), (JobStatus.CANCELLING, False)}


def test_a_cancel_waits_for_an_uncommitted_claim(database: Database) -> None:
    job_id = add_job(database, zone="FR")
    with database.session() as session:
        assert claim(session, job_id, worker_id="w", device="cpu", at=LATER, lease_seconds=60) is not None
        cancel = Thread(target=do, args=(database, job_id, Action.CANCEL))
        cancel.start()
        cancel.join(0.1)
        assert cancel.is_alive()
    cancel.join()
    assert read_job(database, job_id).status is JobStatus.CANCELLING


def test_a_claim_waits_for_an_uncommitted_cancel_and_claims_nothing(database: Database) -> None:
    job_id = add_job(database, zone="FR")
    leases: list[Lease | None] = []

    def take() -> None:
        with database.session() as session:
            leases.append(claim(session, job_id, worker_id="w", device="cpu", at=LATER, lease_seconds=60))

    with database.session() as cancelling:
        job = JobRepository(cancelling).lock(job_id)
        assert job is not None
        request_action(cancelling, job, Action.CANCEL, by="alice", at=LATER)
        cancelling.flush()
        claiming = Thread(target=take)
        claiming.start()
        claiming.join(0.1)
        assert claiming.is_alive()
    claiming.join()
    assert leases == [None]
    assert read_job(database, job_id).status is JobStatus.CANCELLED


class RandomEvents:
    """Applies random events to one job: a method for each action of owners, workers and the scheduler."""

    def __init__(self, database: Database, job_id: str, random: Random) -> None:
        self.database, self.job_id, self.random = database, job_id, random
        self.leases = [Lease(job_id, "never given", 1)]

    def happens(self) -> None:
        often, seldom = [self.asked, self.claimed], [self.prepared, self.deferred, self.given_back, self.reclaimed]
        step: Callable[[Session], object] = self.random.choice([*often, *often, *seldom, self.succeeded, self.failed])
        try:
            with self.database.session() as session:
                step(session)
        except (ActionRefused, TransitionRefused, LeaseLost):
            pass

    def asked(self, session: Session) -> None:
        request_action(session, self._locked(session), self.random.choice(list(Action)), by="alice", at=LATER)

    def claimed(self, session: Session) -> None:
        lease = claim(session, self.job_id, worker_id="w", device="cpu", at=LATER, lease_seconds=60)
        self.leases += [lease] if lease is not None else []

    def prepared(self, session: Session) -> None:
        job = self._locked(session)
        if job.status is JobStatus.VALIDATING:
            job.estimate = {"full_flops": 1}
            transition(session, job, JobStatus.QUEUED, at=LATER)

    def deferred(self, session: Session) -> None:
        transition(session, self._locked(session), JobStatus.DEFERRED, at=LATER, reason="waits")

    def given_back(self, session: Session) -> None:
        progress.release_job(session, self.leases[-1], at=LATER)

    def succeeded(self, session: Session) -> None:
        progress.succeed(session, self.random.choice(self.leases), at=LATER, artifacts=[], evaluation={})

    def failed(self, session: Session) -> None:
        progress.fail(session, self.random.choice(self.leases), at=LATER, error={"title": "t", "detail": "d"})

    def reclaimed(self, session: Session) -> None:
        job = self._locked(session)
        if job.status in HELD_BY_A_WORKER:
            to = progress.STATUS_AFTER_STOP.get(job.status, JobStatus.QUEUED)
            transition(session, job, to, at=LATER)

    def _locked(self, session: Session) -> Job:
        job = JobRepository(session).lock(self.job_id)
        assert job is not None
        return job


@pytest.mark.parametrize("seed", range(4))
def test_random_events_follow_the_table_and_every_change_is_recorded_once(database: Database, seed: int) -> None:
    random = Random(seed)
    for _ in range(3):
        history = RandomEvents(database, add_job(database, JobStatus.VALIDATING), random)
        before, seen = read_job(database, history.job_id), len(events(database, history.job_id))
        for _ in range(30):
            history.happens()
            job, new = read_job(database, history.job_id), events(database, history.job_id)[seen:]
            if job.status is before.status:
                assert new == []
                assert job.revision == before.revision
            else:
                assert job.status in ALLOWED_TRANSITIONS[before.status]
                [event] = new
                assert (event.type, event.data["from"], event.data["to"]) == (
                    f"job.{job.status}",
                    before.status,
                    job.status,
                )
                assert job.revision > before.revision
            assert (job.lease_token is not None) == (job.status in HELD_BY_A_WORKER)
            assert job.control == {"pausing": "pause", "cancelling": "cancel"}.get(job.status, "run")
            assert (job.finished_at is not None) == (job.status in FINAL)
            assert (job.error is not None) == (job.status is JobStatus.FAILED)
            before, seen = job, seen + len(new)
            if job.status is JobStatus.SUCCEEDED:
                break


def test_a_stopped_job_that_was_to_pause_is_paused_and_not_queued(database: Database) -> None:
    job_id = add_job(database, zone="FR")
    lease = claim_as_worker(database, job_id, at=START)
    do(database, job_id, Action.PAUSE)
    with database.session() as session:
        progress.release_job(session, lease, at=LATER + timedelta(seconds=5))
    assert read_job(database, job_id).status is JobStatus.PAUSED
