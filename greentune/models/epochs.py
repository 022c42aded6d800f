"""Epochs and curves of a job."""

from datetime import datetime

from greentune.models.answer import Answer


class EpochIntensity(Answer):
    """Reading that an epoch's ρ was decided by; its values are None where there was none."""

    gco2e_per_kwh: float | None
    source: str | None
    step: str | None
    """Step of the fallback chain: fresh, or what replaced a fresh reading"""
    age_seconds: float | None
    estimated: bool


class EpochEnergy(Answer):
    """Metered energy in kWh by component, including lost attempts, with the method of each."""

    cpu_kwh: float
    gpu_kwh: float
    ram_kwh: float
    total_kwh: float
    methods: dict[str, str]
    estimated: bool
    """True where a method estimates instead of reading a meter"""


class Epoch(Answer):
    """One epoch: requested ρ with its reason, achieved ρ, and cost."""

    number: int
    attempt: int
    started_at: datetime
    finished_at: datetime | None
    rho_asked: float
    rho_reached: float | None
    """FLOPs of its steps / FLOPs of training every tensor"""
    reason: str
    intensity: EpochIntensity
    flops: float | None
    """FLOPs of its steps; 1 multiply-accumulate counts as 2"""
    full_flops: float | None
    """FLOPs with every tensor trained"""
    probe_flops: float | None
    """FLOPs of measuring the tensors' importance"""
    probe_seconds: float | None
    tensors_selected: int | None
    tensors_total: int | None
    tensors: list[str] | None
    """Trained tensors, the most important first"""
    train_loss: float | None
    eval_loss: float | None
    energy: EpochEnergy | None
    emissions_gco2e: float | None
    """None while part of the energy is unpriced"""
    unpriced_kwh: float
    """Energy without a price"""


class Loss(Answer):
    """Loss by optimiser step, thinned to the lowest and the highest of every stretch of steps."""

    step: list[int]
    at: list[int]
    value: list[float | None]
    """None where the loss was not finite"""
    mean: list[float | None]
    """Mean loss of all steps of the stretch"""


class Evaluation(Answer):
    """Held-out loss, for each epoch that ended with an evaluation."""

    epoch: list[int]
    at: list[int]
    loss: list[float]


class Rho(Answer):
    """ρ by epoch."""

    epoch: list[int]
    start: list[int]
    end: list[int | None]
    asked: list[float]
    reached: list[float | None]


class Energy(Answer):
    """Energy by stretch of metered time; stretches have gaps where no worker ran."""

    start: list[int]
    end: list[int]
    power_w: list[float]
    intensity_gco2e_per_kwh: list[float | None]
    """None where it is not known yet"""
    energy_kwh: list[float]
    """Total energy of the job at the end of the stretch"""
    unpriced_kwh: list[float]
    """Part of that energy without a price"""
    emissions_gco2e: list[float]
    """Total emissions at that time, without the unpriced energy"""


class Series(Answer):
    """Curves as columns, whose entries at one index belong together; times in milliseconds since 1970 (UTC)."""

    start: datetime | None
    """Earliest time of the curves"""
    end: datetime | None
    """Latest time of the curves"""
    loss: Loss
    evaluation: Evaluation
    energy: Energy
    rho: Rho


class Tensor(Answer):
    """A weight tensor that the job may train; costs are None for a job that did not store them."""

    name: str
    stack: str | None
    """encoder or decoder, for a model with both"""
    layer: int | None
    """Block of its stack, from 0; None outside of the blocks"""
    kind: str
    """Part of the block, the same in all blocks, such as self_attn.q_proj"""
    parameters: int | None
    t_dw_flops: int | None
    """FLOPs of its weight gradient in one step of the longest rows; 1 multiply-accumulate counts as 2"""
    t_dy_flops: int | None
    """FLOPs of passing the gradient to the tensors below it, in the same step"""


class EpochSelection(Answer):
    """Tensors that one epoch trained, as indices into `tensors`."""

    number: int
    rho_asked: float
    rho_reached: float | None
    trained: list[int]
    importance: list[float | None] | None
    """Loss reduction that a step on each tensor alone predicts, as last probed; None for tensors that the budget could
    not reach; None as a whole without a probe: at ρ = 1, and for methods with a fixed selection"""


class Selection(Answer):
    """Tensors from the model's output to its input, and epochs, newest first."""

    tensors: list[Tensor]
    data: list[EpochSelection]
    has_more: bool
