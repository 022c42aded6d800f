"""What can be read of a job, on the wire."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from api.jobs.emissions import CounterfactualsOut, EmissionsBasisOut
from greencore.carbon import EmissionFactors, Signal
from greencore.carbon.accounting.pricing import known_emissions
from store.accounting.emissions import EmissionsRepository
from store.lifecycle.actions import list_possible_actions
from store.lifecycle.status import Action, JobStatus
from store.repositories.jobs import JobRepository
from store.tables import Job


class Progress(BaseModel):
    """How far a run has come."""

    epochs: int
    epochs_done: int
    steps: int | None
    steps_done: int
    share: float = Field(description="In [0, 1]")


class GateOut(BaseModel):
    """What a job's gate said when it was last looked at."""

    opens: bool = Field(description="Whether the job might compute")
    until: datetime | None = Field(description="When it is expected to open; null while it is open, or where unknown")
    reason: str
    saving: float = Field(description="Expected share of the emissions that the plan avoids; an estimate")
    forced: bool = Field(description="True where the slack is used up and the deadline beats the gate")
    deadline: datetime = Field(description="The job's own, or what `max_delay_hours` allows")
    at: datetime = Field(description="When it was looked at")
    basis: str | None = Field(description="What the expected duration rests on")

    @classmethod
    def of(cls, gate: Mapping[str, Any]) -> "GateOut":
        """As the scheduler stored it."""
        return cls.model_validate({**gate, "basis": (gate.get("pace") or {}).get("basis")})


class EtaOut(BaseModel):
    """When a job is expected to be over."""

    finishes_at: datetime
    earliest: datetime = Field(description="In nine cases of ten it is over between this and `latest`")
    latest: datetime
    basis: str = Field(description="What the expectation rests on, in words")
    at: datetime = Field(description="When it was found; it is found anew all the time, and written where it moved")


class JobLinks(BaseModel):
    """Where the rest is."""

    self: str
    epochs: str
    events: str
    series: str
    selection: str
    checkpoints: str
    artifacts: str
    page: str


class JobOut(BaseModel):
    """One fine-tuning run; energy in kWh, emissions in gCO2e, times in UTC."""

    id: str
    owner: str | None = Field(description="Who submitted it; null where that was done without a key")
    status: JobStatus
    reason: str | None = Field(description="Why it stands where it stands, in words")
    actions: list[Action] = Field(description="What can be asked of it now, each by `POST /jobs/{id}/<action>`")
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
    ready_at: datetime | None = Field(description="When it could first have run")
    queued_at: datetime | None
    not_before: datetime | None = Field(description="When its gate is looked at again")
    started_at: datetime | None
    finished_at: datetime | None
    attempts: int
    device: str | None
    signal: Signal | None = Field(description="The kind of intensity that it is steered and priced by")
    emission_factors: EmissionFactors | None = Field(
        description="What those intensities count: the whole life cycle of the plants, or only what they emit directly"
    )
    gate: GateOut | None = Field(description="Null until its gate is looked at, and where its policy has none")
    progress: Progress
    eta: EtaOut | None = Field(description="Null before the job is prepared, while it is paused, and once it is over")
    rho: float | None = Field(description="Of the newest epoch, as asked for")
    loss: float | None
    energy_kwh: float
    unpriced_kwh: float = Field(description="The part of `energy_kwh` that has no price")
    emissions_gco2e: float = Field(
        description="Without the unpriced energy: 0 where that is all of it, and then nothing is known of the emissions"
    )
    emissions_basis: EmissionsBasisOut | None
    less_work_saving: float | None = Field(
        description="The share of `full_now`'s emissions that was saved by the FLOPs left out; an estimate, below 0 "
        "where more was emitted"
    )
    moved_in_time_saving: float | None = Field(
        description="The share that the job's gate saved by putting work off or interrupting it; an estimate, below 0 "
        "where it cost more"
    )
    queueing_saving: float | None = Field(
        description="The share that waiting for a worker saved, by chance; an estimate, below 0 where it led to "
        "dirtier hours. Null for jobs that ended under an earlier version, and so are the next two"
    )
    owner_pause_saving: float | None = Field(
        description="The share saved by when its owner paused the job, or retried it; an estimate, as by chance"
    )
    lost_work_saving: float | None = Field(
        description="The share, below 0, that went into work which had to be done again, since a worker was lost or an "
        "attempt failed; an estimate. The five savings together are the whole saving"
    )
    counterfactuals: CounterfactualsOut | None = Field(description="Null until the job is over")
    counterfactuals_missing: str | None = Field(description="Why there are none, though it is over")
    estimate: dict[str, Any] | None
    evaluation: dict[str, Any] | None
    links: JobLinks

    @property
    def known_gco2e(self) -> float | None:
        """The emissions; None where no part of the energy has a price."""
        return known_emissions(self.emissions_gco2e, energy_kwh=self.energy_kwh, unpriced_kwh=self.unpriced_kwh)

    @classmethod
    def of_job(cls, job: Job, basis: EmissionsBasisOut | None) -> "JobOut":
        """A job, with what its emissions rest on where any energy was metered."""
        link = f"/jobs/{job.id}"
        stored = job.counterfactuals or {}
        return cls(
            id=job.id,
            owner=job.owner,
            status=job.status,
            reason=job.reason,
            actions=list(list_possible_actions(job)),
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
            ready_at=job.ready_at,
            queued_at=job.queued_at,
            not_before=job.not_before,
            started_at=job.started_at,
            finished_at=job.finished_at,
            attempts=job.attempts,
            device=job.device,
            signal=job.signal,
            emission_factors=job.emission_factors,
            gate=job.gate and GateOut.of(job.gate),
            progress=_progress(job),
            eta=job.eta,
            rho=job.rho,
            loss=job.loss,
            energy_kwh=job.energy_kwh,
            unpriced_kwh=basis.unpriced_kwh if basis else 0.0,
            emissions_gco2e=job.emissions_gco2e,
            emissions_basis=basis,
            less_work_saving=stored.get("less_work_saving"),
            moved_in_time_saving=stored.get("moved_in_time_saving"),
            queueing_saving=stored.get("queueing_saving"),
            owner_pause_saving=stored.get("owner_pause_saving"),
            lost_work_saving=stored.get("lost_work_saving"),
            counterfactuals=CounterfactualsOut.of(job),
            counterfactuals_missing=stored.get("missing"),
            estimate=job.estimate,
            evaluation=job.evaluation,
            links=JobLinks(
                self=link,
                epochs=f"{link}/epochs",
                events=f"{link}/events",
                series=f"{link}/series",
                selection=f"{link}/selection",
                checkpoints=f"{link}/checkpoints",
                artifacts=f"{link}/artifacts",
                page=f"/dashboard/jobs/{job.id}",
            ),
        )


def jobs_out(session: Session, jobs: Sequence[Job]) -> list[JobOut]:
    """Jobs as they leave the API, in their order."""
    ids = [job.id for job in jobs]
    bases = JobRepository(session).emissions_basis(ids)
    settlements = EmissionsRepository(session).get_settlement_by_job(ids)
    return [
        JobOut.of_job(
            job,
            EmissionsBasisOut.of(job, bases[job.id], settlements[job.id]) if job.id in bases else None,
        )
        for job in jobs
    ]


def _progress(job: Job) -> Progress:
    done, of = (job.steps_done, job.steps) if job.steps else (job.epochs_done, job.epochs)
    return Progress(
        epochs=job.epochs,
        epochs_done=job.epochs_done,
        steps=job.steps,
        steps_done=job.steps_done,
        share=min(1.0, done / of),
    )
