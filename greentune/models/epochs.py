"""What the epochs of a job did, and the curves of it."""

from datetime import datetime

from greentune.models.answer import Answer


class EpochIntensity(Answer):
    """The reading that an epoch's ρ was decided by; all None where there was none."""

    gco2e_per_kwh: float | None
    source: str | None
    step: str | None
    """Of the fallback chain: fresh, or what stood in for a fresh reading"""
    age_seconds: float | None
    estimated: bool


class EpochEnergy(Answer):
    """Metered energy in kWh by component, lost attempts included, and how each was found."""

    cpu_kwh: float
    gpu_kwh: float
    ram_kwh: float
    total_kwh: float
    methods: dict[str, str]
    estimated: bool
    """True where any of them reckons instead of reading a meter"""


class Epoch(Answer):
    """One epoch: what was asked and why, what was reached, and what it cost."""

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
    """With every tensor trained"""
    probe_flops: float | None
    """Spent on finding the tensors' importance"""
    probe_seconds: float | None
    tensors_selected: int | None
    tensors_total: int | None
    tensors: list[str] | None
    """Those that are trained, the most important first"""
    train_loss: float | None
    eval_loss: float | None
    energy: EpochEnergy | None
    emissions_gco2e: float | None
    """None while part of the energy has no price"""
    unpriced_kwh: float
    """That part of the energy"""


class Loss(Answer):
    """One entry for each optimiser step that is kept: the lowest and the highest loss of every stretch."""

    step: list[int]
    at: list[int]
    value: list[float | None]
    """None where the loss was not finite"""
    mean: list[float | None]
    """Of all steps in the same stretch, those left out included"""


class Evaluation(Answer):
    """One entry for each epoch after which the held-out rows were evaluated."""

    epoch: list[int]
    at: list[int]
    loss: list[float]


class Rho(Answer):
    """One entry for each epoch."""

    epoch: list[int]
    start: list[int]
    end: list[int | None]
    asked: list[float]
    reached: list[float | None]


class Energy(Answer):
    """One entry for each stretch of metered time; where no worker ran, the next begins after the last one's end."""

    start: list[int]
    end: list[int]
    power_w: list[float]
    intensity_gco2e_per_kwh: list[float | None]
    """None where it is not known yet"""
    energy_kwh: list[float]
    """All that the job had used by the end of the stretch"""
    unpriced_kwh: list[float]
    """The part of that energy which has no price"""
    emissions_gco2e: list[float]
    """All that it had emitted by then, without the unpriced energy"""


class Series(Answer):
    """Curves by column: the entries at one index belong together. Times are milliseconds since 1970, in UTC."""

    start: datetime | None
    """The earliest time in any of them"""
    end: datetime | None
    """The latest time in any of them"""
    loss: Loss
    evaluation: Evaluation
    energy: Energy
    rho: Rho


class Tensor(Answer):
    """A weight tensor that the job may train. Costs are None for a job whose costs were not kept."""

    name: str
    stack: str | None
    """encoder or decoder, where the model has both"""
    layer: int | None
    """The block of its stack, from 0; None outside of the blocks"""
    kind: str
    """Its part in the block, alike in all of them, such as self_attn.q_proj"""
    parameters: int | None
    t_dw_flops: int | None
    """Of its own gradient, in one step of the longest rows; 1 multiply-accumulate counts as 2"""
    t_dy_flops: int | None
    """Of carrying the gradient on to the tensors below it, likewise"""


class EpochSelection(Answer):
    """What one epoch trained; numbers of tensors are indices into `tensors`."""

    number: int
    rho_asked: float
    rho_reached: float | None
    trained: list[int]
    importance: list[float | None] | None
    """The loss reduction that a step on each tensor alone promises, as last probed; None for those that the budget
    could not reach, and None as a whole where nothing was probed: at ρ = 1, and for methods that always train the
    same"""


class Selection(Answer):
    """The tensors from the model's output to its input, and the epochs newest first."""

    tensors: list[Tensor]
    data: list[EpochSelection]
    has_more: bool
