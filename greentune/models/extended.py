"""Models that add to the generated ones, and the types of a job's status and actions."""

from typing import Literal

from greentune.models import generated

JobStatus = Literal[
    "validating", "queued", "deferred", "running", "pausing", "paused", "cancelling", "cancelled", "succeeded", "failed"
]
Action = Literal["cancel", "pause", "resume", "retry"]
FINAL: frozenset[JobStatus] = frozenset({"succeeded", "failed", "cancelled"})


class Job(generated.Job):
    """One fine-tuning run; energy in kWh, emissions in gCO2e, times in UTC."""

    @property
    def known_gco2e(self) -> float | None:
        """Emissions; None where all of the energy is unpriced."""
        unpriced = self.unpriced_kwh > 0 and self.unpriced_kwh >= self.energy_kwh * (1 - 1e-9)
        return None if unpriced else self.emissions_gco2e

    @property
    def is_over(self) -> bool:
        """Whether the status is final, until a retry."""
        return self.status in FINAL


class IssuedKey(generated.Key):
    """A new key with its text, `key`, which is shown only once."""

    key: str
