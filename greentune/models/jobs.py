"""A job as the service tells of it, and the files of its result."""

from datetime import datetime
from typing import Any, Literal

from greentune.models.answer import Answer, EmissionFactors, Signal

JobStatus = Literal[
    "validating", "queued", "deferred", "running", "pausing", "paused", "cancelling", "cancelled", "succeeded", "failed"
]
Action = Literal["cancel", "pause", "resume", "retry"]
FINAL: frozenset[JobStatus] = frozenset({"succeeded", "failed", "cancelled"})


class Progress(Answer):
    """How far a run has come."""

    epochs: int
    epochs_done: int
    steps: int | None
    steps_done: int
    share: float
    """In [0, 1]"""


class Gate(Answer):
    """What a job's gate said when it was last looked at."""

    opens: bool
    """Whether the job might compute"""
    until: datetime | None
    """When it is expected to open; None while it is open, or where unknown"""
    reason: str
    saving: float
    """Expected share of the emissions that the plan avoids; an estimate"""
    forced: bool
    """True where the slack is used up and the deadline beats the gate"""
    deadline: datetime
    """The job's own, or what `max_delay_hours` allows"""
    at: datetime
    """When it was looked at"""
    basis: str | None
    """What the expected duration rests on"""


class Eta(Answer):
    """When a job is expected to be over."""

    finishes_at: datetime
    earliest: datetime
    """In nine cases of ten it is over between this and `latest`"""
    latest: datetime
    basis: str
    """What the expectation rests on, in words"""
    at: datetime
    """When it was found; it is found anew all the time, and written where it moved"""


class EmissionsBasis(Answer):
    """What the energy and the emissions rest on."""

    status: Literal["provisional", "settled"]
    """Settled once the job is over and the price of all of its energy is final"""
    settled_gco2e: float
    """The part of the emissions whose price is final"""
    pue: float
    """What the site drew for each kWh metered: it is in the emissions, not in the energy"""
    estimated: bool
    """True where an intensity behind the price is itself an estimate"""
    sources: list[str]
    """The sources of those intensities"""
    unpriced_kwh: float
    """Energy without a price: its intensity is not known, or never became known"""
    energy_methods: dict[str, list[str]]
    """How each component's energy was found"""
    energy_estimated: bool
    """True where any of them reckons instead of reading a meter"""
    lost_kwh: float
    """The part of the energy that was lost with a worker before it was stored, and is estimated"""
    tracker_kwh: float | None
    """CodeCarbon's own total of the energy, less what other jobs on the host used, as a check; attempts that were lost
    are missing in it"""


class Counterfactual(Answer):
    """An estimate of what a job would have emitted otherwise, and what it assumes."""

    emissions_gco2e: float
    energy_kwh: float
    """Without what the site draws on top"""
    hours: float
    """Of computing, between start and end"""
    start: datetime
    end: datetime
    assumption: str
    covered_share: float
    """Share of the hours for which an intensity was known, in [0, 1]"""
    estimated: Literal[True]


class Counterfactuals(Answer):
    """What a job is compared with; all three are estimates, since none of it happened."""

    full_now: Counterfactual
    """Every tensor trained, begun at once"""
    constant_now: Counterfactual
    """The same FLOPs at a constant ρ, begun at once"""
    oracle: Counterfactual
    """The same FLOPs in the cleanest hours, all known beforehand"""


class JobLinks(Answer):
    """Where the rest is."""

    self: str
    epochs: str
    events: str
    series: str
    selection: str
    checkpoints: str
    artifacts: str
    page: str


class Job(Answer):
    """One fine-tuning run; energy in kWh, emissions in gCO2e, times in UTC."""

    id: str
    owner: str | None
    """Who submitted it; None where that was done without a key"""
    status: JobStatus
    reason: str | None
    """Why it stands where it stands, in words"""
    actions: list[Action]
    """What can be asked of it now, each by `POST /jobs/{id}/<action>`"""
    error: dict[str, Any] | None
    model: str
    dataset: str
    method: str
    policy: dict[str, Any]
    """As it was at submission"""
    policy_name: str | None
    zone: str | None
    deadline: datetime | None
    priority: int
    hyperparameters: dict[str, Any]
    metadata: dict[str, str]
    created_at: datetime
    ready_at: datetime | None
    """When it could first have run"""
    queued_at: datetime | None
    not_before: datetime | None
    """When its gate is looked at again"""
    started_at: datetime | None
    finished_at: datetime | None
    attempts: int
    device: str | None
    signal: Signal | None
    emission_factors: EmissionFactors | None
    """The kind of intensity that it is steered and priced by"""
    gate: Gate | None
    """None until its gate is looked at, and where its policy has none"""
    progress: Progress
    eta: Eta | None
    """None before the job is prepared, while it is paused, and once it is over"""
    rho: float | None
    """Of the newest epoch, as asked for"""
    loss: float | None
    energy_kwh: float
    unpriced_kwh: float
    """The part of `energy_kwh` that has no price"""
    emissions_gco2e: float
    """Without the unpriced energy: 0 where that is all of it, and then nothing is known of the emissions"""
    emissions_basis: EmissionsBasis | None
    less_work_saving: float | None
    """The share of `full_now`'s emissions that was saved by the FLOPs left out; an estimate, below 0 where more was
    emitted"""
    moved_in_time_saving: float | None
    """The share that the job's gate saved by putting work off or interrupting it; an estimate, below 0 where it cost
    more"""
    queueing_saving: float | None
    """The share that waiting for a worker saved, by chance; an estimate, below 0 where it led to dirtier hours"""
    owner_pause_saving: float | None
    """The share saved by when its owner paused the job, or retried it; an estimate, as by chance"""
    lost_work_saving: float | None
    """The share, below 0, that went into work which had to be done again, since a worker was lost or an attempt failed;
    an estimate. The five savings together are the whole saving"""
    counterfactuals: Counterfactuals | None
    """None until the job is over"""
    counterfactuals_missing: str | None
    """Why there are none, though it is over"""
    estimate: dict[str, Any] | None
    evaluation: dict[str, Any] | None
    links: JobLinks

    @property
    def known_gco2e(self) -> float | None:
        """The emissions; None where no part of the energy has a price."""
        unpriced = self.unpriced_kwh > 0 and self.unpriced_kwh >= self.energy_kwh * (1 - 1e-9)
        return None if unpriced else self.emissions_gco2e

    @property
    def is_over(self) -> bool:
        """Whether it has ended, and nothing but a retry changes its state."""
        return self.status in FINAL


class Event(Answer):
    """One thing that happened to a job."""

    id: int
    at: datetime
    type: str
    data: dict[str, Any]


class Artifact(Answer):
    """One file of a finished job's result."""

    name: str
    bytes: int
    sha256: str
    created_at: datetime
    link: str
