"""A schema with every kind of setting, for what options, form and reference make of a schema."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Target = Annotated[str, Field(max_length=20)]


class ProbeSettings(BaseModel):
    """Settings of a group that applies to one method."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rank: int = Field(default=8, ge=1, le=64, description="Rank of something")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Share that is dropped")
    targets: list[Target] | Literal["all"] | None = Field(default=None, description="Where it applies")
    scaled: bool = Field(default=False, description="Whether it is scaled")
    form: Literal["merged", "apart"] = Field(default="merged", description="Form of the result")


class StandIn(BaseModel):
    """Settings of each kind."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rounds: int | None = Field(default=3, ge=1, le=10, description="Rounds to make")
    speed: float = Field(default=0.5, gt=0, le=1, description="How fast")
    size: Annotated[int, Field(ge=1, le=100)] | Literal["auto"] | None = Field(
        default=None, description="Rows at a time", json_schema_extra={"group": "Batches"}
    )
    packing: bool | Literal["auto"] = Field(
        default="auto", description="Whether rows are packed", json_schema_extra={"group": "Batches"}
    )
    marks: list[str] = Field(
        default=["loss"], max_length=5, description="Marks to take", json_schema_extra={"group": "Quality"}
    )
    probe: ProbeSettings | None = Field(
        default=None, title="A probe", description="Settings of the probe", json_schema_extra={"methods": ["lora"]}
    )
    stopping: ProbeSettings = Field(default=ProbeSettings(rank=2), description="When to stop")
