"""Request models of a simulation: a policy, a run, and its intensity history."""

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
        description="Default: the next start, or `start` plus the usual spacing of starts (at least an hour) if that "
        "is earlier; for the last reading, `start` plus the usual spacing",
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


# Only described here: a year of readings is validated in the endpoint's thread, not in the event loop.
Readings = Annotated[list[UploadedReading], Field(max_length=MAX_READINGS)]
UploadedReadings = Annotated[list[Any], PlainValidator(_list, json_schema_input_type=Readings)]


class SimulationRequest(BaseModel):
    """A policy, a run, and the readings to simulate it on: those stored of a zone, or uploaded ones."""

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

    policy: PolicyChoice = Field(description="Name of a stored policy, or a policy as an object")
    work_hours: float = Field(gt=0, le=LONGEST_HOURS, description="Length of the run at ρ = 1")
    epochs: int = Field(ge=1, le=1000)
    deadline_hours: float | None = Field(
        default=None,
        gt=0,
        le=LONGEST_HOURS,
        description="Hours from the start; null: the run's length plus `max_delay_hours` of the policy's gate",
    )
    start: RecordedTime | None = Field(default=None, description="Start of the run; null: every full hour")
    forecast: ForecastKind = Field(
        default="own", description="What the gate plans by: our own forecast, the day before, or the actual intensities"
    )
    power_w: float = Field(default=300.0, gt=0, le=1e9, description="Power while computing")
    idle_power_w: float = Field(default=0.0, ge=0, le=1e9, description="Power while waiting or paused")

    zone: Annotated[StorableText, Field(max_length=LONGEST_ID)] | None = Field(
        default=None, description="Zone whose stored readings are used"
    )
    signal: Signal | None = Field(default=None, description="Signal of that zone; null: the one in use now")
    from_: RecordedTime | None = Field(
        default=None, alias="from", description="Start of the stored readings; null: a year before their end"
    )
    to: RecordedTime | None = Field(
        default=None, description="End of the stored readings; null: now, or the end of the window of a single start"
    )
    series: UploadedReadings | None = Field(default=None, description="Readings instead of a zone, earliest first")
