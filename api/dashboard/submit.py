"""`/dashboard/submit`: the form that estimates and submits a job."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, get_args

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse
from sqlalchemy.orm import Session

from api.dashboard.form_fields import field_groups, fields_of
from api.dashboard.grid import country_name
from api.dashboard.page import Page, PageDep
from api.dashboard.policies.policy_summary import summarise_policy
from api.jobs.base_model import JOB_PREFIX
from api.jobs.request import DEFAULT_POLICY, JobRequest, Method
from api.models.endpoints import list_models
from api.zones.endpoints import find_intensity, list_zones
from api.zones.schemas import IntensityOut, ZoneOut
from greencore.policy import Policy, parse_stored_policy
from greencore.settings.fields import format_value, list_setting_groups
from greencore.settings.hyperparameters import Hyperparameters
from store.intensity.readings import GridRepository
from store.repositories.datasets import DatasetRepository
from store.repositories.jobs import JobRepository
from store.repositories.policies import PolicyRepository
from store.tables import Dataset, Job

METHODS = {
    "auto": ("Automatic", "chosen as the job is prepared: what learned most in a benchmark at the job's budget"),
    "greentrainer": ("GreenTrainer", "adaptive: each epoch trains the tensors that matter most, within its ρ"),
    "full": ("Full fine-tuning", "trains every tensor in every step"),
    "lora": ("LoRA", "trains an adapter of small matrices"),
    "prefix": ("Prefix tuning", "trains a prefix that every layer attends to"),
    "top2": ("Top 2", "trains the output embedding and the last normalisation"),
    "bitfit": ("BitFit", "trains the biases"),
}
EXAMPLE_POLICY = {**DEFAULT_POLICY, "gate": {"mode": "defer", "max_delay_hours": 12}}
DATASETS_SHOWN = 200
SETTINGS = "hyperparameters."
MAX_POLICIES = 500
# Choices besides the names of stored policies, which are not empty and have no braces.
DEFAULT_CHOICE, INLINE_CHOICE = "", "{}"

router = APIRouter()


@router.get("/dashboard/submit")
def submit_page(
    page: PageDep,
    like: Annotated[str | None, Query(alias="from", description="Job whose values the form starts with")] = None,
    dataset: Annotated[str | None, Query(description="Dataset that the form starts with")] = None,
    model: Annotated[str | None, Query(description="Model, or finished job, that the form starts with")] = None,
) -> HTMLResponse:
    """Render the form, whose script estimates and submits through the REST interface."""
    principal, context, session, now = page.principal, page.context, page.session, page.now
    job = None if like is None else principal.require_readable(JobRepository(session).get(like), f"job {like!r}")
    initial = {"values": {}, "metadata": []} if job is None else _copy(job, session)
    if dataset is not None:
        initial["values"]["dataset"] = dataset
    if model is not None:
        initial["values"]["model"] = model
    chosen = [initial["values"].get(name) for name in ("dataset", "validation_dataset")]
    shown, more = _list_datasets(page, wanted=[dataset_id for dataset_id in chosen if dataset_id])
    common, *groups = field_groups(list_setting_groups(Hyperparameters), prefix=SETTINGS)
    of_job = {field.name: field for field in fields_of(JobRequest.model_json_schema())}
    policies = PolicyRepository(session).page(limit=MAX_POLICIES).data
    return page.render(
        "submit.html",
        title="New job",
        here="submit",
        like=job,
        prefill=json.dumps(initial),
        models=list_models(principal, context, session).data,
        base_job=_find_base_job(page, initial["values"].get("model")),
        datasets=shown,
        more_datasets=more,
        max_upload_bytes=context.settings.max_upload_bytes,
        methods=[(name, *METHODS[name]) for name in get_args(Method)],
        policies=[(policy, _describe(parse_stored_policy(policy.body))) for policy in policies],
        default_choice=DEFAULT_CHOICE,
        inline_choice=INLINE_CHOICE,
        default_policy=_describe(parse_stored_policy(DEFAULT_POLICY)),
        example_policy=json.dumps(EXAMPLE_POLICY, indent=2),
        zones=list(_zone_options(page, list_zones(principal, context, session, now).data)),
        name=of_job["name"],
        priority=of_job["priority"],
        common=common,
        groups=groups,
    )


def _find_base_job(page: Page, model: str | None) -> Job | None:
    """Return the job whose result the form starts with as its model; None for a model of the catalogue."""
    if model is None or not model.startswith(JOB_PREFIX):
        return None
    return page.principal.require_readable(JobRepository(page.session).get(model), f"job {model!r}")


def _list_datasets(page: Page, *, wanted: Sequence[str]) -> tuple[list[Dataset], bool]:
    """Return the newest datasets that the principal sees, plus the wanted ones, and whether there are more."""
    repository = DatasetRepository(page.session)
    newest = repository.page(limit=DATASETS_SHOWN, owner=page.principal.owner_filter)
    shown = list(newest.data)
    for dataset_id in wanted:
        found = None if any(dataset.id == dataset_id for dataset in shown) else repository.get(dataset_id)
        if found is not None and page.principal.can_read(found.owner):
            shown.append(found)
    return shown, newest.has_more


def _zone_options(page: Page, known: list[ZoneOut]) -> Iterator[tuple[ZoneOut, str | None, IntensityOut | None]]:
    """Yield the zones that a job can request, each with its country and the intensity that would decide ρ now."""
    grid, settings = GridRepository(page.session), page.context.settings
    for zone in known:
        if zone.zone in settings.zones:
            basis = grid.newest_basis(zone.zone) or settings.basis(zone.zone)
            intensity = find_intensity(grid, settings, zone.zone, basis, now=page.now)
            yield zone, country_name(settings, zone.zone), intensity


def _copy(job: Job, session: Session) -> dict[str, Any]:
    """Return a job's values by name, and its metadata as pairs; without the deadline, which has mostly passed."""
    choice, inline = _policy_choice(job, session)
    values = {
        "name": job.name,
        "model": job.base_job_id or job.model,
        "dataset": job.dataset_id,
        "validation_dataset": job.validation_dataset_id,
        "method": job.method_asked,
        "policy": choice,
        "policy-json": inline,
        "zone": job.zone_asked,
        "priority": job.priority,
        "resources.gpus": None if job.gpus_asked == 1 else job.gpus_asked or "auto",
        **dict(_flatten(_get_given_hyperparameters(job), SETTINGS)),
    }
    texts = {name: format_value(value) for name, value in values.items()}
    return {"values": texts, "metadata": [[key, value] for key, value in job.labels.items()]}


def _get_given_hyperparameters(job: Job) -> Mapping[str, Any]:
    return job.hyperparameters if job.hyperparameters_asked is None else job.hyperparameters_asked


def _flatten(settings: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield each setting with its path, those of nested groups too."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _policy_choice(job: Job, session: Session) -> tuple[str, str]:
    """Return the choice of the job's policy: its name, if its newest version is the same, else its body."""
    if job.policy_name is not None:
        stored = PolicyRepository(session).latest(job.policy_name)
        if stored is not None and parse_stored_policy(stored.body) == parse_stored_policy(job.policy):
            return job.policy_name, ""
    elif parse_stored_policy(job.policy) == parse_stored_policy(DEFAULT_POLICY):
        return DEFAULT_CHOICE, ""
    return INLINE_CHOICE, json.dumps(job.policy, indent=2, ensure_ascii=False)


def _describe(policy: Policy) -> str:
    return "ρ {rho}: {rule}; {gate}".format_map(summarise_policy(policy))
