"""Run one attempt of a job: claim it, train under its lease, meter the energy, store what came of it."""

import hashlib
import math
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

import structlog
from sqlalchemy.orm import Session

from greencore.backprop import TensorCost
from greencore.backprop.curve import ConcaveCurve
from greencore.carbon.accounting import split
from greencore.clock import utc_now
from greencore.dataset import load_rows
from greencore.energy import EnergyInterval, EnergyMeter
from greencore.hyperparameters import Hyperparameters
from greencore.policy import Decision, decide
from greencore.policy.utility import DEFAULT_UTILITY, UtilityCurve
from greencore.training.ledger import EpochReport
from greencore.training.run import Listener, Method, Result, fine_tune
from store import progress
from store.database import Database, wake_scheduler
from store.datasets import rows_file
from store.grid import GridRepository, signal_named
from store.jobs import JobRepository, policy_of
from store.leases import Lease, LeaseLost, claim, held
from store.selection import put_tensors
from store.settings import Settings, get_settings
from store.status import JobStatus
from store.tables import Artifact, Job
from store.transitions import transition
from worker.baselines import without_rho
from worker.budget import check_budget
from worker.circumstances import circumstances
from worker.faults import explain
from worker.heartbeat import Heartbeat
from worker.prepare import model_folder
from worker.presence import device_name

log = structlog.get_logger()

WHERE_TO = {
    "drain": JobStatus.QUEUED,
    "defer": JobStatus.QUEUED,  # the scheduler, who closed the gate, opens it again
    "pause": JobStatus.PAUSED,
    "cancel": JobStatus.CANCELLED,
}
STEP_REPORT_SECONDS = 1.0
INSTANT = timedelta(microseconds=1)


def train_job(job_id: str) -> None:
    """Run an attempt of a queued job to its end, or until its owner wants it back. A job not to be had is left."""
    settings = get_settings()
    database = Database(settings.database_url)
    worker_id = os.environ.get("GREENTUNE_WORKER_ID", f"{platform.node()}-{os.getpid()}")
    with database.session() as session:
        lease = claim(
            session,
            job_id,
            worker_id=worker_id,
            device=device_name(),
            at=utc_now(),
            lease_seconds=settings.lease_seconds,
        )
    if lease is None:
        log.info("claim.refused", job=job_id)
        return
    structlog.contextvars.bind_contextvars(job=job_id, attempt=lease.attempt)
    log.info("job.claimed", worker=worker_id)
    with Heartbeat(
        database, lease, interval_seconds=settings.heartbeat_seconds, lease_seconds=settings.lease_seconds
    ) as heartbeat:
        try:
            _Attempt(database, settings, lease, heartbeat).run()
        except LeaseLost:
            log.warning("attempt.abandoned")
        except Exception as fault:
            log.exception("attempt.failed")
            _store_failure(database, lease, fault)


def _store_failure(database: Database, lease: Lease, fault: Exception) -> None:
    try:
        with database.session() as session:
            progress.fail(session, lease, at=utc_now(), error=explain(fault))
    except LeaseLost:
        log.warning("attempt.abandoned")


class _Attempt(Listener):
    """One attempt: decides ρ at each epoch's start and writes down what happens."""

    def __init__(self, database: Database, settings: Settings, lease: Lease, heartbeat: Heartbeat) -> None:
        self._database, self._settings, self._lease, self._heartbeat = database, settings, lease, heartbeat
        with database.session() as session:
            self._job: Job = held(session, lease)
            self._rows_in = rows_file(session, self._job.dataset_id, settings)
        assert self._job.zone is not None
        self._zone = self._job.zone
        self._signal = signal_named(self._job.signal)
        self._policy = policy_of(self._job)
        self._epoch = 0  # numbered from 1; 0 is what lies outside the epochs
        self._reported = utc_now()
        self._tensors: Sequence[str] = ()
        self._meter: EnergyMeter

    def run(self) -> None:
        hyperparameters = Hyperparameters.model_validate(self._job.hyperparameters)
        with EnergyMeter(
            self._store_energy,
            interval_seconds=self._settings.energy_interval_seconds,
            cpu_power_w=self._settings.cpu_power_w,
            ram_power_w=self._settings.ram_power_w,
        ) as self._meter:
            result = fine_tune(
                model_folder=model_folder(self._job.model, self._settings),
                rows=load_rows(self._rows_in),
                hyperparameters=hyperparameters,
                rho=self.decide_rho,
                method=cast(Method, self._job.method),
                folder=self._settings.job_dir(self._job.id),
                listener=self,
            )
        with self._database.session() as session:
            progress.add_tracker_total(session, self._lease, at=utc_now(), tracker_kwh=self._meter.tracker_total_kwh)
        self._store_result(result)

    def decide_rho(self, index: int) -> float:
        """ρ of the epoch that now begins, from the newest intensity that the scheduler has stored."""
        return self._begin_epoch(index).rho

    def epoch_begins(self, epoch: int) -> None:
        if self._job.method != "greentrainer":  # which has asked for its ρ
            self._begin_epoch(epoch)

    def _begin_epoch(self, index: int) -> Decision:
        self._meter.cut()
        self._epoch, now = index + 1, utc_now()
        with self._database.session() as session:
            job = held(session, self._lease)
            decision = without_rho(job, self._decide(job, session, index, now))
            if decision.ends_run and index == 0:
                check_budget(session, job, self._settings, at=now)
            progress.start_epoch(session, self._lease, self._epoch, decision, at=now)
        log.info("epoch.started", epoch=self._epoch, rho=decision.rho, reason=decision.reason)
        return decision

    def _decide(self, job: Job, session: Session, index: int, now: datetime) -> Decision:
        known = circumstances(session, job, self._policy, self._settings, epochs_left=job.epochs - index, at=now)
        return decide(self._policy, known)

    def ends_after(self, epoch: int) -> bool:
        """Whether what is left of a budget does not pay for another epoch."""
        now = utc_now()
        with self._database.session() as session:
            job = held(session, self._lease)
            decision = self._decide(job, session, epoch + 1, now)
            if decision.ends_run:
                JobRepository(session).record(
                    job.id, "budget.exhausted", at=now, epochs_done=epoch + 1, reason=decision.reason
                )
        return decision.ends_run

    def started(self, *, steps: int, steps_done: int, epochs_done: int, device: str, precision: str) -> None:
        within = steps_done * self._job.epochs > epochs_done * steps
        with self._database.session() as session:
            progress.start_training(
                session,
                self._lease,
                at=utc_now(),
                steps=steps,
                steps_done=steps_done,
                epochs_done=epochs_done,
                precision=precision,
            )
            if within:
                progress.resume_epoch(session, self._lease, epochs_done + 1)
        if within:
            self._meter.cut()
            self._epoch = epochs_done + 1
        log.info("training.started", steps=steps, epochs_done=epochs_done, device=device, precision=precision)

    def tensors(self, costs: Sequence[TensorCost]) -> None:
        self._tensors = [cost.name for cost in costs]
        with self._database.session() as session:
            put_tensors(session, self._lease, costs)

    def step(self, *, done: int, steps: int, loss: float) -> None:
        now = utc_now()
        if done < steps and (now - self._reported).total_seconds() < STEP_REPORT_SECONDS:
            return
        self._reported = now
        with self._database.session() as session:
            progress.report_step(session, self._lease, steps=steps, steps_done=done, loss=loss)

    def epoch(self, report: EpochReport, *, train_loss: float, eval_loss: float | None) -> None:
        self._meter.cut()
        measured: dict[str, Any] = {
            "rho_reached": report.share,
            "flops": report.flops,
            "full_flops": report.full_flops,
            "probe_flops": report.probe_flops,
            "probe_seconds": report.probe_seconds,
            "tensors_selected": len(report.tensors),
            "tensors_total": report.tensors_total,
            "selection": {name: report.importance.get(name) for name in report.tensors},
            "importance": [report.importance.get(name) for name in self._tensors] if report.importance else None,
            "train_loss": train_loss if math.isfinite(train_loss) else None,
            "eval_loss": eval_loss,
        }
        utility = None if report.curve is None else _utility(report.curve)
        with self._database.session() as session:
            progress.finish_epoch(
                session, self._lease, report.epoch + 1, at=utc_now(), measured=measured, utility=utility
            )
        log.info("epoch.finished", epoch=report.epoch + 1, rho_reached=round(report.share, 4), loss=train_loss)
        self._epoch = 0

    def stop(self) -> bool:
        return self._heartbeat.lost or self._heartbeat.control != "run"

    def _store_energy(self, interval: EnergyInterval) -> None:
        with self._database.session() as session:
            # A job without any energy is over in no time, and an instant has no window.
            end = max(interval.end, interval.start + INSTANT)
            series = GridRepository(session).filled(
                self._zone, self._signal, interval.start, end, stale_limit=self._settings.stale_limit
            )
            progress.add_energy(
                session, self._lease, self._epoch, interval, split(interval, series, pue=self._settings.pue)
            )

    def _store_result(self, result: Result) -> None:
        now = utc_now()
        if not result.completed:
            wanted = self._heartbeat.control
            with self._database.session() as session:
                job = held(session, self._lease)
                reason = (job.gate or {}).get("reason") if wanted == "defer" else None
                transition(session, job, WHERE_TO[wanted], at=now, reason=reason or f"stopped by its worker: {wanted}")
                wake_scheduler(session)
            log.info("attempt.stopped", control=wanted)
            return
        assert result.artifact is not None
        artifacts = [_artifact(self._job.id, path, result.artifact) for path in sorted(result.artifact.iterdir())]
        with self._database.session() as session:
            progress.succeed(session, self._lease, at=now, artifacts=artifacts, evaluation=_evaluation(result))
            energy = JobRepository(session).get(self._job.id)
        assert energy is not None
        log.info("job.succeeded", energy_kwh=energy.energy_kwh, emissions_gco2e=energy.emissions_gco2e)


def _utility(curve: ConcaveCurve) -> dict[str, Any] | None:
    """What a share of an epoch's FLOPs is worth, by the newest probe; None where it found no difference.

    The probe reaches as far as the epoch's ρ. Beyond, the default curve goes on from there: an assumption.
    """
    if len(curve.rho) < 2:
        return None
    reached = float(curve.rho[-1])
    beyond = DEFAULT_UTILITY.rho[DEFAULT_UTILITY.rho > reached + 1e-6]
    scale = float(curve.importance[-1]) / float(DEFAULT_UTILITY.at(reached))
    if beyond.size == 0 or scale <= 0:
        return UtilityCurve.through(curve.rho, curve.importance).to_json()
    further = DEFAULT_UTILITY.at(beyond) * scale
    return UtilityCurve.through([*curve.rho, *beyond], [*curve.importance, *further]).to_json()


def _artifact(job_id: str, path: Path, folder: Path) -> Artifact:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Artifact(
        job_id=job_id,
        name=str(path.relative_to(folder)),
        bytes=path.stat().st_size,
        sha256=digest,
        created_at=utc_now(),
    )


def _evaluation(result: Result) -> dict[str, Any]:
    """The part of a result that is stored with the job."""
    found: dict[str, Any] = {}
    if result.sample:
        found["sample"] = asdict(result.sample)
    if result.before and result.after:
        found["rows"] = result.after.rows
        found["eval_loss"] = {"before": result.before.loss, "after": result.after.loss}
        found["rouge"] = {"before": result.before.rouge, "after": result.after.rouge}
    return found
