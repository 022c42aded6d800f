"""Request model of a job submission."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from api.http.pagination import LONGEST_ID
from api.http.times import UtcDatetime
from api.policies.schemas import PolicyChoice
from greencore.device import MAX_GPUS
from greencore.settings.hyperparameters import Hyperparameters
from greencore.text import DisplayName, StorableText

Method = Literal["auto", "greentrainer", "full", "lora", "prefix", "top2", "bitfit"]
# The paper's advice (§4.2): about 40 % of the training cost saved without a noticeable risk to accuracy.
DEFAULT_POLICY: Mapping[str, Any] = {"kind": "constant", "rho": 0.6}

MAX_METADATA = 50
LONGEST_METADATA = 512
Name = Annotated[StorableText, Field(max_length=LONGEST_ID)]
MetadataKey = Annotated[StorableText, Field(min_length=1, max_length=64)]
MetadataValue = Annotated[StorableText, Field(max_length=LONGEST_METADATA)]


class Resources(BaseModel):
    """What a job trains on."""

    model_config = ConfigDict(extra="forbid")

    gpus: Annotated[int, Field(ge=1, le=MAX_GPUS, strict=True)] | Literal["auto"] = Field(
        default=1,
        description="GPUs of one machine that the model is divided among, one process on each; `auto`: the fewest that "
        "hold it, by the prediction of its memory. On a machine without a GPU, processes on its processor",
    )

    @property
    def asked(self) -> int | None:
        """The number that was asked for; None for `auto`."""
        return None if self.gpus == "auto" else self.gpus


class JobRequest(BaseModel):
    """A fine-tuning run to submit."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "model": "SmolLM2-135M-Instruct",
                    "dataset": "dataset_0197c1d2e3f47a5b8c9d0e1f2a3b4c5d",
                    "policy": {
                        "kind": "steps",
                        "steps": [{"up_to": 150, "rho": 1.0}, {"up_to": 300, "rho": 0.7}, {"rho": 0.5}],
                    },
                    "method": "greentrainer",
                    "zone": "FR",
                    "hyperparameters": {"epochs": 3},
                }
            ]
        },
    )

    name: DisplayName | None = Field(
        default=None, description="Name for people, also of the result; not unique, and no id. An estimate ignores it"
    )
    model: Name = Field(
        description="Name of a model from `GET /models`, or the id of a finished job, whose result is trained further"
    )
    dataset: Name = Field(description="Id of an uploaded dataset")
    validation_dataset: Name | None = Field(
        default=None,
        description="Id of an uploaded dataset of the same form that the model is evaluated on, in place of an "
        "`eval_share` of `dataset`; rows that are also trained on are left out",
    )
    method: Method = Field(
        default="auto",
        description="`auto`: as the job is prepared, the method that learned most in a benchmark at the job's budget "
        "of FLOPs; or adaptive backpropagation, or one of the methods that it is compared with. A job that names "
        "none and has settings of adaptive backpropagation is trained by `greentrainer`",
    )
    policy: PolicyChoice = Field(
        default=dict(DEFAULT_POLICY),
        description="Name of a stored policy, or a policy as an object. Only `greentrainer` has a ρ: for any other "
        "method only the policy's gate applies. `auto` takes the mean ρ times the run's length as its budget",
    )
    zone: Name | None = Field(default=None, description="Zone to run in; null: any zone with a worker")
    deadline: UtcDatetime | None = Field(default=None, description="Time by which the run has to end")
    priority: int = Field(default=0, ge=-100, le=100, description="Jobs of a higher priority start first")
    resources: Resources = Resources()
    hyperparameters: Hyperparameters = Hyperparameters()
    metadata: dict[MetadataKey, MetadataValue] = Field(
        default={}, max_length=MAX_METADATA, description="Labels for the client's own use"
    )

    @model_validator(mode="after")
    def _take_method_of_settings(self) -> "JobRequest":
        if "method" not in self.model_fields_set and self.hyperparameters.adaptive is not None:
            self.method = "greentrainer"
        return self
