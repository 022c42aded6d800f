"""Hyperparameters of a training run, as a job's `hyperparameters` and as options of `greentune train`."""

from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
)

from greencore.method_settings import AdaptiveSettings, LoraSettings
from greencore.text import StorableText

FormatName = Literal["plain", "tldr", "summarize", "chat"]
TrainOn = Literal["assistant", "last"]
ResultForm = Literal["full", "delta"]
PrecisionName = Literal["auto", "bf16", "mixed", "fp32"]


def _report_switch_once(value: object, parse: ValidatorFunctionWrapHandler) -> object:
    """Raise one error for a value that is neither, instead of one for each part of the union."""
    try:
        return parse(value)
    except ValidationError as error:
        raise ValueError("expected true, false or auto") from error


Switch = Annotated[bool | Literal["auto"], WrapValidator(_report_switch_once)]
Attention = Literal["sdpa", "flash", "eager"]


class SettingUnsupported(ValueError):
    """A model, method or device does not support the hyperparameter `field`; the message says why."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class Hyperparameters(BaseModel):
    """Settings of one training run; each has a default, and unknown names are rejected.

    This is the only list of them: REST, options, form and reference page follow it, as `greencore.setting_fields` says.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    epochs: int = Field(default=3, ge=1, le=1000, description="Passes over the training rows")
    batch_size: int = Field(default=4, ge=1, le=4096, description="Rows per optimiser step")
    learning_rate: float = Field(default=2e-5, gt=0, le=1, description="AdamW's peak learning rate")
    weight_decay: float = Field(
        default=0.01, ge=0, le=1, description="AdamW's decoupled weight decay", json_schema_extra={"group": "Optimiser"}
    )
    max_length: int = Field(
        default=512, ge=16, le=8192, description="Maximum tokens per row, within the model's positions"
    )
    prompt_format: FormatName = Field(
        default="plain",
        description="Text around a row's prompt: none, the paper's markers, or the model's chat template",
        json_schema_extra={"group": "Data"},
    )
    train_on: TrainOn = Field(
        default="assistant",
        description="Learned turns of a conversation: every assistant's turn of weight 1, since each is an answer that"
        " was given, or only its last message",
        json_schema_extra={"group": "Data"},
    )
    seed: int = Field(
        default=0,
        ge=0,
        lt=2**32,
        description="Random seed of the row order and all other choices",
        json_schema_extra={"group": "Run"},
    )
    eval_share: float = Field(
        default=0.1,
        ge=0,
        le=0.5,
        description="Share of rows held out for evaluation",
        json_schema_extra={"group": "Evaluation"},
    )
    max_new_tokens: int = Field(
        default=48,
        ge=1,
        le=4096,
        description="Maximum tokens of a completion generated during evaluation, within the model's positions",
        json_schema_extra={"group": "Evaluation"},
    )
    sample_prompt: StorableText | None = Field(
        default=None,
        max_length=4000,
        description="Prompt whose completion is generated before and after training",
        json_schema_extra={"group": "Evaluation"},
    )
    precision: PrecisionName = Field(
        default="auto",
        description=(
            "bf16: weights in bfloat16, with float32 masters of the trained tensors; mixed: float32 weights, and"
            " bfloat16 products where the device computes in it; fp32: float32 throughout; auto: bf16 where the device"
            " computes in it, else fp32, the least memory at full speed"
        ),
        json_schema_extra={"group": "Memory and speed"},
    )
    result: ResultForm = Field(
        default="full",
        description="Saved result: the whole model, or the changed tensors for `greentune apply-delta`",
        json_schema_extra={"group": "Run"},
    )
    packing: Switch = Field(
        default=False,
        description="Join the rows of a batch into one sequence without padding, with the loss of separate rows. "
        "`auto`: where it saves FLOPs and the model keeps the rows apart. Off by default: of rows alike in length, "
        "attention over the joined rows costs more than their padding",
        json_schema_extra={"group": "Batches"},
    )
    group_by_length: Switch = Field(
        default=False,
        description="Batch rows of similar length, which saves padding; batches come in random order. `auto`: where it "
        "saves FLOPs and rows are not packed. Off by default, so that a step's rows are a random sample",
        json_schema_extra={"group": "Batches"},
    )
    gradient_checkpointing: Switch = Field(
        default="auto",
        description="Recompute each block in the backward pass instead of keeping its activations: less memory, about "
        "a third more time. `auto`: where the step would not fit into the device's memory otherwise",
        json_schema_extra={"group": "Memory and speed"},
    )
    attention: Attention | None = Field(
        default=None,
        description="Implementation of attention; null: the model's default, which is sdpa for most. `flash` needs a "
        "CUDA device and the package flash-attn",
        json_schema_extra={"group": "Memory and speed"},
    )

    adaptive: AdaptiveSettings | None = Field(
        default=None,
        title="Adaptive backpropagation",
        description="Settings of adaptive backpropagation; null: its defaults",
        json_schema_extra={"method": "greentrainer"},
    )
    lora: LoraSettings | None = Field(
        default=None,
        title="LoRA",
        description="Settings of LoRA; null: its defaults",
        json_schema_extra={"method": "lora"},
    )

    @field_validator("group_by_length")
    @classmethod
    def _refuse_grouping_packed_rows(cls, value: Switch, given: ValidationInfo) -> Switch:
        if value is True and given.data.get("packing") is True:
            raise ValueError("packed rows have no padding that grouping could save: choose one of the two")
        return value

    @field_validator("lora")
    @classmethod
    def _refuse_delta_of_adapter(cls, value: LoraSettings | None, given: ValidationInfo) -> LoraSettings | None:
        if value is not None and value.result == "adapter" and given.data.get("result") == "delta":
            raise ValueError("its result is an adapter, of which there is no delta: set one of the two results")
        return value

    def check_method(self, method: str) -> None:
        """Raise `SettingUnsupported` for a setting that contradicts the method of the run."""
        for field, owner in (("adaptive", "greentrainer"), ("lora", "lora")):
            if getattr(self, field) is not None and method != owner:
                raise SettingUnsupported(field, f"given with the method {method}, and only {owner} has these settings")
        if method == "prefix" and self.packing is True:
            raise SettingUnsupported("packing", "the prefix precedes only the first of the rows of a packed batch")
        if method == "prefix" and self.gradient_checkpointing is True:
            raise SettingUnsupported("gradient_checkpointing", "recomputed blocks do not see the keys of a prefix")
