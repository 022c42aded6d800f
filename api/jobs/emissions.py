"""What a job's emissions rest on, and what it would have emitted otherwise, on the wire."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from greencore.energy import is_estimate
from store.repositories.jobs import EmissionsBasis
from store.tables import Job


class EmissionsBasisOut(BaseModel):
    """What the energy and the emissions rest on."""

    status: Literal["provisional", "settled"] = Field(
        description="Settled once the job is over and the price of all of its energy is final"
    )
    settled_gco2e: float = Field(description="The part of the emissions whose price is final")
    pue: float = Field(description="What the site drew for each kWh metered: it is in the emissions, not in the energy")
    estimated: bool = Field(description="True where an intensity behind the price is itself an estimate")
    sources: list[str] = Field(description="The sources of those intensities")
    unpriced_kwh: float = Field(description="Energy without a price: its intensity is not known, or never became known")
    energy_methods: dict[str, list[str]] = Field(description="How each component's energy was found")
    energy_estimated: bool = Field(description="True where any of them reckons instead of reading a meter")
    lost_kwh: float = Field(
        description="The part of the energy that was lost with a worker before it was stored, and is estimated"
    )
    tracker_kwh: float | None = Field(
        description="CodeCarbon's own total of the energy, less what other jobs on the host used, as a check; attempts "
        "that were lost are missing in it"
    )

    @classmethod
    def of(cls, job: Job, basis: EmissionsBasis, settlement: Mapping[str, Any]) -> "EmissionsBasisOut":
        """A job's basis; `settlement` as `EmissionsRepository.get_settlement_by_job` gives it."""
        return cls(
            status="provisional" if job.settled_at is None else "settled",
            settled_gco2e=settlement["settled_gco2e"],
            pue=settlement["pue"],
            estimated=basis.estimated,
            sources=list(basis.sources),
            unpriced_kwh=basis.unpriced_kwh,
            energy_methods={component: list(ways) for component, ways in basis.methods.items()},
            energy_estimated=any(is_estimate(way) for ways in basis.methods.values() for way in ways),
            lost_kwh=basis.lost_kwh,
            tracker_kwh=job.tracker_kwh,
        )


class CounterfactualOut(BaseModel):
    """An estimate of what a job would have emitted otherwise, and what it assumes."""

    emissions_gco2e: float
    energy_kwh: float = Field(description="Without what the site draws on top")
    hours: float = Field(description="Of computing, between start and end")
    start: datetime
    end: datetime
    assumption: str
    covered_share: float = Field(description="Share of the hours for which an intensity was known, in [0, 1]")
    estimated: Literal[True]


class CounterfactualsOut(BaseModel):
    """What a job is compared with; all three are estimates, since none of it happened."""

    full_now: CounterfactualOut = Field(description="Every tensor trained, begun at once")
    constant_now: CounterfactualOut = Field(description="The same FLOPs at a constant ρ, begun at once")
    oracle: CounterfactualOut = Field(description="The same FLOPs in the cleanest hours, all known beforehand")

    @classmethod
    def of(cls, job: Job) -> "CounterfactualsOut | None":
        """What the scheduler reckoned once the job was over; None before, and where there is nothing to compare."""
        stored = job.counterfactuals or {}
        return cls.model_validate(stored) if "full_now" in stored else None
