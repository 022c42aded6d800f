"""Carbon intensity on the wire."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from greencore.carbon import Reading


class IntensityOut(BaseModel):
    """The reading in force in a zone."""

    zone: str
    gco2e_per_kwh: float
    start: datetime
    end: datetime
    source: str
    signal: Literal["average", "marginal"]
    estimated: bool = Field(description="True where the source modelled the value instead of measuring it")
    age_seconds: float = Field(description="Since the start of the interval that the reading describes")
    fetched_at: datetime

    @classmethod
    def of(cls, reading: Reading, *, now: datetime) -> "IntensityOut":
        """A reading as it stands at `now`."""
        return cls(
            zone=reading.zone,
            gco2e_per_kwh=reading.gco2e_per_kwh,
            start=reading.start,
            end=reading.end,
            source=reading.source,
            signal=reading.signal,
            estimated=reading.estimated,
            age_seconds=reading.age_seconds(now),
            fetched_at=reading.fetched_at,
        )
