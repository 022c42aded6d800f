"""Answers of the service and their parts, by `python -m api.describe`: not to be edited."""

from datetime import datetime
from typing import Annotated, Any, Literal

from greentune.models.answer import Answer
from pydantic import Field


class Provider(Answer):
    """State of the source of a zone's intensity."""

    source: str
    """Kind of the source at the last request"""
    last_success_at: datetime | None
    """None if it has never answered"""
    failures_in_a_row: int
    """Failures since it last answered"""
    last_failure_at: datetime | None
    fault: str | None
    """Error of the last failure; None if it has answered since"""


class ForecastReach(Answer):
    """Creation time and end of a stored forecast."""

    made_at: datetime
    until: datetime


class Reading(Answer):
    """The intensity of one interval, in gCO2e/kWh."""

    start: datetime
    end: datetime
    gco2e_per_kwh: float
    source: str
    estimated: bool
    """True if the value was modelled or forecast instead of measured"""
    emission_factors: Literal['lifecycle', 'direct']
    """Whether the life cycle of plants and fuel is included, or only direct emissions"""


class Worker(Answer):
    """One process. `jobs` are those that it holds, each visible only to those who may read it."""

    id: str
    role: Literal['train', 'prepare', 'scheduler']
    zone: str | None
    """Zone of a training worker's site, "site-unknown" if that is not set; None for any other process"""
    pue: float | None
    """kWh drawn by the site for each kWh that a training worker uses"""
    site_idle_kwh: float | None
    """Energy used so far by the hosts of the zone's training workers without a job, before PUE; part of no job's energy; None for any other process"""
    zones: list[str]
    """`zone` as a list; deprecated"""
    device: str
    memory_bytes: int | None
    """Memory of a training worker's device: a GPU's, or the host's within its container's limit"""
    computes_bf16: bool | None
    """Whether a training worker's device computes natively in bfloat16, by which `precision` = `auto` chooses"""
    gpus: int | None
    """Devices that a training worker gives to jobs: its GPUs, or processes where it has none"""
    gpus_free: int | None
    """Those of them that no job holds"""
    state: Literal['idle', 'busy', 'running', 'lost']
    """A training worker is idle or busy, any other process running; lost: no heartbeat for too long"""
    jobs: list[str]
    """Jobs that it holds, without those of others"""
    job: str | None
    """The first of `jobs`; deprecated"""
    started_at: datetime
    last_seen_at: datetime


class SimulationBasis(Answer):
    """Data and assumptions of a simulation."""

    estimated: Literal[True] = True
    """Always true, since no run was metered"""
    zone: str | None
    sources: list[str]
    signal: Literal['average', 'marginal']
    emission_factors: list[Literal['lifecycle', 'direct']]
    from_: Annotated[datetime, Field(alias='from')]
    to: datetime
    readings: int
    estimated_readings: int
    """Number of readings that are themselves estimates"""
    covered_share: float
    """Share of that time within a reading; a gap takes the reading before it"""
    forecast: Literal['own', 'persistence', 'perfect']
    assumptions: list[str]


class Decision(Answer):
    """Action of the run from a time on, and its reason."""

    time: datetime
    intensity: float
    """In gCO2e/kWh"""
    action: str
    """run, wait, pause, epoch, end or finish"""
    rho: float | None
    """ρ of the epoch that begins"""
    reason: str


class Quantiles(Answer):
    """Quantiles of a figure over the starts: 5, 50 and 95 % of the starts have at most this."""

    p05: float
    p50: float
    p95: float


class EvaluationSeries(Answer):
    """One entry for each evaluation during training kept: of many, those of lowest and highest loss in a stretch."""

    step: list[int]
    epoch: list[float]
    """Epochs done, a fraction within one"""
    at: list[int]
    loss: list[float]
    """Loss of a held-out token, in nats"""
    accuracy: list[float | None]
    """Share of the learned tokens that the model ranks first"""
    rouge_l: list[float | None]
    """ROUGE-L F1 in per cent, on a sample of the held-out rows"""


class Rho(Answer):
    """One entry for each epoch."""

    epoch: list[int]
    start: list[int]
    end: list[int | None]
    asked: list[float]
    reached: list[float | None]


class Energy(Answer):
    """One entry for each stretch of metered time, with a gap between two if no worker ran there."""

    start: list[int]
    end: list[int]
    power_w: list[float]
    intensity_gco2e_per_kwh: list[float | None]
    """None if it is not known yet"""
    energy_kwh: list[float]
    """Energy that the job had used by the end of the stretch"""
    unpriced_kwh: list[float]
    """Part of that energy without a price"""
    emissions_gco2e: list[float]
    """Emissions by the end of the stretch, without the unpriced energy"""


class Loss(Answer):
    """One entry for each optimiser step kept: those of lowest and highest loss in every stretch."""

    step: list[int]
    at: list[int]
    value: list[float | None]
    """None if the loss was not finite"""
    mean: list[float | None]
    """Mean loss of all steps in the same stretch, including those left out; for a smoothed curve"""


class EpochSelection(Answer):
    """Tensors that one epoch trained, as indices into `tensors`."""

    number: int
    rho_asked: float
    rho_reached: float | None
    trained: list[int]
    importance: list[float | None] | None
    """Importance of each tensor as last probed, by the metric of the job; None for those that the budget could not reach, and None as a whole if nothing was probed: at ρ = 1, and for methods with a fixed selection"""


class Tensor(Answer):
    """A weight tensor that the job may train; its costs are None if they were not stored."""

    name: str
    stack: str | None
    """encoder or decoder, where the model has both"""
    layer: int | None
    """Block of its stack, from 0; None outside of the blocks"""
    kind: str
    """Role in the block, such as self_attn.q_proj"""
    parameters: int | None
    t_dw_flops: int | None
    """FLOPs of its own gradient, in one step of the longest rows; 1 multiply-accumulate counts as 2"""
    t_dy_flops: int | None
    """FLOPs of passing the gradient on to the tensors below it, in the same step"""


class Excerpt(Answer):
    """One text of a row: its first 500 characters, and its full length."""

    field: str
    role: str | None
    text: str
    characters: int
    cut: bool


class Policy(Answer):
    """The newest version of a named policy; jobs keep the version that they were submitted with."""

    name: str
    version: int
    policy: dict[str, Any]
    created_at: datetime


class Model(Answer):
    """A model that jobs may name; measured fields are None until its first job is prepared."""

    name: str
    licence: str
    description: str
    parameters: int | None
    """Trainable parameters"""
    tensors: int | None
    """Trainable tensors"""
    rho_floor: float | None
    """Lowest ρ at which one tensor can be trained"""
    max_length: int | None
    """Maximum tokens of a row that the model has positions for; None also if they are unlimited"""


class Segment(Answer):
    """Consecutive tokens that are all learned, or all only read, as text."""

    text: str
    tokens: int
    learned: bool


class Key(Answer):
    """A key without its text; `hint` is the first characters of it."""

    id: str
    owner: str
    role: Literal['user', 'operator']
    name: str
    hint: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


class JobLinks(Answer):
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


class Counterfactual(Answer):
    """Estimated emissions of an alternative run of the job, and the assumption behind them."""

    emissions_gco2e: float
    energy_kwh: float
    """Before PUE"""
    hours: float
    """Hours of computing between start and end"""
    start: datetime
    end: datetime
    assumption: str
    covered_share: float
    """Share of the hours for which an intensity was known, in [0, 1]"""
    estimated: Literal[True]


class EmissionsBasis(Answer):
    """How a job's energy and emissions were determined."""

    status: Literal['provisional', 'settled']
    """`settled` once the job is over and the price of all its energy is final"""
    settled_gco2e: float
    """Part of the emissions whose price is final"""
    pue: float
    """kWh drawn by the site for each kWh metered; included in the emissions, not in the energy"""
    estimated: bool
    """True if an intensity behind the price is itself an estimate"""
    sources: list[str]
    """Sources of those intensities"""
    unpriced_kwh: float
    """Energy without a price, since its intensity is not known"""
    energy_methods: dict[str, list[str]]
    """Methods by which each component's energy was determined"""
    energy_estimated: bool
    """True if any of them estimates instead of reading a meter"""
    evaluation_kwh: float
    """Part of the energy that evaluations used"""
    lost_kwh: float
    """Estimated part of the energy, which a lost worker used and had not stored"""
    tracker_kwh: float | None
    """Total energy by CodeCarbon, less that of other jobs on the host, for comparison; without lost attempts"""


class Best(Answer):
    """Evaluation during training with the lowest loss so far."""

    step: int
    """Optimiser steps done when it was made"""
    epoch: float
    """Epochs done, a fraction within one"""
    loss: float
    """Loss of a held-out token, in nats"""


class Eta(Answer):
    """Predicted end of a job."""

    finishes_at: datetime
    earliest: datetime
    """In nine cases of ten the job ends between this and `latest`"""
    latest: datetime
    basis: str
    """Basis of the prediction, in words"""
    at: datetime
    """Time of the prediction, which is repeated continuously and stored when it changes"""


class Progress(Answer):
    """Progress of a run."""

    epochs: int
    epochs_done: int
    steps: int | None
    steps_done: int
    micro_batch_size: int | None
    """Rows computed at once, where a worker measured what fits or had to halve them"""
    share: float
    """Share of the work done, in [0, 1]; 1 for a job that succeeded, early or not"""


class Gate(Answer):
    """Last decision of a job's gate."""

    opens: bool
    """Whether the job may compute"""
    until: datetime | None
    """Expected time of opening; None while it is open, or if unknown"""
    reason: str
    saving: float
    """Expected share of the emissions that the plan avoids"""
    forced: bool
    """True if the slack is used up and the deadline overrides the gate"""
    deadline: datetime
    """The job's deadline, or the one that `max_delay_hours` implies"""
    at: datetime
    """Time of the decision"""
    basis: str | None
    """Basis of the expected duration"""


class Resources(Answer):
    """What a job asked to train on."""

    gpus: int | Literal['auto']
    """GPUs of one machine; `auto`: the fewest that hold the model"""


class Intensity(Answer):
    """Intensity in force in a zone, and the step of the fallback chain that gave it."""

    zone: str
    gco2e_per_kwh: float
    step: Literal['fresh', 'forecast', 'stale', 'yesterday', 'last week', 'static']
    """`fresh` if a reading covers this time; else the substitute for one"""
    source: str
    """Source of the reading, preceded by the step unless that is `fresh`"""
    signal: Literal['average', 'marginal']
    """Intensity of the grid's average, or of the plant that another kWh would start"""
    emission_factors: Literal['lifecycle', 'direct']
    """Whether the life cycle of plants and fuel is included, or only direct emissions"""
    estimated: bool
    """False only if a measured reading covers this time"""
    start: datetime
    """Start of the reading's interval"""
    end: datetime
    age_seconds: float
    """Seconds since `start`"""
    fetched_at: datetime


class History(Answer):
    """Stored readings of a zone, earliest first; `covered_share` is the share of the requested time within one."""

    zone: str
    signal: Literal['average', 'marginal'] | None
    """Intensity of the grid's average, or of the plant that another kWh would start"""
    covered_share: float
    """In [0, 1]"""
    data: list[Reading]


class Warned(Answer):
    """A part that is missing although requests can be answered, and the consequence."""

    part: str
    message: str


class Forecast(Answer):
    """Forecast of a zone; empty if nothing is stored."""

    zone: str
    signal: Literal['average', 'marginal'] | None
    """Intensity of the grid's average, or of the plant that another kWh would start"""
    made_at: datetime | None
    """Creation time of the newest part"""
    provider_until: datetime | None
    """End of the provider's forecast; the rest, or all of it if this is None, is our own, made from stored readings"""
    until: datetime | None
    """End of the forecast"""
    data: list[Reading]


class Event(Answer):
    """An event in a job's history."""

    id: int
    at: datetime
    type: str
    data: dict[str, Any]


class Rouge(Answer):
    """Mean ROUGE F1 in per cent of the completions of a sample of the held-out rows, the same in each evaluation."""

    rouge1: float
    rouge2: float
    rouge_l: float
    rows: int


class Budget(Answer):
    """Feasibility of a budget."""

    given_gco2e: float
    smallest_gco2e: float | None
    """Emissions with every epoch at rho_min; None if no intensity is known"""
    can_be_kept: bool | None
    basis: str


class Queue(Answer):
    """Jobs that the zone's workers do first."""

    running: int
    ahead: int
    """Waiting jobs that start before it, without those that wait for their gate"""
    starts_at: datetime
    """Expected time at which a worker is free"""


class Place(Answer):
    """Zone in which the job would run, and its intensity."""

    zone: str
    reason: str
    live_workers: int
    signal: Literal['average', 'marginal']
    gco2e_per_kwh: float | None
    """Intensity in force now; None if none is known"""
    source: str | None
    step: str | None
    """Step of the fallback chain: `fresh`, or the substitute for a fresh reading"""
    estimated: bool
    expected_until: datetime | None
    """End of the forecast; None without one"""
    sources: list[str]
    """Sources of the expected intensities"""
    basis: str


class Memory(Answer):
    """Peak memory of an optimiser step on the longest rows."""

    peak_bytes: int | None
    """None until a job with the same model, method and similar settings was prepared"""
    least_bytes: int | None
    """Bytes of the weights, and where every tensor is trained of gradients and optimiser state: no step takes less; None until the model is measured"""
    device_bytes: int | None
    """Memory of the largest device of a live worker; None without one"""
    basis: str


class Figure(Answer):
    """An expected value, and the bounds of an interval that contains it in about nine cases of ten."""

    expected: float
    low: float
    high: float


class Work(Answer):
    """Work to compute."""

    training_rows: int
    training_examples: int
    """A conversation may have several, one for each learned turn at most"""
    dropped_rows: int | None
    """Rows of which nothing is learned; None if none was tokenised yet"""
    tokens_per_epoch: float
    full_flops: Figure
    """FLOPs of all epochs with every tensor trained; 1 multiply-accumulate counts as 2"""
    steps: int
    """Optimiser steps of the run"""
    recipe: str
    """Batches, learning-rate schedule and optimiser, in words"""
    basis: str


class Saving(Answer):
    """Saving of the best window over starting now; an estimate."""

    gco2e: float
    share: float


class Run(Answer):
    """A predicted run of the job."""

    starts_at: datetime
    ends_at: datetime
    hours: Figure
    """Hours of computing, without pauses"""
    rho: float
    """Mean share of full fine-tuning's FLOPs that is computed"""
    flops: Figure
    energy_kwh: Figure
    """Before PUE"""
    gco2e_per_kwh: float | None
    """Mean intensity of the hours of computing"""
    emissions_gco2e: Figure | None
    """PUE included; None if no intensity is known"""
    meets_deadline: bool | None
    """None without a deadline"""
    why: str


class EpochEnergy(Answer):
    """Metered energy in kWh by component, lost attempts included, and the method of each."""

    cpu_kwh: float
    gpu_kwh: float
    ram_kwh: float
    total_kwh: float
    methods: dict[str, str]
    estimated: bool
    """True if any of them estimates instead of reading a meter"""


class EpochIntensity(Answer):
    """Reading on which an epoch's ρ was decided; all None without one."""

    gco2e_per_kwh: float | None
    source: str | None
    step: str | None
    """Step of the fallback chain: `fresh`, or the substitute for a fresh reading"""
    age_seconds: float | None
    estimated: bool


class Characters(Answer):
    """Characters per row, all its texts together; `total` is over all rows."""

    total: int
    mean: float
    median: int
    max: int


class Artifact(Answer):
    """One file of a finished job's result."""

    name: str
    bytes: int
    sha256: str
    created_at: datetime
    link: str


class Zone(Answer):
    """A configured zone; values that are not known yet are None."""

    zone: str
    signal: Literal['average', 'marginal'] | None
    """Intensity of the grid's average, or of the plant that another kWh would start"""
    newest: Reading | None
    """Last stored reading that has begun"""
    age_seconds: float | None
    """Seconds since the start of that reading"""
    forecast: ForecastReach | None
    """None if none extends beyond the present"""
    workers: int
    """Number of live training workers in the zone"""
    provider: Provider | None = None
    """None if its source has not been asked yet"""


class Spread(Answer):
    """Distribution of the figures over the starts."""

    emissions_g: Quantiles
    less_work_saving: Quantiles
    moved_in_time_saving: Quantiles


class Series(Answer):
    """Curves by column: the entries at one index belong together. Times are milliseconds since 1970, in UTC."""

    start: datetime | None
    """Earliest time in any curve"""
    end: datetime | None
    """Latest time in any curve"""
    loss: Loss
    energy: Energy
    rho: Rho
    evaluation: EvaluationSeries


class Selection(Answer):
    """The tensors from the model's output to its input, and the epochs newest first."""

    tensors: list[Tensor]
    data: list[EpochSelection]
    has_more: bool


class Row(Answer):
    """A row for display. `number` is its line, or its row in a Parquet file, from 1."""

    number: int
    form: str
    """prompt (of instructions, too), messages (of ShareGPT's, too) or text"""
    texts: list[Excerpt]
    """Of a long conversation, those of the first hundred messages"""


class LearnedRow(Answer):
    """A row as training renders it. `line` is its line, or its row in a file of columns, from 1."""

    line: int
    examples: list[list[Segment]]
    """Text of each example; a conversation may have several. Empty where nothing of the row is learned"""
    tokens: int
    """Tokens of all examples"""
    learned_tokens: int
    is_cut: bool
    """True if only the beginning is shown"""
    error: str | None
    """Why the model cannot use this row"""


class Counterfactuals(Answer):
    """Alternative runs that a job is compared with; all are estimates."""

    full_now: Counterfactual
    """Every tensor trained, started at once"""
    constant_now: Counterfactual
    """The same FLOPs at a constant ρ, started at once"""
    oracle: Counterfactual
    """The same FLOPs in the cleanest hours, all known in advance"""


class Health(Answer):
    """Requests can be answered; `warnings` name what keeps jobs from running."""

    status: Literal['ok', 'degraded']
    """`degraded` if requests are answered but no job can be scheduled; `warnings` says why"""
    warnings: list[Warned]


class Evaluation(Answer):
    """One evaluation on the held-out rows. All but the loss are None for jobs of earlier versions."""

    step: int
    """Optimiser steps done when it was made"""
    epoch: float
    """Epochs done, a fraction within one"""
    at: datetime
    loss: float
    """Loss of a held-out token, in nats"""
    accuracy: float | None
    """Share of the learned tokens that the model ranks first, in [0, 1]"""
    rouge: Rouge | None
    """None where no held-out row has a prompt"""
    rows: int | None
    """Held-out rows"""
    seconds: float | None
    energy_kwh: float | None
    """Energy that the evaluation used; part of the job's"""
    best: bool
    """Whether its loss is the lowest so far"""


class Pace(Answer):
    """Duration and energy of an epoch at ρ = 1."""

    device: str | None
    """Device of the worker that would take the job; None if none is alive"""
    epoch_hours: Figure
    epoch_kwh: Figure
    """Before PUE"""
    outside_hours: float
    """Hours to load, evaluate and save, once a run"""
    evaluation_hours: float
    """Part of `outside_hours` that evaluations during training take"""
    assumed: bool
    """True if nothing was measured on this device yet"""
    basis: str


class Epoch(Answer):
    """One epoch: its decision and reason, what was reached, and its cost."""

    number: int
    attempt: int
    started_at: datetime
    finished_at: datetime | None
    rho_asked: float
    rho_reached: float | None
    """FLOPs of its steps, as a share of those that train every tensor"""
    reason: str
    intensity: EpochIntensity
    flops: float | None
    """1 multiply-accumulate counts as 2"""
    full_flops: float | None
    """FLOPs with every tensor trained, of which `rho_reached` is a share"""
    plain_full_flops: float | None
    """FLOPs with every tensor trained and the logits of all positions computed, which the job's `logits` may leave out"""
    probe_flops: float | None
    """FLOPs of probing the tensors' importance"""
    probe_seconds: float | None
    tensors_selected: int | None
    tensors_total: int | None
    tensors: list[str] | None
    """Names of the trained tensors, most important first"""
    train_loss: float | None
    eval_loss: float | None
    energy: EpochEnergy | None
    emissions_gco2e: float | None
    """None while part of the energy has no price"""
    unpriced_kwh: float
    """Part of the energy without a price"""


class Contents(Answer):
    """Summary of a dataset's rows."""

    forms: dict[str, int]
    """Number of rows of each form, by name: messages, sharegpt, prompt, instruction, text"""
    characters: Characters
    ignored_fields: list[str]
    """Fields or columns that are not used, of a list's objects such as messages[].id; at most twenty"""


class Simulation(Answer):
    """Simulated emissions of a policy and of the runs it is compared with; means over all starts."""

    emissions_g: float
    """Under the policy, in gCO2e"""
    baseline_g: float
    """At ρ = 1, started at once, without a pause"""
    constant_g: float
    """With the same total FLOPs at a constant ρ, started at once"""
    oracle_g: float
    """With the same total FLOPs in the cleanest hours before the deadline"""
    less_work_saving: float
    """(baseline − constant) / baseline"""
    moved_in_time_saving: float
    """(constant − emissions) / baseline"""
    oracle_share: float | None
    """Share of the oracle's saving by timing that was reached"""
    work_share: float
    """Share of the baseline's FLOPs"""
    epochs_run: float
    """Fewer than requested if a budget was used up"""
    on_time_share: float
    """Share of the starts that met the deadline"""
    starts: int
    finish: datetime | None
    """End of the run of a single start"""
    spread: Spread | None
    """Distribution over many starts"""
    decisions: list[Decision]
    """Decisions in the run of a single start"""
    basis: SimulationBasis


class LearnedText(Answer):
    """First rows of a dataset with their learned tokens marked, in a model's prompt format."""

    model: str
    prompt_format: str
    train_on: str
    rows: list[LearnedRow]


class Job(Answer):
    """One fine-tuning run; energy in kWh, emissions in gCO2e, times in UTC."""

    id: str
    name: str | None
    owner: str | None
    """Owner of the key that submitted it; None without a key"""
    status: Literal['validating', 'queued', 'deferred', 'running', 'pausing', 'paused', 'cancelling', 'cancelled', 'succeeded', 'failed']
    """Status of a job."""
    reason: str | None
    """Reason for the status, in words"""
    actions: list[Literal['cancel', 'pause', 'resume', 'retry']]
    """Actions that are possible now, each by `POST /jobs/{id}/<action>`"""
    error: dict[str, Any] | None
    model: str
    """Name in the catalogue; with a `base_job`, of the model that the first job trained"""
    base_job: str | None
    """Job whose result is trained further; None for the catalogue's model"""
    dataset: str
    validation_dataset: str | None
    method: str
    """`auto` until a job that asked for that is prepared, then the chosen one"""
    method_requested: str
    """Method of the submission, by which a copy of the job goes"""
    method_reason: str | None
    """Reason of the method that was chosen for `auto`, with the figures"""
    policy: dict[str, Any]
    """Policy at the time of submission"""
    policy_name: str | None
    zone: str | None
    zone_requested: str | None
    """Zone of the submission; None: any"""
    deadline: datetime | None
    priority: int
    resources: Resources
    """What the submission asked for"""
    gpus: int | None
    """GPUs that it trains on; None until a job that asked for `auto` is prepared"""
    hyperparameters: dict[str, Any]
    hyperparameters_requested: dict[str, Any] | None
    """Those that were given with the method `auto`, before its choice set others; None for other jobs"""
    metadata: dict[str, str]
    created_at: datetime
    ready_at: datetime | None
    """Time at which the job became ready"""
    queued_at: datetime | None
    not_before: datetime | None
    """Time of the next gate decision"""
    started_at: datetime | None
    finished_at: datetime | None
    attempts: int
    device: str | None
    signal: Literal['average', 'marginal'] | None
    """Kind of intensity that its decisions and its price are based on"""
    emission_factors: Literal['lifecycle', 'direct'] | None
    """Whether those intensities include the plants' life cycle, or only direct emissions"""
    gate: Gate | None
    """None before the first gate decision, and without a gate"""
    progress: Progress
    eta: Eta | None
    """None before the job is prepared, while it is paused, and once it is over"""
    rho: float | None
    """Requested ρ of the newest epoch"""
    loss: float | None
    best: Best | None
    """None before the first evaluation, and where no row is held out"""
    energy_kwh: float
    evaluation_kwh: float
    """Part of `energy_kwh` that evaluations used, before, during and after training"""
    unpriced_kwh: float
    """Part of `energy_kwh` that has no price"""
    emissions_gco2e: float
    """Emissions without those of the unpriced energy; 0, and unknown, if all energy is unpriced"""
    emissions_basis: EmissionsBasis | None
    less_work_saving: float | None
    """Share of `full_now`'s emissions saved by the FLOPs left out; an estimate, below 0 if more was emitted"""
    moved_in_time_saving: float | None
    """Share saved by the gate, by deferring or interrupting work; an estimate, below 0 if it cost more"""
    queueing_saving: float | None
    """Share saved by chance while waiting for a worker; an estimate, below 0 if that led to dirtier hours. None for jobs that ended under an earlier version, as are the next two"""
    owner_pause_saving: float | None
    """Share saved by chance by the times of the owner's pauses and retries; an estimate"""
    lost_work_saving: float | None
    """Share, below 0, of work that was repeated after a lost worker or a failed attempt; an estimate. The five savings add up to the whole saving"""
    counterfactuals: Counterfactuals | None
    """None until the job is over"""
    counterfactuals_missing: str | None
    """Reason why there are none although the job is over"""
    estimate: dict[str, Any] | None
    evaluation: dict[str, Any] | None
    links: JobLinks


class Estimate(Answer):
    """Predicted cost of a job, started now or in the best window before its deadline."""

    method: str
    """Method of the job; for `auto` the one that is expected to be chosen"""
    method_reason: str | None
    """Reason of the choice for `auto`, None for any other method"""
    now: Run
    best: Run
    """Run in the window that the policy's gate chooses; without a gate, in the best one of 24 h"""
    saving: Saving | None
    work: Work
    pace: Pace
    memory: Memory
    place: Place
    queue: Queue
    pue: float
    budget: Budget | None
    """None for a policy without a budget"""
    notes: list[str]
    """Remarks on the estimate"""


class Dataset(Answer):
    """An uploaded file of training rows."""

    id: str
    name: str
    format: str
    """Container of the rows: jsonl, json (an array), csv, tsv or parquet"""
    compression: str | None
    """gzip or zstd; None for a file that is not compressed as a whole"""
    columns: dict[str, str] | None
    """Fields of a row, and what they were taken from on upload"""
    rows: int
    bytes: int
    sha256: str
    contents: Contents | None
    """None for datasets stored before this was counted"""
    created_at: datetime