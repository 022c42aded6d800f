"""One training attempt of a job: decides ρ before each epoch, meters the energy, and records the progress."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, cast

import structlog
from sqlalchemy.orm import Session

from greencore.backprop import NotFinite, TensorCost
from greencore.backprop.selection.importance_curve import ConcaveCurve
from greencore.carbon.accounting.pricing import PricedInterval, price_by_reading
from greencore.clock import utc_now
from greencore.device import Device
from greencore.energy import EnergyInterval, EnergyMeter, is_unresponsive
from greencore.policy import RhoDecision, decide_rho
from greencore.policy.rho.utility import DEFAULT_UTILITY, UtilityCurve
from greencore.settings.hyperparameters import Hyperparameters
from greencore.training.batches.micro_batches import HalvedMicroBatch
from greencore.training.evaluation.ledger import EvaluationReport
from greencore.training.launch.launcher import fine_tune_in_processes
from greencore.training.listener import TrainingListener
from greencore.training.methods.epoch_ledger import EpochReport
from greencore.training.run import Method, TrainingResult, fine_tune
from planning.device_fit import choose_recomputation
from runtime.private_files import make_private_folder
from runtime.settings import Settings
from runtime.tracing import record_span
from store.accounting import metering
from store.accounting.lost_energy import get_assumed_gpu_power
from store.intensity.readings import GridRepository, get_job_basis
from store.lifecycle import evaluations, progress
from store.lifecycle.evaluations import MeasuredEvaluation
from store.lifecycle.leases import lock_leased_job, record_attempt_event
from store.repositories.datasets import locate_rows_file, locate_validation_file
from store.repositories.jobs import JobRepository, get_job_policy, method_share
from store.repositories.lineage import LineageRepository
from store.stored_rows import load_stored_rows
from store.tables import Job, Tensor
from worker.base_model import fetch_base_model
from worker.device import device_computes_bf16, device_memory, device_name
from worker.preparation.budget_check import check_budget
from worker.registration import host_id
from worker.training.leased_writer import LeasedWriter
from worker.training.outcome import store_result
from worker.training.policy_context import build_policy_context
from worker.training.registered_checkpoints import RegisteredCheckpoints
from worker.training.step_log import StepLog

log = structlog.get_logger()

TRAINED_PARTS = {
    "full": "every tensor",
    "lora": "its adapter",
    "prefix": "its prefix",
    "top2": "the output embedding and the last normalisation",
    "bitfit": "the biases",
}


@dataclass(frozen=True)
class _EvaluationWindow:
    """An evaluation since `start` (UTC, by the meter) and `began` (seconds of the monotonic clock)."""

    start: datetime
    began: float


class TrainingAttempt(TrainingListener):
    """Runs a claimed job once. Raises `LeaseLost` where another owns the job; any other error fails the job."""

    def __init__(self, writer: LeasedWriter, settings: Settings) -> None:
        self._writer, self._settings, self._lease = writer, settings, writer.lease
        self._job: Job = writer.write(lock_leased_job)
        self.traceparent = self._job.traceparent  # of the request that submitted the job, where it was traced
        assert self._job.zone is not None
        self._zone = self._job.zone
        self._basis = get_job_basis(self._job)
        self._policy = get_job_policy(self._job)
        self._steps = StepLog(writer)
        self._epoch = 0  # numbered from 1; 0 outside the epochs
        self._epoch_began = time.monotonic()
        self._tensors: Sequence[str] = ()
        self._meter: EnergyMeter
        self._silent_meters = set[str]()  # the components whose meters do not answer
        self._evaluation: _EvaluationWindow | None = None  # that runs now
        self._last_evaluation: _EvaluationWindow | None = None

    def run(self) -> None:
        """Train to the end, or until the job must stop, and store the outcome."""
        meter = EnergyMeter(
            self._store_energy,
            interval_seconds=self._settings.energy_interval_seconds,
            cpu_power_w=self._settings.cpu_power_w,
            ram_power_w=self._settings.ram_power_w,
            assumed_gpu_power_w=self._job.gpus
            * get_assumed_gpu_power(self._job.device, self._settings.assumed_power_w),
        )
        try:
            with meter as self._meter, self._share_host_energy():
                result = None if self.should_stop() else self._train()
        except NotFinite:
            self._steps.flush()  # the losses up to it
            raise
        finally:
            self._writer.heartbeat.unstored = lambda: None
        self._writer.write(metering.close_meter, at=utc_now(), tracker_kwh=self._meter.tracker_total_kwh)
        if result is None or not result.completed:
            status = self._writer.write(progress.release_job, at=utc_now())
            log.info("attempt.stopped", now=status)
        else:
            store_result(self._writer, self._settings, self._job, result)

    @contextmanager
    def _share_host_energy(self) -> Iterator[None]:
        """Share the host's energy while the block runs; the meter is open longer, so that no energy is missed."""
        self._writer.heartbeat.unstored = self._meter.unreported_period
        gpus = self._meter.gpu_uuids
        self._writer.write(metering.begin_sharing, host=host_id(), gpus=gpus, monotonic=time.monotonic)
        try:
            yield
        finally:
            self._writer.write(metering.end_sharing, monotonic=time.monotonic)

    def _train(self) -> TrainingResult:
        folder = self._settings.job_dir(self._job.id)
        make_private_folder(folder)
        rows_in, validation_in, bases = self._writer.run_in_transaction(
            lambda session: (
                locate_rows_file(session, self._job.dataset_id, self._settings),
                locate_validation_file(session, self._job, self._settings),
                LineageRepository(session).list_bases(self._job),
            )
        )
        self._writer.check_lease()
        gpus, silence = self._job.gpus, self._settings.hang_seconds
        run = fine_tune if gpus == 1 else partial(fine_tune_in_processes, gpus, silence_seconds=silence)
        return run(
            model_folder=fetch_base_model(self._job, bases, self._settings),
            model_name=self._job.base_job_id or self._job.model,
            rows=load_stored_rows(rows_in),
            validation_rows=None if validation_in is None else load_stored_rows(validation_in),
            hyperparameters=_resolve_checkpointing(self._job, self._settings),
            rho=self.start_epoch,
            highest_rho=self._policy.rho_range[1],
            method=cast(Method, self._job.method),
            folder=folder,
            result_folder=folder / f"result-{self._lease.attempt}",
            checkpoints=RegisteredCheckpoints(folder, self._writer, before_register=self._steps.flush),
            listener=self,
        )

    def on_epoch_started(self, epoch: int) -> None:
        if self._job.method != "greentrainer":  # GreenTrainer starts its epoch when it asks for ρ
            self.start_epoch(epoch)

    def start_epoch(self, index: int) -> float:
        """Decide ρ of epoch `index`, from 0, by the newest stored intensity; store the epoch's start; return ρ.

        Called before the probe, whose energy so belongs to the epoch.
        """
        self._meter.close_interval()
        self._epoch, self._epoch_began = index + 1, time.monotonic()

        def decide_and_start(session: Session) -> RhoDecision:
            job, now = lock_leased_job(session, self._lease), utc_now()
            decision = self._decide_rho(session, job, index, at=now)
            if job.method != "greentrainer":
                decision = _with_fixed_rho(decision, job)
            if decision.ends_run and index == 0:
                check_budget(session, job, self._settings, at=now)
            progress.start_epoch(session, self._lease, self._epoch, decision, at=now)
            return decision

        decision = self._writer.run_in_transaction(decide_and_start)
        log.info("epoch.started", epoch=self._epoch, rho=decision.rho, reason=decision.reason)
        return decision.rho

    def _decide_rho(self, session: Session, job: Job, index: int, *, at: datetime) -> RhoDecision:
        context = build_policy_context(
            session, job, self._policy, self._settings, epochs_left=job.epochs - index, at=at
        )
        return decide_rho(self._policy, context)

    def should_end_after(self, epoch: int) -> bool:
        """Whether the remaining budget is too small for another epoch; if so, it is recorded."""

        def ask(session: Session) -> bool:
            job, now = lock_leased_job(session, self._lease), utc_now()
            decision = self._decide_rho(session, job, epoch + 1, at=now)
            if decision.ends_run:
                JobRepository(session).record(
                    job.id, "budget.exhausted", at=now, epochs_done=epoch + 1, reason=decision.reason
                )
            return decision.ends_run

        return self._writer.run_in_transaction(ask)

    def on_training_started(
        self, *, steps: int, steps_done: int, epochs_done: int, within_epoch: bool, device: str, precision: str
    ) -> None:
        def start(session: Session) -> None:
            progress.start_training(
                session,
                self._lease,
                at=utc_now(),
                steps=steps,
                steps_done=steps_done,
                epochs_done=epochs_done,
                precision=precision,
            )
            if within_epoch:
                progress.resume_epoch(session, self._lease, epochs_done + 1)

        self._writer.run_in_transaction(start)
        if within_epoch:
            self._meter.close_interval()
            self._epoch, self._epoch_began = epochs_done + 1, time.monotonic()
        log.info("training.started", steps=steps, epochs_done=epochs_done, device=device, precision=precision)

    def on_micro_batch_chosen(self, *, rows: int, reason: str) -> None:
        self._writer.write(progress.choose_micro_batch, at=utc_now(), rows=rows, reason=reason)
        log.info("micro_batch.chosen", rows=rows, reason=reason)

    def on_micro_batch_halved(self, halved: HalvedMicroBatch) -> None:
        self._steps.flush()
        self._writer.write(progress.halve_micro_batch, at=utc_now(), before=halved.before, after=halved.after)
        log.warning("micro_batch.halved", before=halved.before, after=halved.after)

    def on_tensors_profiled(self, costs: Sequence[TensorCost]) -> None:
        self._tensors = [cost.name for cost in costs]
        tensors = [
            Tensor(name=cost.name, parameters=cost.params, t_dw_flops=cost.t_dw, t_dy_flops=cost.t_dy) for cost in costs
        ]
        self._writer.write(progress.put_tensors, tensors)

    def on_step_finished(self, *, done: int, steps: int, loss: float) -> None:
        self._steps.add(done=done, steps=steps, loss=loss)

    def on_epoch_finished(self, report: EpochReport, *, train_loss: float, eval_loss: float | None) -> None:
        self._steps.flush()
        self._meter.close_interval()
        measured = progress.EpochMeasurement(
            rho_reached=report.share,
            flops=report.flops,
            full_flops=report.full_flops,
            plain_full_flops=report.plain_full_flops,
            probe_flops=report.probe_flops,
            probe_seconds=report.probe_seconds,
            tensors_selected=len(report.tensors),
            tensors_total=report.tensors_total,
            selection={name: report.importance.get(name) for name in report.tensors},
            importance=[report.importance.get(name) for name in self._tensors] if report.importance else None,
            train_loss=train_loss if math.isfinite(train_loss) else None,
            eval_loss=eval_loss,
        )
        utility = None if report.curve is None else _fit_utility(report.curve)
        self._writer.write(progress.finish_epoch, report.epoch + 1, at=utc_now(), measured=measured, utility=utility)
        record_span(
            "epoch",
            seconds=time.monotonic() - self._epoch_began,
            greentune__epoch=report.epoch + 1,
            greentune__rho_reached=report.share,
        )
        log.info("epoch.finished", epoch=report.epoch + 1, rho_reached=round(report.share, 4), loss=train_loss)
        self._epoch = 0

    def on_evaluation_started(self) -> None:
        closed = self._meter.close_interval()
        self._evaluation = _EvaluationWindow(closed.end, time.monotonic())

    def on_evaluation_ended(self) -> None:
        self._meter.close_interval()
        self._evaluation, self._last_evaluation = None, self._evaluation

    def on_evaluated(self, report: EvaluationReport) -> None:
        window, found = self._last_evaluation, report.evaluation
        assert window is not None
        rouge = found.rouge or {}
        measured = MeasuredEvaluation(
            step=report.step,
            epoch=report.epoch,
            loss=found.loss,
            accuracy=found.accuracy,
            rouge1=rouge.get("rouge1"),
            rouge2=rouge.get("rouge2"),
            rouge_l=rouge.get("rougeL"),
            rouge_rows=report.rouge_rows if rouge else None,
            rows=found.rows,
            seconds=time.monotonic() - window.began,
            epoch_ended=report.epoch_ended,
        )
        self._writer.write(evaluations.record_evaluation, measured, metered_from=window.start, at=utc_now())
        log.info("evaluation.finished", step=report.step, loss=round(found.loss, 6), accuracy=found.accuracy)

    def on_stopped_early(self, *, step: int, reason: str) -> None:
        self._writer.write(evaluations.record_early_stop, step=step, reason=reason, at=utc_now())
        log.info("training.stopped_early", step=step, reason=reason)

    def on_best_missing(self, *, step: int) -> None:
        reason = (
            f"the checkpoint of step {step}, the best evaluation's, is missing: the result is that of the last step"
        )
        self._writer.write(record_attempt_event, "checkpoint.best_missing", step=step, reason=reason, at=utc_now())
        log.warning("checkpoint.best_missing", step=step)

    def should_stop(self) -> bool:
        self._writer.check_lease()
        return self._writer.heartbeat.control != "run"

    def _store_energy(self, interval: EnergyInterval) -> None:
        methods = {"cpu": interval.cpu_method, "gpu": interval.gpu_method, "ram": interval.ram_method}
        silent = {part: method for part, method in methods.items() if is_unresponsive(method)}
        newly_silent = {part: method for part, method in silent.items() if part not in self._silent_meters}

        def store(session: Session) -> None:
            stored = metering.store_energy(
                session,
                self._lease,
                self._epoch,
                interval,
                price=lambda part: self._price(session, part),
                evaluation=self._evaluation is not None,
            )
            if stored and newly_silent:
                reason = "; ".join(f"{part}: {method}" for part, method in sorted(newly_silent.items()))
                data = {"methods": newly_silent, "reason": reason}
                record_attempt_event(session, self._lease, "energy.meter_silent", at=interval.start, **data)

        self._writer.run_in_transaction(store)
        self._silent_meters = set(silent)

    def _price(self, session: Session, interval: EnergyInterval) -> list[PricedInterval]:
        series = GridRepository(session).series_with_fallback(
            self._zone, self._basis, interval.start, interval.end, self._settings
        )
        return price_by_reading(interval, series, pue=self._settings.training_site.pue)


def _with_fixed_rho(decision: RhoDecision, job: Job) -> RhoDecision:
    """Return the decision of a baseline, which has no ρ to choose: ρ is its share of full FLOPs, as estimated."""
    known = decision.intensity_gco2e_per_kwh
    about = "" if known is None else f"{known:.6g} gCO2e/kWh ({decision.source}); "
    reason = f"{about}{job.method} trains {TRAINED_PARTS.get(job.method, 'a fixed part')}, and no ρ is set"
    return replace(decision, rho=method_share(job), reason=reason, ends_run=False)


def _fit_utility(curve: ConcaveCurve) -> dict[str, Any] | None:
    """Return the utility of ρ as fitted to the newest probe, as JSON; None where the probe found no difference.

    The probe covers ρ up to the epoch's own. Beyond, the default curve is scaled to join it: an assumption.
    """
    if len(curve.rho) < 2:
        return None
    reached = float(curve.rho[-1])
    beyond = DEFAULT_UTILITY.rho[DEFAULT_UTILITY.rho > reached + 1e-6]
    scale = float(curve.importance[-1]) / float(DEFAULT_UTILITY.at(reached))
    if beyond.size == 0 or scale <= 0:
        return UtilityCurve.from_points(curve.rho, curve.importance).to_json()
    further = DEFAULT_UTILITY.at(beyond) * scale
    return UtilityCurve.from_points([*curve.rho, *beyond], [*curve.importance, *further]).to_json()


def _resolve_checkpointing(job: Job, settings: Settings) -> Hyperparameters:
    """Return a job's hyperparameters, with the `auto` of recomputation as this worker's device needs it.

    It stays `auto` where preparation did not trace that: the run does.
    """
    hyperparameters = Hyperparameters.model_validate(job.hyperparameters)
    device = Device(device_name(), device_memory(settings), device_computes_bf16())
    return hyperparameters.model_copy(update={"gradient_checkpointing": choose_recomputation(job, device)})
