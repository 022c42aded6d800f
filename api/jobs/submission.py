"""Validates a job submission against models, datasets, zones and policies, and reports all faults at once."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy.orm import Session

from api.access.principal import Principal
from api.dependencies import AppContext
from api.http.problems import FieldProblem, Problem, invalid_fields, join_names
from api.jobs.base_model import ModelChoice, ModelRefused, resolve_model
from api.jobs.request import JobRequest
from api.policies.schemas import resolve_policy
from greencore.model_names import ModelNames
from greencore.policy import Policy
from greencore.settings.checks import check_evaluation, check_method, check_processes
from greencore.settings.hyperparameters import Hyperparameters, SettingUnsupported
from greencore.settings.method_choice import AUTO
from greencore.settings.method_settings import AdaptiveSettings
from greencore.settings.run_length import check_epoch_count, compute_run_length, count_warmup_steps
from planning.live_devices import list_gpu_numbers, list_live_devices, select_with_gpus
from planning.method_budget import find_certain_method
from planning.peak_memory import JobSettings, explain_impossible_job
from store.repositories.datasets import DatasetRepository
from store.repositories.jobs import NewJob
from store.repositories.models import ModelRepository
from store.tables import Dataset

MAX_DEADLINE_AHEAD = timedelta(days=366)
SINGLE_EXAMPLE_FORMS = {"prompt", "instruction", "text"}  # forms of row with one training example each


def validate_submission(
    request: JobRequest, *, principal: Principal, context: AppContext, session: Session, now: datetime
) -> NewJob:
    """Return the job that a submission describes. Raises the 422 that names every invalid field."""
    errors = list(_reference_errors(request, principal, context, session, now))
    base = ModelChoice(request.model)
    try:
        base = resolve_model(request.model, principal=principal, context=context, session=session)
    except ModelRefused as refused:
        errors.insert(0, FieldProblem(field="model", message=str(refused)))
    settings = request.hyperparameters
    for check in (
        partial(check_method, settings, request.method),
        partial(check_evaluation, settings, has_validation=request.validation_dataset is not None),
        partial(check_processes, settings, request.resources.asked or 1),
    ):
        try:
            check()
        except SettingUnsupported as error:
            errors.append(FieldProblem(field=f"hyperparameters.{error.field}", message=str(error)))
    try:
        policy = resolve_policy(request.policy, session)
    except Problem as problem:
        raise invalid_fields([*errors, *problem.errors]) from problem
    method = find_certain_method(request.method, policy)
    errors += _model_errors(request, base.name, method, policy, session)
    errors += _device_errors(request, base.name, method, policy, context, session)
    if errors:
        raise invalid_fields(errors)
    dataset = DatasetRepository(session).get(request.dataset)
    assert dataset is not None
    resolved = _resolve_hyperparameters(request)
    return NewJob(
        owner=principal.owner,
        name=request.name,
        model=base.name,
        base_job_id=base.job_id,
        dataset_id=request.dataset,
        method=request.method,
        policy_name=request.policy if isinstance(request.policy, str) else None,
        policy=policy.to_json(),
        zone=request.zone,
        deadline=request.deadline,
        priority=request.priority,
        gpus_asked=request.resources.asked,
        gpus=request.resources.asked or 1,
        hyperparameters=resolved.model_dump(mode="json"),
        hyperparameters_asked=resolved.model_dump(mode="json", exclude_unset=True) if request.method == AUTO else None,
        labels=request.metadata,
        # Preparation counts the training rows, and with them the epochs of `max_steps`.
        epochs=compute_run_length(request.hyperparameters, training_rows=dataset.rows).epochs,
        validation_dataset_id=request.validation_dataset,
    )


def _resolve_hyperparameters(request: JobRequest) -> Hyperparameters:
    """Return the hyperparameters; with a validation dataset no share of the rows is held out."""
    if request.validation_dataset is None:
        return request.hyperparameters
    return request.hyperparameters.model_copy(update={"eval_share": 0.0})


def _reference_errors(
    request: JobRequest, principal: Principal, context: AppContext, session: Session, now: datetime
) -> Iterator[FieldProblem]:
    dataset = DatasetRepository(session).lock_for_use(request.dataset)
    if dataset is None or not principal.can_read(dataset.owner):
        yield FieldProblem(field="dataset", message=f"there is no dataset {request.dataset!r}: upload one to /datasets")
    else:
        yield from _length_errors(request.hyperparameters, dataset)
    if request.validation_dataset is not None:
        yield from _validation_errors(request, dataset, principal, session)
    if request.zone is not None and request.zone not in context.settings.zones:
        message = f"there is no zone {request.zone!r}: known are {join_names(context.settings.zones)}"
        yield FieldProblem(field="zone", message=message)
    if request.deadline is not None:
        if request.deadline <= now:
            message = f"{request.deadline.isoformat()} has passed: it is {now.isoformat(timespec='seconds')}"
            yield FieldProblem(field="deadline", message=message)
        elif request.deadline > now + MAX_DEADLINE_AHEAD:
            yield FieldProblem(field="deadline", message=f"is more than {MAX_DEADLINE_AHEAD.days} days ahead")


def _length_errors(hyperparameters: Hyperparameters, dataset: Dataset) -> Iterator[FieldProblem]:
    """Yield the faults of the run's length in a dataset of one example a row; others are counted in preparation."""
    forms = (dataset.contents or {}).get("forms")  # unknown of a dataset of an early release
    if not forms or not set(forms) <= SINGLE_EXAMPLE_FORMS:
        return
    try:
        check_epoch_count(hyperparameters, training_rows=dataset.rows)
        # Rows that are held out or dropped only make the run shorter, as preparation checks.
        length = compute_run_length(hyperparameters, training_rows=dataset.rows)
        count_warmup_steps(hyperparameters, steps=length.steps)
    except SettingUnsupported as error:
        yield FieldProblem(field=f"hyperparameters.{error.field}", message=str(error))


def _validation_errors(
    request: JobRequest, dataset: Dataset | None, principal: Principal, session: Session
) -> Iterator[FieldProblem]:
    field, given = "validation_dataset", request.validation_dataset
    assert given is not None
    if "eval_share" in request.hyperparameters.model_fields_set and request.hyperparameters.eval_share > 0:
        message = f"given {request.hyperparameters.eval_share:g} beside validation_dataset: expected one of them"
        yield FieldProblem(field="hyperparameters.eval_share", message=message)
    if given == request.dataset:
        yield FieldProblem(field=field, message="is the dataset itself, so each of its rows is trained on")
        return
    validation = DatasetRepository(session).lock_for_use(given)
    if validation is None or not principal.can_read(validation.owner):
        yield FieldProblem(field=field, message=f"there is no dataset {given!r}: upload one to /datasets")
    elif dataset is not None and validation.contents and dataset.contents:  # older ones are compared in preparation
        forms, known = set(validation.contents["forms"]), set(dataset.contents["forms"])
        if not forms <= known:
            message = f"has rows of the form {join_names(forms - known)}, and the dataset has only {join_names(known)}"
            yield FieldProblem(field=field, message=message)


def _model_errors(
    request: JobRequest, name: str, method: str, policy: Policy, session: Session
) -> Iterator[FieldProblem]:
    """Yield the faults that what was measured of the model shows; what is not yet known is checked in preparation."""
    model = ModelRepository(session).get(name)
    if model is None:
        return
    field, rho = policy.lowest_rho()
    if method == "greentrainer" and rho < model.rho_floor:
        message = f"given {rho:g}: {name} needs at least {model.rho_floor:.4g} to train one tensor"
        if isinstance(request.policy, str):
            yield FieldProblem(field="policy", message=f"{field} of {request.policy!r}: {message}")
        else:
            yield FieldProblem(field=f"policy.{field}", message=message)
    share = (model.costs or {}).get("methods", {}).get(request.method)
    lora = request.hyperparameters.lora
    own_targets = request.method == "lora" and lora is not None and lora.targets is not None
    if isinstance(share, str) and not own_targets:
        message = f"given {request.method!r}, which {name} cannot be trained by: {share}"
        yield FieldProblem(field="method", message=message)
    given = request.hyperparameters.max_length
    if model.max_length is not None and given > model.max_length:
        message = f"given {given}, but {name} has positions for {model.max_length} tokens of a row"
        yield FieldProblem(field="hyperparameters.max_length", message=message)
    adaptive, targets = request.hyperparameters.adaptive or AdaptiveSettings(), _get_lora_targets(request)
    if not (adaptive.never_train or adaptive.always_train or targets):  # the model's names are large, and loaded apart
        return
    if model.names is not None:
        names = ModelNames(**model.names)
        try:
            names.match_patterns(never_train=adaptive.never_train, always_train=adaptive.always_train)
            names.check_lora_targets(targets)
        except SettingUnsupported as error:
            yield FieldProblem(field=f"hyperparameters.{error.field}", message=str(error))


def _get_lora_targets(request: JobRequest) -> Sequence[str]:
    """Return the names of modules that a job's LoRA adapts, where it gives such."""
    lora = request.hyperparameters.lora
    given = None if request.method not in ("lora", AUTO) or lora is None else lora.targets
    return given if isinstance(given, tuple | list) else ()


def _device_errors(
    request: JobRequest, name: str, method: str, policy: Policy, context: AppContext, session: Session
) -> Iterator[FieldProblem]:
    """Yield the faults of a job that no live device can run, whatever its rows are; preparation predicts the others."""
    within = timedelta(seconds=context.settings.lease_seconds)
    list_devices = partial(list_live_devices, session, zone=request.zone, within=within)
    devices = list_devices(attention=request.hyperparameters.attention)
    asked = request.resources.asked
    reasons = []
    for gpus in list_gpu_numbers(request.hyperparameters, devices) if asked is None else [asked]:
        wanted = JobSettings.of(name, method, policy, request.hyperparameters, gpus)
        reasons.append(explain_impossible_job(session, select_with_gpus(devices, gpus), wanted))
    if None not in reasons:
        yield FieldProblem(field="model", message=f"given {name!r}: {reasons[-1]}")
    if request.hyperparameters.attention == "flash" and not devices and list_devices():
        zone = "" if request.zone is None else f" in zone {request.zone}"
        message = f"given 'flash', which needs a GPU, and every live worker{zone} trains on a CPU"
        yield FieldProblem(field="hyperparameters.attention", message=message)
