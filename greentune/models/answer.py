"""What every answer has in common: it cannot be changed, and what a newer service adds to it is left out."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

Signal = Literal["average", "marginal"]
EmissionFactors = Literal["lifecycle", "direct"]


class Answer(BaseModel):
    """A part of what the service answers."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)
