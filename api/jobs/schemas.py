"""Response models of a job, and the ETags of jobs and job lists."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from api.row_model import RowModel
from greencore.carbon import EmissionFactors, Signal
from greencore.carbon.accounting.pricing import known_emissions
from greencore.energy import is_estimate
from store.accounting.emissions import EmissionsRepository
from store.lifecycle.actions import list_possible_actions
from store.lifecycle.status import Action, JobStatus
from store.repositories.jobs import EmissionsBasis, JobRepository
from store.tables import Job

JOB_PARTS = ("epochs", "evaluations", "events", "series", "selection", "checkpoints", "artifacts")
SAVINGS = ("less_work_saving", "moved_in_time_saving", "queueing_saving", "owner_pause_saving", "lost_work_saving")


class Progress(RowModel):
    """Progress of a run."""

    epochs: int
    epochs_done: int
    steps: int | None
    steps_done: int
    micro_batch_size: int | None = Field(
        description="Rows computed at once, where a worker measured what fits or had to halve them"
    )
    share: float = Field(description="Share of the work done, in [0, 1]; 1 for a job that succeeded, early or not")


class BestOut(BaseModel):
    """Evaluation during training with the lowest loss so far."""

    step: int = Field(description="Optimiser steps done when it was made")
    epoch: float = Field(description="Epochs done, a fraction within one")
    loss: float = Field(description="Loss of a held-out token, in nats")


class GateOut(BaseModel):
    """Last decision of a job's gate."""

    opens: bool = Field(description="Whether the job may compute")
    until: datetime | None = Field(description="Expected time of opening; null while it is open, or if unknown")
    reason: str
    saving: float = Field(description="Expected share of the emissions that the plan avoids")
    forced: bool = Field(description="True if the slack is used up and the deadline overrides the gate")
    deadline: datetime = Field(description="The job's deadline, or the one that `max_delay_hours` implies")
    at: datetime = Field(description="Time of the decision")
    basis: str | None = Field(description="Basis of the expected duration")

    @classmethod
    def of(cls, gate: Mapping[str, Any]) -> "GateOut":
        """Build from the decision that the scheduler stored."""
        return cls.model_validate({**gate, "basis": (gate.get("pace") or {}).get("basis")})


class EtaOut(BaseModel):
    """Predicted end of a job."""

    finishes_at: datetime
    earliest: datetime = Field(description="In nine cases of ten the job ends between this and `latest`")
    latest: datetime
    basis: str = Field(description="Basis of the prediction, in words")
    at: datetime = Field(
        description="Time of the prediction, which is repeated continuously and stored when it changes"
    )


class ResourcesOut(BaseModel):
    """What a job asked to train on."""

    gpus: int | Literal["auto"] = Field(description="GPUs of one machine; `auto`: the fewest that hold the model")


class JobLinks(BaseModel):
    """Paths of the job's other resources."""

    self: str
    epochs: str
    evaluations: str
    events: str
    series: str
    selection: str
    checkpoints: str
    artifacts: str
    page: str


class EmissionsBasisOut(RowModel):
    """How a job's energy and emissions were determined."""

    status: Literal["provisional", "settled"] = Field(
        description="`settled` once the job is over and the price of all its energy is final"
    )
    settled_gco2e: float = Field(description="Part of the emissions whose price is final")
    pue: float = Field(
        description="kWh drawn by the site for each kWh metered; included in the emissions, not in the energy"
    )
    estimated: bool = Field(description="True if an intensity behind the price is itself an estimate")
    sources: list[str] = Field(description="Sources of those intensities")
    unpriced_kwh: float = Field(description="Energy without a price, since its intensity is not known")
    energy_methods: dict[str, list[str]] = Field(description="Methods by which each component's energy was determined")
    energy_estimated: bool = Field(description="True if any of them estimates instead of reading a meter")
    evaluation_kwh: float = Field(description="Part of the energy that evaluations used")
    lost_kwh: float = Field(description="Estimated part of the energy, which a lost worker used and had not stored")
    tracker_kwh: float | None = Field(
        description="Total energy by CodeCarbon, less that of other jobs on the host, for comparison; without lost "
        "attempts"
    )

    @classmethod
    def of(cls, job: Job, basis: EmissionsBasis, settlement: Mapping[str, Any]) -> "EmissionsBasisOut":
        """Build from a job's basis and its entry of `EmissionsRepository.get_settlement_by_job`."""
        return cls.from_row(
            basis,
            status="provisional" if job.settled_at is None else "settled",
            settled_gco2e=settlement["settled_gco2e"],
            pue=settlement["pue"],
            energy_methods=basis.methods,
            energy_estimated=any(is_estimate(way) for ways in basis.methods.values() for way in ways),
            tracker_kwh=job.tracker_kwh,
        )


class CounterfactualOut(BaseModel):
    """Estimated emissions of an alternative run of the job, and the assumption behind them."""

    emissions_gco2e: float
    energy_kwh: float = Field(description="Before PUE")
    hours: float = Field(description="Hours of computing between start and end")
    start: datetime
    end: datetime
    assumption: str
    covered_share: float = Field(description="Share of the hours for which an intensity was known, in [0, 1]")
    estimated: Literal[True]


class CounterfactualsOut(BaseModel):
    """Alternative runs that a job is compared with; all are estimates."""

    full_now: CounterfactualOut = Field(description="Every tensor trained, started at once")
    constant_now: CounterfactualOut = Field(description="The same FLOPs at a constant ρ, started at once")
    oracle: CounterfactualOut = Field(description="The same FLOPs in the cleanest hours, all known in advance")

    @classmethod
    def of(cls, job: Job) -> "CounterfactualsOut | None":
        """Return what the scheduler computed when the job ended; None before, or with nothing to compare."""
        stored = job.counterfactuals or {}
        return cls.model_validate(stored) if "full_now" in stored else None


class JobOut(RowModel):
    """One fine-tuning run; energy in kWh, emissions in gCO2e, times in UTC."""

    id: str
    name: str | None
    owner: str | None = Field(description="Owner of the key that submitted it; null without a key")
    status: JobStatus
    reason: str | None = Field(description="Reason for the status, in words")
    actions: list[Action] = Field(description="Actions that are possible now, each by `POST /jobs/{id}/<action>`")
    error: dict[str, Any] | None
    model: str = Field(description="Name in the catalogue; with a `base_job`, of the model that the first job trained")
    base_job: str | None = Field(description="Job whose result is trained further; null for the catalogue's model")
    dataset: str
    validation_dataset: str | None
    method: str = Field(description="`auto` until a job that asked for that is prepared, then the chosen one")
    method_requested: str = Field(description="Method of the submission, by which a copy of the job goes")
    method_reason: str | None = Field(description="Reason of the method that was chosen for `auto`, with the figures")
    policy: dict[str, Any] = Field(description="Policy at the time of submission")
    policy_name: str | None
    zone: str | None
    zone_requested: str | None = Field(description="Zone of the submission; null: any")
    deadline: datetime | None
    priority: int
    resources: ResourcesOut = Field(description="What the submission asked for")
    gpus: int | None = Field(description="GPUs that it trains on; null until a job that asked for `auto` is prepared")
    hyperparameters: dict[str, Any]
    hyperparameters_requested: dict[str, Any] | None = Field(
        description="Those that were given with the method `auto`, before its choice set others; null for other jobs"
    )
    metadata: dict[str, str]
    created_at: datetime
    ready_at: datetime | None = Field(description="Time at which the job became ready")
    queued_at: datetime | None
    not_before: datetime | None = Field(description="Time of the next gate decision")
    started_at: datetime | None
    finished_at: datetime | None
    attempts: int
    device: str | None
    signal: Signal | None = Field(description="Kind of intensity that its decisions and its price are based on")
    emission_factors: EmissionFactors | None = Field(
        description="Whether those intensities include the plants' life cycle, or only direct emissions"
    )
    gate: GateOut | None = Field(description="Null before the first gate decision, and without a gate")
    progress: Progress
    eta: EtaOut | None = Field(description="Null before the job is prepared, while it is paused, and once it is over")
    rho: float | None = Field(description="Requested ρ of the newest epoch")
    loss: float | None
    best: BestOut | None = Field(description="Null before the first evaluation, and where no row is held out")
    energy_kwh: float
    evaluation_kwh: float = Field(
        description="Part of `energy_kwh` that evaluations used, before, during and after training"
    )
    unpriced_kwh: float = Field(description="Part of `energy_kwh` that has no price")
    emissions_gco2e: float = Field(
        description="Emissions without those of the unpriced energy; 0, and unknown, if all energy is unpriced"
    )
    emissions_basis: EmissionsBasisOut | None
    less_work_saving: float | None = Field(
        description="Share of `full_now`'s emissions saved by the FLOPs left out; an estimate, below 0 if more was "
        "emitted"
    )
    moved_in_time_saving: float | None = Field(
        description="Share saved by the gate, by deferring or interrupting work; an estimate, below 0 if it cost more"
    )
    queueing_saving: float | None = Field(
        description="Share saved by chance while waiting for a worker; an estimate, below 0 if that led to dirtier "
        "hours. Null for jobs that ended under an earlier version, as are the next two"
    )
    owner_pause_saving: float | None = Field(
        description="Share saved by chance by the times of the owner's pauses and retries; an estimate"
    )
    lost_work_saving: float | None = Field(
        description="Share, below 0, of work that was repeated after a lost worker or a failed attempt; an estimate. "
        "The five savings add up to the whole saving"
    )
    counterfactuals: CounterfactualsOut | None = Field(description="Null until the job is over")
    counterfactuals_missing: str | None = Field(description="Reason why there are none although the job is over")
    estimate: dict[str, Any] | None
    evaluation: dict[str, Any] | None
    links: JobLinks

    @property
    def known_gco2e(self) -> float | None:
        """Emissions in gCO2e; None if no part of the energy has a price."""
        return known_emissions(self.emissions_gco2e, energy_kwh=self.energy_kwh, unpriced_kwh=self.unpriced_kwh)

    @classmethod
    def of_job(cls, job: Job, basis: EmissionsBasisOut | None) -> "JobOut":
        """Build from a job and, if any energy was metered, its emissions basis."""
        link = f"/jobs/{job.id}"
        done, of = (job.steps_done, job.steps) if job.steps else (job.epochs_done, job.epochs)
        stored = job.counterfactuals or {}
        return cls.from_row(
            job,
            actions=list_possible_actions(job),
            dataset=job.dataset_id,
            zone_requested=job.zone_asked,
            method_requested=job.method_asked,
            hyperparameters_requested=job.hyperparameters_asked,
            base_job=job.base_job_id,
            validation_dataset=job.validation_dataset_id,
            resources=ResourcesOut(gpus=job.gpus_asked or "auto"),
            gpus=None if job.gpus_asked is None and job.estimate is None else job.gpus,
            metadata=job.labels,
            gate=job.gate and GateOut.of(job.gate),
            progress=Progress.from_row(job, share=1.0 if job.status is JobStatus.SUCCEEDED else min(1.0, done / of)),
            unpriced_kwh=basis.unpriced_kwh if basis else 0.0,
            evaluation_kwh=basis.evaluation_kwh if basis else 0.0,
            emissions_basis=basis,
            **{name: stored.get(name) for name in SAVINGS},
            counterfactuals=CounterfactualsOut.of(job),
            counterfactuals_missing=stored.get("missing"),
            links=JobLinks(
                self=link, page=f"/dashboard/jobs/{job.id}", **{part: f"{link}/{part}" for part in JOB_PARTS}
            ),
        )


class CheckpointOut(RowModel):
    """A checkpoint that is complete on disk."""

    name: str
    attempt: int = Field(description="Attempt that wrote it")
    step: int = Field(description="Optimiser steps done when it was written")
    epochs_done: int
    bytes: int
    created_at: datetime
    best: bool = Field(description="Whether it is that of the best evaluation, kept for the result")


# A job's revision counts its changes; another release may represent the same job differently.
_SCHEMA = json.dumps(JobOut.model_json_schema(mode="serialization"), sort_keys=True)
JOB_SCHEMA_FINGERPRINT = hashlib.sha256(_SCHEMA.encode()).hexdigest()[:8]


def job_etag(revision: int) -> str:
    """Return the strong ETag of a job at a revision."""
    return f'"{JOB_SCHEMA_FINGERPRINT}-{revision}"'


def job_list_etag(revisions: Iterable[tuple[str, int]], *, has_more: bool) -> str:
    """Return the strong ETag of a page of jobs, from their ids and revisions."""
    text = json.dumps([JOB_SCHEMA_FINGERPRINT, has_more, *revisions])
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'


def jobs_out(session: Session, jobs: Sequence[Job]) -> list[JobOut]:
    """Return the response models of jobs, in the same order."""
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
