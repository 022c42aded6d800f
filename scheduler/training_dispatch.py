"""Dispatches queued jobs to the free devices of training workers, in fair order, where the gate is open."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import structlog
from sqlalchemy.orm import Session

from greencore.policy.gate.evaluate import GateDecision
from planning.device_fit import list_fitting_workers
from planning.live_devices import get_device
from runtime.settings import Settings
from scheduler.broker import Broker
from scheduler.free_gpus import FreeGpus
from scheduler.job_gate import is_gated
from scheduler.job_placement import GATE_NOT_EVALUATED, Fleet, evaluate_or_skip_job, evaluate_waiting_job
from scheduler.prepare_dispatch import send_job_messages
from store.database import Database
from store.lifecycle.queue import QueueRepository, WaitingJob, fair_order
from store.lifecycle.status import JobStatus
from store.lifecycle.transitions import transition
from store.repositories.jobs import JobRepository
from store.tables import Job, Worker
from worker.app import TRAIN_TASK, train_queue, worker_queue

log = structlog.get_logger()

# How often a job without a free worker is evaluated: where it would run, and when it would end.
REEVALUATION_INTERVAL = timedelta(seconds=30)
# Keeps a tick short; the remaining jobs are due in the next.
MAX_EVALUATIONS_PER_TICK = 10
# Each change of a position writes a row; far back in the queue the exact number is of no use.
MAX_REPORTED_POSITION = 100


class TrainingDispatcher:
    """Dispatches to training workers, and limits how often each waiting job of a long queue is evaluated."""

    def __init__(self, database: Database, broker: Broker, settings: Settings) -> None:
        self._database, self._broker, self._settings = database, broker, settings
        self._redispatch_after = timedelta(seconds=settings.redispatch_seconds)
        self._evaluated_at: dict[str, datetime] = {}
        # Of a job as last evaluated: the workers of its zone that can run it, none where it was not placed. Void once
        # the fleet changes.
        self._fitting: dict[str, frozenset[str]] = {}
        self._fleet_ids: frozenset[str] = frozenset()
        # The worker to whose own queue a job's message was sent, until it is claimed or counts as lost.
        self._sent_to: dict[str, str] = {}

    def dispatch(self, fleet: Fleet, *, at: datetime) -> None:
        """Send jobs in fair order to free workers, and defer those whose gate is closed.

        A free device is one of a live worker, without a job, and without a message in flight: one that was not taken up
        within `redispatch_seconds` counts as lost. A job that not every worker of its zone can run is sent to one that
        can, and so is each where workers have several devices. A job that waits for more devices than are free keeps
        those of one worker from the jobs behind it. Jobs that stay in the queue get a reason.
        """
        messages: dict[str, tuple[str, str]] = {}
        served = fleet.zones()
        with self._database.session() as session:
            queue = QueueRepository(session)
            if not queue.try_lock_dispatch():
                return
            queue.set_unserved_zone_reasons(served, at=at, redispatch_after=self._redispatch_after)
            waiting = queue.list_waiting(JobStatus.QUEUED, at=at, redispatch_after=self._redispatch_after, zones=served)
            self._forget(waiting, fleet)
            if not waiting:
                return
            in_flight = queue.list_dispatched(JobStatus.QUEUED, at=at, redispatch_after=self._redispatch_after)
            sent = {job.id for job in in_flight}
            self._sent_to = {job_id: worker for job_id, worker in self._sent_to.items() if job_id in sent}
            free = FreeGpus(fleet.workers, queue.held_by_worker())
            gpus_per_owner = queue.held_by_owner()
            for each in in_flight:
                free.take(each.gpus, zone=each.zone, worker_id=self._sent_to.get(each.id))
                gpus_per_owner[each.owner] += each.gpus
            left: list[WaitingJob] = []
            evaluations_left = MAX_EVALUATIONS_PER_TICK
            for job in fair_order(waiting, gpus_per_owner):
                if job.reason == GATE_NOT_EVALUATED and not self._is_due(job, at):
                    continue
                zones = [job.zone] if job.zone in served else served
                able = self._list_able(job, zones, fleet)
                if not _has_room(job, zones, able, free):
                    evaluations_left -= 1 if self._is_due(job, at) else 0
                    if evaluations_left < 0 or not self._is_due(job, at):
                        if job.gpus > 1:
                            free.reserve(able or [])
                        if able != []:  # a job that was not placed keeps the reason
                            left.append(job)
                        continue
                row = queue.lock(job.id, JobStatus.QUEUED)
                if row is None:
                    continue
                decision = self._evaluate_or_defer(session, row, fleet, at=at)
                if decision is None:
                    self._fitting[row.id] = frozenset()
                    continue
                assert row.zone is not None
                queue_name = self._choose_queue(row, fleet, free)
                if queue_name is None:
                    left.append(replace(job, zone=row.zone))
                    continue
                _mark_sent(session, row, decision, at=at)
                messages[job.id] = (TRAIN_TASK, queue_name)
                gpus_per_owner[job.owner] += job.gpus
            session.flush()
            queue.set_waiting_reasons(_describe_waits(left, gpus_per_owner))
        send_job_messages(self._database, self._broker, messages)

    def _list_able(self, job: WaitingJob, zones: Sequence[str], fleet: Fleet) -> list[Worker] | None:
        """List the workers that can run a job as last evaluated; before that those with its devices, None for one."""
        fitting = self._fitting.get(job.id)
        if fitting is not None:
            return [worker for worker in fleet.workers if worker.id in fitting]
        if job.gpus == 1:
            return None
        return [worker for worker in fleet.workers if worker.zone in zones and worker.gpus >= job.gpus]

    def _choose_queue(self, job: Job, fleet: Fleet, free: FreeGpus) -> str | None:
        """Return the queue that a placed job is sent to, with its devices taken from `free`; None where too few are.

        It is the zone's where each of its workers has one device and can run the job, else the own queue of the worker
        with the least memory that can, and of these that with the fewest free devices.
        """
        assert job.zone is not None
        there = [worker for worker in fleet.workers if worker.zone == job.zone]
        able = list_fitting_workers(job, there)
        self._fitting[job.id] = frozenset(worker.id for worker in able)
        possible = [worker for worker in able if free.of_worker(worker.id) >= job.gpus]
        if not possible or free.in_zone(job.zone) < job.gpus:
            if job.gpus > 1:
                free.reserve(able)
            return None
        single = all(worker.gpus == 1 for worker in there)
        if single and (len(able) == len(there) or not any(get_device(worker) for worker in possible)):
            free.take(1, zone=job.zone, worker_id=None)
            return train_queue(job.zone)
        chosen = min(possible, key=lambda worker: (_known_memory(worker), free.of_worker(worker.id)))
        free.take(job.gpus, zone=job.zone, worker_id=chosen.id)
        self._sent_to[job.id] = chosen.id
        return worker_queue(chosen.id)

    def _forget(self, waiting: Sequence[WaitingJob], fleet: Fleet) -> None:
        """Forget what is known of jobs that wait no longer, and which workers fit once other workers are alive."""
        alive = frozenset(worker.id for worker in fleet.workers)
        if alive != self._fleet_ids:
            self._fleet_ids, self._fitting = alive, {}
        ids = {job.id for job in waiting}
        self._evaluated_at = {job_id: at for job_id, at in self._evaluated_at.items() if job_id in ids}
        self._fitting = {job_id: workers for job_id, workers in self._fitting.items() if job_id in ids}

    def _is_due(self, job: WaitingJob, at: datetime) -> bool:
        evaluated_at = self._evaluated_at.get(job.id)
        return evaluated_at is None or not evaluated_at <= at < evaluated_at + REEVALUATION_INTERVAL

    def _evaluate_or_defer(self, session: Session, job: Job, fleet: Fleet, *, at: datetime) -> GateDecision | None:
        """Return the decision of a locked job that may run; else None, and defer the job if its gate is closed."""
        self._evaluated_at[job.id] = at
        decision = evaluate_or_skip_job(
            session, job, lambda: evaluate_waiting_job(session, job, fleet, self._settings, at=at)
        )
        if decision is not None and not decision.opens:
            transition(session, job, JobStatus.DEFERRED, at=at, reason=decision.reason, saving=decision.saving)
            log.info(
                "job.deferred", job=job.id, until=decision.until and decision.until.isoformat(), reason=decision.reason
            )
            return None
        return decision


def _has_room(job: WaitingJob, zones: Sequence[str], able: Sequence[Worker] | None, free: FreeGpus) -> bool:
    """Return whether a zone has the devices that a job wants, and one of `able`, the workers that it fits, if known."""
    if not any(free.in_zone(zone) >= job.gpus for zone in zones):
        return False
    return able is None or any(free.of_worker(worker.id) >= job.gpus for worker in able)


def _known_memory(worker: Worker) -> float:
    """Return a worker's bytes, infinite where they are not known, as of an earlier version's workers."""
    device = get_device(worker)
    return math.inf if device is None else device.memory_bytes


def _mark_sent(session: Session, job: Job, decision: GateDecision, *, at: datetime) -> None:
    job.dispatched_at = at
    job.reason = decision.reason if is_gated(job) or job.zone_asked is None else None
    JobRepository(session).record(
        job.id, "job.dispatched", at=at, zone=job.zone, reason=job.reason, forced=decision.forced or None
    )


def _describe_waits(left: Sequence[WaitingJob], gpus_per_owner: Counter[str | None]) -> dict[str, str]:
    """Return the new reason of each job that stays in the queue, where it changed.

    The jobs ahead of it are those that the workers of the same zone serve first.
    """
    gpus_per_owner, before = gpus_per_owner.copy(), Counter[str | None]()
    reasons = {}
    for job in fair_order(left, gpus_per_owner):
        gpus_per_owner[job.owner] += job.gpus
        wanted = "a free worker" if job.gpus == 1 else f"a worker with {job.gpus} free GPUs"
        reason = f"waits for {wanted}: {_describe_position(before[job.zone])}"
        before[job.zone] += 1
        if job.reason != reason:
            reasons[job.id] = reason
    return reasons


def _describe_position(ahead: int) -> str:
    if ahead > MAX_REPORTED_POSITION:
        return f"more than {MAX_REPORTED_POSITION} jobs are ahead of it"
    return {0: "it is next", 1: "1 job is ahead of it"}.get(ahead, f"{ahead} jobs are ahead of it")
