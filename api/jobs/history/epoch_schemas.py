"""Response models of an epoch."""

from datetime import datetime

from pydantic import BaseModel, Field

from api.row_model import RowModel
from greencore.energy import is_estimate
from store.repositories.jobs import EpochCost
from store.tables import Epoch


class EpochIntensity(BaseModel):
    """Reading on which an epoch's ρ was decided; all null without one."""

    gco2e_per_kwh: float | None
    source: str | None
    step: str | None = Field(description="Step of the fallback chain: `fresh`, or the substitute for a fresh reading")
    age_seconds: float | None
    estimated: bool


class EpochEnergy(RowModel):
    """Metered energy in kWh by component, lost attempts included, and the method of each."""

    cpu_kwh: float
    gpu_kwh: float
    ram_kwh: float
    total_kwh: float
    methods: dict[str, str]
    estimated: bool = Field(description="True if any of them estimates instead of reading a meter")


class EpochOut(RowModel):
    """One epoch: its decision and reason, what was reached, and its cost."""

    number: int
    attempt: int
    started_at: datetime
    finished_at: datetime | None
    rho_asked: float
    rho_reached: float | None = Field(description="FLOPs of its steps, as a share of those that train every tensor")
    reason: str
    intensity: EpochIntensity
    flops: float | None = Field(description="1 multiply-accumulate counts as 2")
    full_flops: float | None = Field(description="FLOPs with every tensor trained, of which `rho_reached` is a share")
    plain_full_flops: float | None = Field(
        description="FLOPs with every tensor trained and the logits of all positions computed, which the job's "
        "`logits` may leave out"
    )
    probe_flops: float | None = Field(description="FLOPs of probing the tensors' importance")
    probe_seconds: float | None
    tensors_selected: int | None
    tensors_total: int | None
    tensors: list[str] | None = Field(description="Names of the trained tensors, most important first")
    train_loss: float | None
    eval_loss: float | None
    energy: EpochEnergy | None
    emissions_gco2e: float | None = Field(description="Null while part of the energy has no price")
    unpriced_kwh: float = Field(description="Part of the energy without a price")

    @classmethod
    def of(cls, epoch: Epoch, cost: EpochCost | None) -> "EpochOut":
        """Build from an epoch and, if any energy was metered, its cost."""
        found = epoch.selection
        return cls.from_row(
            epoch,
            intensity=EpochIntensity(
                gco2e_per_kwh=epoch.intensity_gco2e_per_kwh,
                source=epoch.intensity_source,
                step=epoch.intensity_step,
                age_seconds=epoch.intensity_age_seconds,
                estimated=epoch.intensity_estimated,
            ),
            tensors=None if found is None else sorted(found, key=lambda name: found[name] or 0.0, reverse=True),
            energy=cost
            and EpochEnergy.from_row(
                cost, total_kwh=cost.energy_kwh, estimated=any(map(is_estimate, cost.methods.values()))
            ),
            emissions_gco2e=cost and cost.emissions_gco2e,
            unpriced_kwh=cost.unpriced_kwh if cost else 0.0,
        )
