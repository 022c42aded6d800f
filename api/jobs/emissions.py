"""Response models of a job's emissions: their basis, and the counterfactuals."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from api.row_model import RowModel
from greencore.energy import is_estimate
from store.repositories.jobs import EmissionsBasis
from store.tables import Job


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
