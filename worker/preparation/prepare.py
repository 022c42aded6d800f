"""Prepares a job: checks its model, rows and policy, and estimates its FLOPs; measures the catalogue's models."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Literal, cast

import structlog

from greencore.clock import utc_now
from greencore.device import Device, RunPrecision
from greencore.policy import parse_stored_policy
from greencore.settings.hyperparameters import Hyperparameters
from greencore.settings.layout_choice import LayoutName
from greencore.settings.method_choice import AUTO, ChosenMethod, MethodChoice
from greencore.settings.method_settings import AdaptiveSettings, LoraSettings
from greencore.settings.run_length import check_epoch_count, compute_run_length, count_warmup_steps
from greencore.settings.value_types import LogitPositions
from greencore.training.batches.positions import get_position_limits
from greencore.training.data.tokenisation import MAX_NAMED_LINES
from greencore.training.inputs import TrainingInputs, prepare_inputs
from greencore.training.methods.baselines import Baseline, count_method_flops
from greencore.training.methods.method_shares import MethodShares
from greencore.training.methods.step_costs import StepCosts
from greencore.training.methods.tensor_patterns import match_tensor_patterns, read_model_names
from greencore.training.models.loading import (
    ModelError,
    enable_gradient_checkpointing,
    load_meta_model,
)
from greencore.training.run_memory import RunMemory
from planning.device_fit import MemoryNeed
from planning.live_devices import list_live_devices
from planning.method_budget import ExpectedRho, choose_job_method, expect_rho
from planning.peak_memory import TracedStep
from runtime.catalogue import read_catalogue
from runtime.settings import Settings, get_settings
from runtime.tracing import span
from store.database import Database, wake_scheduler
from store.lifecycle.status import JobStatus
from store.lifecycle.transitions import transition
from store.repositories.datasets import locate_rows_file, locate_validation_file
from store.repositories.jobs import JobRepository
from store.repositories.lineage import LineageRepository
from store.repositories.models import ModelRepository
from store.stored_rows import load_stored_rows
from store.tables import Job
from worker.base_model import fetch_model_folder, fetch_nearest_model
from worker.database_retry import TRANSIENT_DATABASE_ERRORS
from worker.failure_reports import explain_error
from worker.preparation.budget_check import check_budget
from worker.preparation.memory import DeviceTooSmall, fit_gpus
from worker.preparation.model_costs import choose_reference_shapes, compute_lowest_floor, compute_row_costs
from worker.preparation.rho_floor import check_rho_floor

log = structlog.get_logger()


@dataclass(frozen=True)
class JobEstimate:
    """Estimate of a job before it runs. `full_flops` are full fine-tuning's over all epochs, with mean padding.

    `rho_floor` is the smallest ρ at which the job can train, under its own constraints on tensors.
    `method_flops` are those of a baseline's own steps; None for "greentrainer", whose ρ decides. `held_out_duplicates`
    counts rows that are not held out since an equal row is trained on. `epochs` are those that begin: `max_steps` may
    end the run within the last. `max_length` is the number of tokens of a row that the model has positions for; None
    where it is unlimited.

    `training_examples` are what the training rows are tokenised to: a conversation may have several. `dropped_rows`
    counts the dataset's rows that are neither trained on nor held out, since nothing of them is learned, and
    `dropped_lines` are the line numbers of the first of them. `step_memory` has the parts of the peak memory, from
    which that of similar jobs is predicted, and `memory_needs` what the job needs in each precision that it would take
    on a live device, by which it is placed. `logits`: the positions whose logits the model computes, all where it does
    not take positions. `layout`: how its rows become batches. The figures of memory are those of each of its `gpus`.
    """

    training_rows: int
    held_out_rows: int
    shortened_prompts: int
    shortened_completions: int
    tokens_per_epoch: int
    steps: int
    steps_per_epoch: int
    epochs: int
    full_flops: int
    rho_floor: float
    parameters: int
    tensors: int
    method_flops: int | None = None
    held_out_duplicates: int = 0
    max_length: int | None = None
    training_examples: int | None = None
    dropped_rows: int = 0
    dropped_lines: tuple[int, ...] = ()
    peak_memory_bytes: int | None = None
    device_memory_bytes: int | None = None
    gradient_checkpointing: bool = False
    step_memory: TracedStep | None = None
    memory_needs: Mapping[RunPrecision, MemoryNeed] = field(default_factory=dict)
    logits: LogitPositions = "all"
    layout: LayoutName = "padded"
    gpus: int = 1


def prepare_job(job_id: str) -> None:
    """Move a job from `validating` to `queued`, or to `failed` with the field at fault; others are left alone."""
    settings = get_settings()
    with Database(settings.database_url) as database:
        with database.session() as session:
            job = JobRepository(session).get(job_id)
        if job is None or job.status is not JobStatus.VALIDATING:
            log.info("prepare.not_needed", job=job_id, status=job and job.status)
            return
        with span("prepare", kind="consumer", parent=job.traceparent, greentune__job=job_id):
            _prepare(job, database, settings)


def _prepare(job: Job, database: Database, settings: Settings) -> None:
    error, estimate, choice = None, None, None
    try:
        with database.session() as session:
            rows_in = locate_rows_file(session, job.dataset_id, settings)
            validation_in = locate_validation_file(session, job, settings)
            bases = LineageRepository(session).list_bases(job)
            within = timedelta(seconds=settings.lease_seconds)
            attention = Hyperparameters.model_validate(job.hyperparameters).attention
            devices = list_live_devices(session, zone=job.zone_asked, within=within, attention=attention)
        inputs = _read_inputs(job, rows_in, settings, validation_in=validation_in, bases=bases)
        if job.method == AUTO:
            policy = parse_stored_policy(job.policy)
            with database.session() as session:
                expected = expect_rho(session, settings, policy, zone=job.zone_asked, at=utc_now())
            choice, estimate = _choose_and_estimate(job, inputs, expected, devices=devices)
        else:
            estimate = estimate_run(job, inputs, devices=devices)
        job.estimate, job.steps, job.epochs = asdict(estimate), estimate.steps, estimate.epochs
        job.gpus = estimate.gpus
        with database.session() as session:
            check_budget(session, job, settings, at=utc_now())
    except TRANSIENT_DATABASE_ERRORS:
        raise
    except Exception as fault:
        log.warning("prepare.failed", job=job.id, exc_info=fault)
        error = explain_error(fault, reference=f"job={job.id}")
    with database.session() as session:
        jobs = JobRepository(session)
        locked = jobs.lock(job.id)
        if locked is None or locked.status is not JobStatus.VALIDATING:
            return
        if estimate is None or error is not None:
            assert error is not None
            jobs.fail(locked, at=utc_now(), error=error)
            wake_scheduler(session)
            return
        locked.estimate, locked.steps, locked.epochs = job.estimate, estimate.steps, estimate.epochs
        locked.gpus = job.gpus
        if choice is not None:
            jobs.set_method(
                locked, choice.method, hyperparameters=job.hyperparameters, reason=choice.reason, at=utc_now()
            )
        transition(session, locked, JobStatus.QUEUED, at=utc_now())
        wake_scheduler(session)
        models, settings_of_job = ModelRepository(session), Hyperparameters.model_validate(job.hyperparameters)
        if settings_of_job.adaptive is None or not settings_of_job.adaptive.changes_floor:
            models.put(
                job.model,
                parameters=estimate.parameters,
                tensors=estimate.tensors,
                rho_floor=estimate.rho_floor,
                max_length=estimate.max_length,
                at=utc_now(),
            )
        if estimate.method_flops is not None and settings_of_job.lora is None:
            models.put_method_share(job.model, job.method, estimate.method_flops / estimate.full_flops)
    log.info("job.prepared", job=job.id, steps=estimate.steps, rho_floor=round(estimate.rho_floor, 4))


def estimate_job(
    job: Job,
    rows_in: Path,
    settings: Settings,
    *,
    validation_in: Path | None = None,
    bases: Sequence[Job] = (),
    devices: Sequence[Device | None] = (),
) -> JobEstimate:
    """Estimate a job from its tokenised rows and its model on the meta device; `validation_in` has its validation rows.

    `bases` are the jobs whose results it trains further, nearest first; `devices` are those of the live workers that
    may run it, None for one whose memory is not known.
    Raises the errors that `worker.failure_reports` explains.
    """
    inputs = _read_inputs(job, rows_in, settings, validation_in=validation_in, bases=bases)
    return estimate_run(job, inputs, devices=devices)


def _read_inputs(
    job: Job, rows_in: Path, settings: Settings, *, validation_in: Path | None, bases: Sequence[Job]
) -> TrainingInputs:
    return prepare_inputs(
        fetch_nearest_model(job, bases, settings),
        load_stored_rows(rows_in),
        None if validation_in is None else load_stored_rows(validation_in),
        Hyperparameters.model_validate(job.hyperparameters),
        method=job.method,
    )


def estimate_run(
    job: Job, inputs: TrainingInputs, *, devices: Sequence[Device | None] = (), shares: MethodShares | None = None
) -> JobEstimate:
    """Estimate a job by its method and hyperparameters; its meta model may get an adapter.

    What `shares`, by which the method was chosen, has traced is not traced again. Other arguments and the errors are
    those of `estimate_job`.
    """
    hyperparameters = Hyperparameters.model_validate(job.hyperparameters)
    meta_model, rows, lengths, positions = inputs.meta_model, inputs.rows, inputs.lengths, inputs.positions
    layout = inputs.choose_layout(hyperparameters, job.method)
    shapes = layout.measure_extremes(lengths, positions)
    _, highest = parse_stored_policy(job.policy).rho_range
    run_memory = RunMemory(inputs.folder, job.method, highest, lengths, positions, layout)
    gpus, memory = fit_gpus(run_memory, hyperparameters, devices, asked=job.gpus_asked)
    if memory.recomputes:
        enable_gradient_checkpointing(meta_model)
    adaptive = hyperparameters.adaptive or AdaptiveSettings()
    roles = match_tensor_patterns(meta_model, never_train=adaptive.never_train, always_train=adaptive.always_train)
    traced = shares if shares is not None and shares.recomputes == memory.recomputes else None
    costs = (
        traced.full_costs if traced else run_memory.trace_costs(meta_model, shapes, roles, recomputes=memory.recomputes)
    )
    check_epoch_count(hyperparameters, training_rows=len(lengths))
    length = compute_run_length(hyperparameters, training_rows=len(lengths))
    count_warmup_steps(hyperparameters, steps=length.steps)
    rho_floor = costs.floor
    if job.method == "greentrainer":
        policy = parse_stored_policy(job.policy)
        rho_floor = check_rho_floor(policy, costs, lengths, length, hyperparameters)
    counted, shuffles = layout.count_shapes(lengths, positions)
    per_epoch = costs.count_flops(costs.tensors, counted) / shuffles
    # Of the model alone: counting a method's FLOPs may add an adapter to it.
    parameters = sum(parameter.numel() for parameter in meta_model.parameters())
    max_length = get_position_limits(meta_model).row_tokens
    method_flops = None
    if job.method != "greentrainer":
        spent = (
            traced.count_flops(cast(Literal["full", "lora"], job.method), hyperparameters.lora)
            if traced
            else count_method_flops(
                cast(Baseline, job.method), meta_model, costs, counted, shapes, lora=hyperparameters.lora
            )
        )
        method_flops = round(spent / shuffles * length.whole_epochs)
    return JobEstimate(
        training_rows=len(rows.training.rows),
        held_out_rows=len(rows.held_out.rows),
        shortened_prompts=rows.training.shortened_prompts,
        shortened_completions=rows.training.shortened_completions,
        tokens_per_epoch=sum(sum(layout.get_token_lengths(row)) for row in lengths),
        steps=length.steps,
        steps_per_epoch=length.steps_per_epoch,
        epochs=length.epochs,
        full_flops=round(per_epoch * length.whole_epochs),
        rho_floor=rho_floor,
        parameters=parameters,
        tensors=len(costs.tensors),
        method_flops=method_flops,
        held_out_duplicates=rows.held_out_duplicates,
        max_length=max_length,
        training_examples=len(lengths),
        dropped_rows=len(rows.dropped_lines),
        dropped_lines=rows.dropped_lines[:MAX_NAMED_LINES],
        peak_memory_bytes=memory.peak_bytes,
        device_memory_bytes=None if memory.device is None else memory.device.memory_bytes,
        gradient_checkpointing=memory.recomputes,
        logits="learned" if inputs.learned_only else "all",
        layout=layout.name,
        step_memory=memory.traced,
        memory_needs=memory.needs,
        gpus=gpus,
    )


def _choose_and_estimate(
    job: Job, inputs: TrainingInputs, expected: ExpectedRho, *, devices: Sequence[Device | None]
) -> tuple[MethodChoice, JobEstimate]:
    """Choose the method of a job that leaves it open, set it with its hyperparameters, and estimate the job by it.

    A method whose steps fit no live device is passed over. Raises as `estimate_job`, and `MethodsUnavailable`.
    """
    given = Hyperparameters.model_validate(job.hyperparameters_asked or {})
    policy, shares = (
        parse_stored_policy(job.policy),
        MethodShares(inputs, given, recomputes=given.gradient_checkpointing is True),
    )
    check_epoch_count(given, training_rows=len(inputs.lengths))
    length = compute_run_length(given, training_rows=len(inputs.lengths))
    too_large: dict[str, str] = {}

    def measure_share(method: ChosenMethod, lora: LoraSettings | None) -> float | str:
        return too_large.get(method) or shares.measure(method, lora)

    while True:
        choice = choose_job_method(expected, policy, given, length, measure_share, width=shares.width)
        job.method, job.hyperparameters = choice.method, choice.hyperparameters.model_dump(mode="json")
        try:
            estimate = estimate_run(job, inputs, devices=devices, shares=shares)
            if not estimate.gradient_checkpointing or shares.recomputes:
                return choice, estimate
            # Recomputed steps cost more, and the budget pays for fewer; this estimate may have added an adapter.
            inputs = replace(inputs, meta_model=load_meta_model(inputs.folder, attention=given.attention))
            shares = MethodShares(inputs, given, recomputes=True)
        except DeviceTooSmall as error:
            if choice.method == "greentrainer":
                raise
            too_large[choice.method] = str(error)


def measure_catalogue() -> None:
    """Store size, ρ floor, FLOPs and names of every catalogue model: the API needs them, and has no torch."""
    settings = get_settings()
    database = Database(settings.database_url)
    for name in read_catalogue(settings.catalogue):
        with database.session() as session:
            known = ModelRepository(session).get(name)
            if known is not None and known.costs is not None and "width" in known.costs and known.names is not None:
                continue
        try:
            meta_model = load_meta_model(fetch_model_folder(name, settings))
        except ModelError as error:
            log.warning("model.unusable", model=name, error=str(error))
            continue
        max_length = get_position_limits(meta_model).row_tokens
        shapes = choose_reference_shapes(meta_model, max_length)
        costs = StepCosts(meta_model, shapes)
        rho_floor = compute_lowest_floor(costs, shapes)
        with database.session() as session:
            ModelRepository(session).put(
                name,
                parameters=sum(parameter.numel() for parameter in meta_model.parameters()),
                tensors=len(costs.tensors),
                rho_floor=rho_floor,
                max_length=max_length,
                costs=compute_row_costs(meta_model, costs, shapes).to_json(),
                names=asdict(read_model_names(meta_model)),
                at=utc_now(),
            )
        log.info("model.measured", model=name, rho_floor=round(rho_floor, 4))
