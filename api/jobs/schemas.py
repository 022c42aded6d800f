"""Jobs on the wire: what is submitted, and what can be read of a job and of what belongs to it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from api.policies.schemas import PolicyChoice
from api.times import UtcDatetime
from greencore.hyperparameters import Hyperparameters
from greencore.text import Text
from store.jobs import EmissionsBasis, EpochCost
from store.status import JobStatus
from store.tables import Artifact, Epoch, Event, Job

METHODS = ("greentrainer", "full")
METHODS_TO_COME = ("lora", "prefix", "top2", "bitfit")
# The paper's advice (§4.2): about 40 % of the training cost saved without a noticeable risk to accuracy.
DEFAULT_POLICY: Mapping[str, Any] = {"kind": "constant", "rho": 0.6}


def _supported(method: str) -> str:
    expected = f"expected one of {', '.join(METHODS)}"
    if method in METHODS_TO_COME:
        raise ValueError(f"{method!r} is not supported yet: {expected}")
    if method not in METHODS:
        raise ValueError(f"given {method!r}: {expected}")
    return method


Method = Annotated[str, AfterValidator(_supported), Field(json_schema_extra={"enum": list(METHODS)})]
MetadataKey = Annotated[Text, Field(min_length=1, max_length=64)]
MetadataValue = Annotated[Text, Field(max_length=512)]


class JobRequest(BaseModel):
    """A fine-tuning run to be done."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "model": "SmolLM2-135M-Instruct",
                    "dataset": "dataset_0197c1d2e3f47a5b8c9d0e1f2a3b4c5d",
                    "policy": {
                        "kind": "steps",
                        "steps": [{"up_to": 150, "rho": 1.0}, {"up_to": 300, "rho": 0.7}, {"rho": 0.5}],
                    },
                    "zone": "FR",
                    "hyperparameters": {"epochs": 3},
                }
            ]
        },
    )

    model: Text = Field(description="A name from `GET /models`")
    dataset: Text = Field(description="The id of an uploaded dataset")
    method: Method = "greentrainer"
    policy: PolicyChoice = Field(
        default=dict(DEFAULT_POLICY), description="The name of a stored policy, or a policy as an object"
    )
    zone: Text | None = Field(default=None, description="Where to run; any zone with a worker where it is null")
    deadline: UtcDatetime | None = Field(default=None, description="When the run has to be over")
    priority: int = Field(default=0, ge=-100, le=100, description="Jobs of a higher priority start first")
    hyperparameters: Hyperparameters = Hyperparameters()
    metadata: dict[MetadataKey, MetadataValue] = Field(default={}, max_length=50, description="For your own use")


class Progress(BaseModel):
    """How far a run has come."""

    epochs: int
    epochs_done: int
    steps: int | None
    steps_done: int
    share: float = Field(description="In [0, 1]")


class EmissionsBasisOut(BaseModel):
    """What the emissions rest on."""

    estimated: bool = Field(description="True where an intensity behind the price is itself an estimate")
    sources: list[str] = Field(description="The sources of those intensities")
    unpriced_kwh: float = Field(description="Energy whose intensity is not known yet: it is not in the emissions")
    energy_methods: dict[str, list[str]] = Field(description="How each component's energy was found")


class JobLinks(BaseModel):
    """Where the rest is."""

    self: str
    epochs: str
    events: str
    artifacts: str
    page: str


class JobOut(BaseModel):
    """One fine-tuning run; energy in kWh, emissions in gCO2e, times in UTC."""

    id: str
    status: JobStatus
    reason: str | None = Field(description="Why it stands where it stands, in words")
    error: dict[str, Any] | None
    model: str
    dataset: str
    method: str
    policy: dict[str, Any] = Field(description="As it was at submission")
    policy_name: str | None
    zone: str | None
    deadline: datetime | None
    priority: int
    hyperparameters: dict[str, Any]
    metadata: dict[str, str]
    created_at: datetime
    queued_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    attempts: int
    device: str | None
    progress: Progress
    rho: float | None = Field(description="Of the newest epoch, as asked for")
    loss: float | None
    energy_kwh: float
    emissions_gco2e: float
    emissions_basis: EmissionsBasisOut | None
    estimate: dict[str, Any] | None
    evaluation: dict[str, Any] | None
    links: JobLinks

    @classmethod
    def of(cls, job: Job, basis: EmissionsBasis | None) -> "JobOut":
        """A job, with what its emissions rest on where any energy was metered."""
        link = f"/jobs/{job.id}"
        return cls(
            id=job.id,
            status=job.status,
            reason=job.reason,
            error=job.error,
            model=job.model,
            dataset=job.dataset_id,
            method=job.method,
            policy=job.policy,
            policy_name=job.policy_name,
            zone=job.zone,
            deadline=job.deadline,
            priority=job.priority,
            hyperparameters=job.hyperparameters,
            metadata=job.labels,
            created_at=job.created_at,
            queued_at=job.queued_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
            attempts=job.attempts,
            device=job.device,
            progress=_progress(job),
            rho=job.rho,
            loss=job.loss,
            energy_kwh=job.energy_kwh,
            emissions_gco2e=job.emissions_gco2e,
            emissions_basis=basis
            and EmissionsBasisOut(
                estimated=basis.estimated,
                sources=list(basis.sources),
                unpriced_kwh=basis.unpriced_kwh,
                energy_methods={component: list(ways) for component, ways in basis.methods.items()},
            ),
            estimate=job.estimate,
            evaluation=job.evaluation,
            links=JobLinks(
                self=link,
                epochs=f"{link}/epochs",
                events=f"{link}/events",
                artifacts=f"{link}/artifacts",
                page=f"/dashboard/jobs/{job.id}",
            ),
        )


def _progress(job: Job) -> Progress:
    done, of = (job.steps_done, job.steps) if job.steps else (job.epochs_done, job.epochs)
    return Progress(
        epochs=job.epochs,
        epochs_done=job.epochs_done,
        steps=job.steps,
        steps_done=job.steps_done,
        share=min(1.0, done / of),
    )


class EpochIntensity(BaseModel):
    """The reading that an epoch's ρ was decided by; all null where there was none."""

    gco2e_per_kwh: float | None
    source: str | None
    age_seconds: float | None
    estimated: bool


class EpochEnergy(BaseModel):
    """Metered energy in kWh by component, lost attempts included, and how each was found."""

    cpu_kwh: float
    gpu_kwh: float
    ram_kwh: float
    total_kwh: float
    methods: dict[str, str]


class EpochOut(BaseModel):
    """One epoch: what was asked and why, what was reached, and what it cost."""

    number: int
    attempt: int
    started_at: datetime
    finished_at: datetime | None
    rho_asked: float
    rho_reached: float | None = Field(description="FLOPs of its steps, as a share of those that train every tensor")
    reason: str
    intensity: EpochIntensity
    flops: float | None = Field(description="1 multiply-accumulate counts as 2")
    full_flops: float | None = Field(description="With every tensor trained")
    probe_flops: float | None = Field(description="Spent on finding the tensors' importance")
    probe_seconds: float | None
    tensors_selected: int | None
    tensors_total: int | None
    tensors: list[str] | None = Field(description="Those that are trained, the most important first")
    train_loss: float | None
    eval_loss: float | None
    energy: EpochEnergy | None
    emissions_gco2e: float | None = Field(description="Null while part of the energy has no price")

    @classmethod
    def of(cls, epoch: Epoch, cost: EpochCost | None) -> "EpochOut":
        """An epoch, with its cost where any of it was metered."""
        return cls(
            number=epoch.number,
            attempt=epoch.attempt,
            started_at=epoch.started_at,
            finished_at=epoch.finished_at,
            rho_asked=epoch.rho_asked,
            rho_reached=epoch.rho_reached,
            reason=epoch.reason,
            intensity=EpochIntensity(
                gco2e_per_kwh=epoch.intensity_gco2e_per_kwh,
                source=epoch.intensity_source,
                age_seconds=epoch.intensity_age_seconds,
                estimated=epoch.intensity_estimated,
            ),
            flops=epoch.flops,
            full_flops=epoch.full_flops,
            probe_flops=epoch.probe_flops,
            probe_seconds=epoch.probe_seconds,
            tensors_selected=epoch.tensors_selected,
            tensors_total=epoch.tensors_total,
            tensors=_by_importance(epoch.selection),
            train_loss=epoch.train_loss,
            eval_loss=epoch.eval_loss,
            energy=cost
            and EpochEnergy(
                cpu_kwh=cost.cpu_kwh,
                gpu_kwh=cost.gpu_kwh,
                ram_kwh=cost.ram_kwh,
                total_kwh=cost.energy_kwh,
                methods=dict(cost.methods),
            ),
            emissions_gco2e=cost and cost.emissions_gco2e,
        )


def _by_importance(selection: Mapping[str, float] | None) -> list[str] | None:
    return None if selection is None else sorted(selection, key=lambda name: selection[name] or 0.0, reverse=True)


class EventOut(BaseModel):
    """One thing that happened to a job."""

    id: int
    at: datetime
    type: str
    data: dict[str, Any]

    @classmethod
    def of(cls, event: Event) -> "EventOut":
        """As recorded."""
        return cls(id=event.id, at=event.at, type=event.type, data=event.data)


class ArtifactOut(BaseModel):
    """One file of a finished job's result."""

    name: str
    bytes: int
    sha256: str
    created_at: datetime
    link: str

    @classmethod
    def of(cls, artifact: Artifact) -> "ArtifactOut":
        """As recorded, and where to download it."""
        return cls(
            name=artifact.name,
            bytes=artifact.bytes,
            sha256=artifact.sha256,
            created_at=artifact.created_at,
            link=f"/jobs/{artifact.job_id}/artifacts/{quote(artifact.name)}",
        )
