"""Base class of the models: immutable, and without the fields that a newer service adds; and shared types."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

Signal = Literal["average", "marginal"]
EmissionFactors = Literal["lifecycle", "direct"]


class Answer(BaseModel):
    """An answer of the service, or a part of one."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)
