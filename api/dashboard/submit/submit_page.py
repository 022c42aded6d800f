"""`/dashboard/submit`: the form that estimates and submits a job."""

import json
from http import HTTPStatus
from typing import Annotated, get_args

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from api.access.principal import PrincipalDep
from api.dashboard.form_fields import fields_of
from api.dashboard.submit.choices import (
    DEFAULT_CHOICE,
    INLINE_CHOICE,
    dataset_options,
    describe_policy,
    policy_options,
    zone_options,
)
from api.dashboard.submit.prefill import prefill
from api.dependencies import AppContextDep, NowDep, SessionDep
from api.http.problems import Problem
from api.jobs.request import DEFAULT_POLICY, JobRequest, Method
from api.models.endpoints import list_models
from api.templating import render_page
from api.zones.endpoints import list_zones
from greencore.hyperparameters import Hyperparameters
from store.repositories.jobs import JobRepository

METHODS = {
    "greentrainer": ("GreenTrainer", "adaptive: each epoch trains the tensors that matter most, within its ρ"),
    "full": ("Full fine-tuning", "trains every tensor in every step"),
    "lora": ("LoRA", "trains an adapter of small matrices"),
    "prefix": ("Prefix tuning", "trains a prefix that every layer attends to"),
    "top2": ("Top 2", "trains the output embedding and the last normalisation"),
    "bitfit": ("BitFit", "trains the biases"),
}
BASIC_SETTINGS = ("epochs", "batch_size", "learning_rate", "max_length")
EXAMPLE_POLICY = {**DEFAULT_POLICY, "gate": {"mode": "defer", "max_delay_hours": 12}}

router = APIRouter()


@router.get("/dashboard/submit")
def submit_page(
    principal: PrincipalDep,
    context: AppContextDep,
    session: SessionDep,
    now: NowDep,
    like: Annotated[str | None, Query(alias="from", description="Job whose values the form starts with")] = None,
    dataset: Annotated[str | None, Query(description="Dataset that the form starts with")] = None,
) -> HTMLResponse:
    """Render the form, whose script estimates and submits through the REST interface."""
    job = None if like is None else JobRepository(session).get(like)
    if like is not None and (job is None or not principal.can_read(job.owner)):
        raise Problem(HTTPStatus.NOT_FOUND, f"there is no job {like!r}")
    initial = {"values": {}, "metadata": []} if job is None else prefill(job, session)
    if dataset is not None:
        initial["values"]["dataset"] = dataset
    shown, more = dataset_options(session, principal, wanted=initial["values"].get("dataset"))
    settings = fields_of(Hyperparameters.model_json_schema(), prefix="hyperparameters.")
    [priority] = [field for field in fields_of(JobRequest.model_json_schema()) if field.name == "priority"]
    return render_page(
        "submit.html",
        title="New job",
        here="submit",
        principal=principal,
        like=job,
        prefill=json.dumps(initial),
        models=list_models(principal, context, session).data,
        datasets=shown,
        more_datasets=more,
        max_upload_bytes=context.settings.max_upload_bytes,
        methods=[(name, *METHODS[name]) for name in get_args(Method)],
        policies=policy_options(session),
        default_choice=DEFAULT_CHOICE,
        inline_choice=INLINE_CHOICE,
        default_policy=describe_policy(dict(DEFAULT_POLICY)),
        example_policy=json.dumps(EXAMPLE_POLICY, indent=2),
        zones=zone_options(session, context.settings, list_zones(principal, context, session, now).data, now=now),
        priority=priority,
        usual=[field for field in settings if field.name in BASIC_SETTINGS],
        other=[field for field in settings if field.name not in BASIC_SETTINGS],
    )
