"""What is asked of a simulation: a policy, a run, and the past that it is held against."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, model_validator

from api.http.pagination import LONGEST_ID
from api.http.times import RecordedTime
from api.policies.schemas import PolicyChoice
from greencore.carbon import Signal
from greencore.carbon.http.cleaning import HIGHEST_GCO2E_PER_KWH
from greencore.policy.gate.forecasts import ForecastKind
from greencore.text import StorableText

MAX_READINGS = 110_000
LONGEST_HOURS = 8760
MAX_FIELDS = 30


class UploadedReading(BaseModel):
    """The intensity of one interval."""

    model_config = ConfigDict(extra="forbid")

    start: RecordedTime
    end: RecordedTime | None = Field(
        default=None,
        description="Where it is left out: the next start, or after the usual spacing of starts (at least an hour) "
        "where that is earlier; of the last one, after the usual spacing",
    )
    gco2e_per_kwh: float = Field(ge=0, le=HIGHEST_GCO2E_PER_KWH)
    signal: Signal = "average"
    estimated: bool = False


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("expected readings as a list")
    if len(value) > MAX_READINGS:
        raise ValueError(
            f"given {len(value):,} readings: expected at most {MAX_READINGS:,}, such as a year of 5 minutes"
        )
    return value


# Only described here: a year of readings is checked in the endpoint's own thread, not in the loop that serves everyone.
Readings = Annotated[list[UploadedReading], Field(max_length=MAX_READINGS)]
UploadedReadings = Annotated[list[Any], PlainValidator(_list, json_schema_input_type=Readings)]


class SimulationRequest(BaseModel):
    """A policy, a run, and either a zone whose stored readings it is held against, or readings."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "policy": {"kind": "constant", "rho": 1.0, "gate": {"mode": "pause"}},
                    "work_hours": 17,
                    "epochs": 17,
                    "deadline_hours": 34,
                    "zone": "FR",
                }
            ]
        },
    )

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, given: object) -> object:
        if isinstance(given, dict) and len(given) > MAX_FIELDS:
            raise ValueError(f"given {len(given):,} fields: expected at most {MAX_FIELDS}")
        return given

    policy: PolicyChoice = Field(description="The name of a stored policy, or a policy as an object")
    work_hours: float = Field(gt=0, le=LONGEST_HOURS, description="The run's length at ρ = 1")
    epochs: int = Field(ge=1, le=1000)
    deadline_hours: float | None = Field(
        default=None,
        gt=0,
        le=LONGEST_HOURS,
        description="From the start; without one `max_delay_hours` of the policy's gate is added to the run's length",
    )
    start: RecordedTime | None = Field(default=None, description="Null: every full hour, and their mean")
    forecast: ForecastKind = Field(
        default="own", description="What the gate plans by: our own forecast, the day before, or what did come"
    )
    power_w: float = Field(default=300.0, gt=0, le=1e9, description="While it computes")
    idle_power_w: float = Field(default=0.0, ge=0, le=1e9, description="While it waits or pauses")

    zone: Annotated[StorableText, Field(max_length=LONGEST_ID)] | None = Field(
        default=None, description="One whose readings are stored here"
    )
    signal: Signal | None = Field(default=None, description="Of that zone; null: the one that is asked for now")
    from_: RecordedTime | None = Field(
        default=None, alias="from", description="Of the stored readings; null: a year before they end"
    )
    to: RecordedTime | None = Field(
        default=None, description="Null: now, or the end of the window of the one start that was asked for"
    )
    series: UploadedReadings | None = Field(default=None, description="Readings instead of a zone, earliest first")
