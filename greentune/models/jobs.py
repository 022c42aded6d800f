"""Jobs, their events, and the files of their results."""

from datetime import datetime
from typing import Any, Literal

from greentune.models.answer import Answer, EmissionFactors, Signal

JobStatus = Literal[
    "validating", "queued", "deferred", "running", "pausing", "paused", "cancelling", "cancelled", "succeeded", "failed"
]
Action = Literal["cancel", "pause", "resume", "retry"]
FINAL: frozenset[JobStatus] = frozenset({"succeeded", "failed", "cancelled"})


class Progress(Answer):
    """Progress of a run."""

    epochs: int
    epochs_done: int
    steps: int | None
    steps_done: int
    share: float
    """Completed share, in [0, 1]"""


class Gate(Answer):
    """Last decision of a job's gate."""

    opens: bool
    """Whether the job may compute"""
    until: datetime | None
    """Expected opening time; None while it is open, or where unknown"""
    reason: str
    saving: float
    """Estimated share of the emissions that the plan avoids"""
    forced: bool
    """True where the gate is open only because of the deadline"""
    deadline: datetime
    """The job's deadline, or the one by `max_delay_hours`"""
    at: datetime
    """Time of the decision"""
    basis: str | None
    """Basis of the expected duration"""


class Eta(Answer):
    """Expected end of a job."""

    finishes_at: datetime
    earliest: datetime
    """Start of the 90 % interval of the end, which `latest` ends"""
    latest: datetime
    basis: str
    """Basis of the prediction, in words"""
    at: datetime
    """Time of the prediction; it is repeated continually, and stored where it changed"""


class EmissionsBasis(Answer):
    """Basis of the energy and the emissions."""

    status: Literal["provisional", "settled"]
    """Settled when the job is over and the price of all its energy is final"""
    settled_gco2e: float
    """Part of the emissions whose price is final"""
    pue: float
    """kWh that the site drew for each metered kWh; included in the emissions, not in the energy"""
    estimated: bool
    """True where an intensity of the price is estimated"""
    sources: list[str]
    """The sources of those intensities"""
    unpriced_kwh: float
    """Energy without a price, since its intensity is not known"""
    energy_methods: dict[str, list[str]]
    """Methods of measuring, by component"""
    energy_estimated: bool
    """True where a method estimates instead of reading a meter"""
    lost_kwh: float
    """Estimated part of the energy that was lost with a worker before it was stored"""
    tracker_kwh: float | None
    """CodeCarbon's total of the energy without that of other jobs on the host, as a check; it lacks lost attempts"""


class Counterfactual(Answer):
    """Estimated emissions of a job under another schedule, with the assumption."""

    emissions_gco2e: float
    energy_kwh: float
    """Before PUE"""
    hours: float
    """Hours of computing between start and end"""
    start: datetime
    end: datetime
    assumption: str
    covered_share: float
    """Share of the hours with a known intensity, in [0, 1]"""
    estimated: Literal[True]


class Counterfactuals(Answer):
    """Counterfactuals that a job is compared with; all are estimates."""

    full_now: Counterfactual
    """Every tensor trained, started at once"""
    constant_now: Counterfactual
    """The same FLOPs at a constant ρ, started at once"""
    oracle: Counterfactual
    """The same FLOPs in the cleanest hours, known in advance"""


class JobLinks(Answer):
    """Links to the job's other resources."""

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
    """Owner; None for a job submitted without a key"""
    status: JobStatus
    reason: str | None
    """Reason of the status, in words"""
    actions: list[Action]
    """Actions that are allowed now, each by `POST /jobs/{id}/<action>`"""
    error: dict[str, Any] | None
    model: str
    dataset: str
    method: str
    policy: dict[str, Any]
    """Policy at submission"""
    policy_name: str | None
    zone: str | None
    deadline: datetime | None
    priority: int
    hyperparameters: dict[str, Any]
    metadata: dict[str, str]
    created_at: datetime
    ready_at: datetime | None
    """Earliest time at which it could have run (UTC)"""
    queued_at: datetime | None
    not_before: datetime | None
    """Time of the next evaluation of its gate (UTC)"""
    started_at: datetime | None
    finished_at: datetime | None
    attempts: int
    device: str | None
    signal: Signal | None
    emission_factors: EmissionFactors | None
    """Emission factors of the intensity that decides its ρ and its price"""
    gate: Gate | None
    """None before the first evaluation, and for a policy without a gate"""
    progress: Progress
    eta: Eta | None
    """None before the job is prepared, while it is paused, and after its end"""
    rho: float | None
    """Requested ρ of the newest epoch"""
    loss: float | None
    energy_kwh: float
    unpriced_kwh: float
    """Part of `energy_kwh` without a price"""
    emissions_gco2e: float
    """Emissions of the priced energy; 0 where all of it is unpriced, and the emissions are not known"""
    emissions_basis: EmissionsBasis | None
    less_work_saving: float | None
    """Estimated share of `full_now`'s emissions saved by FLOPs left out; below 0 where more was emitted"""
    moved_in_time_saving: float | None
    """Estimated share saved by the gate, which deferred or interrupted the job; below 0 where more was emitted"""
    queueing_saving: float | None
    """Estimated share saved, by chance, by waiting for a worker; below 0 where more was emitted"""
    owner_pause_saving: float | None
    """Estimated share saved, by chance, by the owner's pauses and late retries"""
    lost_work_saving: float | None
    """Estimated share, usually below 0, of work repeated after a lost worker or a failed attempt. The five savings add
    up to the whole saving"""
    counterfactuals: Counterfactuals | None
    """None before the end of the job"""
    counterfactuals_missing: str | None
    """Reason why a finished job has none"""
    estimate: dict[str, Any] | None
    evaluation: dict[str, Any] | None
    links: JobLinks

    @property
    def known_gco2e(self) -> float | None:
        """Emissions; None where all of the energy is unpriced."""
        unpriced = self.unpriced_kwh > 0 and self.unpriced_kwh >= self.energy_kwh * (1 - 1e-9)
        return None if unpriced else self.emissions_gco2e

    @property
    def is_over(self) -> bool:
        """Whether the status is final, until a retry."""
        return self.status in FINAL


class Event(Answer):
    """One event of a job."""

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
