"""Hyperparameters of a training run, as a job's `hyperparameters` and as options of `greentune train`."""

from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from greencore.settings.method_settings import AdaptiveSettings, LoraSettings
from greencore.settings.value_types import (
    Attention,
    EvaluationUnit,
    FormatName,
    LogitPositions,
    MicroBatchRows,
    OptimizerName,
    PrecisionName,
    ResultForm,
    Scheduler,
    Switch,
    TrainOn,
)
from greencore.text import StorableText

DEFAULT_MOMENTUM = 0.9
MAX_EPOCHS = 1000


class SettingUnsupported(ValueError):
    """A model, method or device does not support the hyperparameter `field`; the message says why."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class EarlyStopping(BaseModel):
    """End of a run whose evaluation loss no longer falls."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    patience: int = Field(
        default=3,
        ge=1,
        le=1000,
        description="Evaluations without a gain after which the run ends; one or two may be noise",
    )
    min_gain: float = Field(
        default=0.0,
        ge=0,
        le=100,
        description="Smallest fall of the evaluation loss, in nats, below its last gain that counts as one",
    )


class Hyperparameters(BaseModel):
    """Settings of one training run; each has a default, and unknown names are rejected.

    This is the only list of them: REST, options, form and reference page follow it (`greencore.settings.fields`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    epochs: int | None = Field(
        default=3,
        ge=1,
        le=MAX_EPOCHS,
        description="Passes over the training rows; null where `max_steps` is given. 3 by default, as many more "
        "mostly learn small datasets by heart. Under the method `auto` the length, times the policy's ρ, is a budget, "
        "which the chosen method spends in as many steps as it pays for",
    )
    max_steps: int | None = Field(
        default=None,
        ge=1,
        le=10_000_000,
        validate_default=True,
        description="Optimiser steps of the run instead of `epochs`; the last epoch ends with the last step. A budget "
        "under `auto`, as `epochs` are",
        json_schema_extra={"group": "Run"},
    )
    batch_size: int = Field(
        default=4, ge=1, le=4096, description="Rows per optimiser step; 4 by default, as in the paper's runs"
    )
    micro_batch_size: MicroBatchRows | None = Field(
        default=None,
        description="Rows computed at once, whose gradients add up to an optimiser step's: a number, or `auto` for the "
        "most that the device's memory holds; null for the whole batch, which is fastest where it fits",
        json_schema_extra={"group": "Batches"},
    )
    learning_rate: float = Field(
        default=2e-5,
        gt=0,
        le=1,
        description="Peak learning rate; cautious by default for any method and size: the benchmarks' short runs of a "
        "small model learn most at 1e-4 to 5e-4. The method `auto` takes the benchmark's where none is given",
    )
    scheduler: Scheduler = Field(
        default="linear",
        description="How the learning rate falls after the warm-up. `linear`, the default, is what most fine-tuning "
        "recipes assume, and soon learns at every rate; `warmup-stable-decay` falls over the last fifth",
        json_schema_extra={"group": "Optimiser"},
    )
    warmup_ratio: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Share of the steps over which the learning rate rises from 0; none by default, since a pretrained "
        "model at a low rate needs no warm-up",
        json_schema_extra={"group": "Optimiser"},
    )
    warmup_steps: int | None = Field(
        default=None,
        ge=0,
        le=10_000_000,
        description="Steps of the warm-up, instead of `warmup_ratio`",
        json_schema_extra={"group": "Optimiser"},
    )
    min_lr_ratio: float = Field(
        default=0,
        ge=0,
        le=1,
        description="Learning rate at the end, as a share of its peak; 0 leaves the weights settled",
        json_schema_extra={"group": "Optimiser"},
    )
    optimizer: OptimizerName = Field(
        default="adamw",
        description="AdamW suits every model; `adafactor` keeps almost no state, `sgd` one number for each weight, and "
        "each needs a learning rate of its own",
        json_schema_extra={"group": "Optimiser"},
    )
    adam_beta1: float = Field(
        default=0.9,
        ge=0,
        lt=1,
        description="AdamW's decay of the gradient's mean; the default is the usual one",
        json_schema_extra={"group": "Optimiser"},
    )
    adam_beta2: float = Field(
        default=0.999,
        ge=0,
        lt=1,
        description="AdamW's decay of the gradient's square; the default is the usual one",
        json_schema_extra={"group": "Optimiser"},
    )
    momentum: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="Momentum of `sgd`, for which the default is 0.9, the usual one",
        json_schema_extra={"group": "Optimiser"},
    )
    weight_decay: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="Weight decay of matrices, small so that the pretrained weights are kept",
        json_schema_extra={"group": "Optimiser"},
    )
    max_grad_norm: float = Field(
        default=1.0,
        ge=0,
        le=1_000_000,
        description="Norm to which a step's gradients are clipped, so that one odd batch does little harm; 0 for none",
        json_schema_extra={"group": "Optimiser"},
    )
    max_length: int = Field(
        default=512,
        ge=16,
        le=8192,
        description="Maximum tokens per row, within the model's positions; 512 by default, to which the benchmarks pad "
        "the paper's rows",
    )
    prompt_format: FormatName = Field(
        default="plain",
        description="Text around a row's prompt: none by default, as it changes no row, the paper's markers, or the "
        "model's chat template",
        json_schema_extra={"group": "Data"},
    )
    train_on: TrainOn = Field(
        default="assistant",
        description="Learned turns of a conversation: every assistant's turn of weight 1, since each is an answer that"
        " was given, or only the last",
        json_schema_extra={"group": "Data"},
    )
    seed: int = Field(
        default=0,
        ge=0,
        lt=2**32,
        description="Random seed of the row order and all other choices; fixed by default, so that equal jobs end "
        "alike",
        json_schema_extra={"group": "Run"},
    )
    eval_share: float = Field(
        default=0.1,
        ge=0,
        le=0.5,
        description="Share of rows held out for evaluation; a tenth by default, enough for a mean at little loss of "
        "rows",
        json_schema_extra={"group": "Evaluation"},
    )
    eval_every: int = Field(
        default=1,
        ge=1,
        le=1_000_000,
        description="Evaluate after so many `eval_unit`, and at the end: each epoch by default, which costs little",
        json_schema_extra={"group": "Evaluation"},
    )
    eval_unit: EvaluationUnit = Field(
        default="epochs",
        description="Unit of `eval_every`: `epochs`, or `steps` for a curve within long epochs",
        json_schema_extra={"group": "Evaluation"},
    )
    early_stopping: EarlyStopping | None = Field(
        default=None,
        description="End the run where the evaluation loss no longer falls; by default it never ends early",
        json_schema_extra={"group": "Evaluation"},
    )
    keep: Literal["best", "last"] = Field(
        default="last",
        description="Result: the weights at the end, or those of the `best` evaluation, whose checkpoint is then kept",
        json_schema_extra={"group": "Evaluation"},
    )
    max_new_tokens: int = Field(
        default=48,
        ge=1,
        le=4096,
        description="Maximum tokens of a completion generated during evaluation, within the model's positions; 48 by "
        "default, so that evaluation stays a small part of a run",
        json_schema_extra={"group": "Evaluation"},
    )
    sample_prompt: StorableText | None = Field(
        default=None,
        max_length=4000,
        description="Prompt whose completion is generated before and after training",
        json_schema_extra={"group": "Evaluation", "multiline": True},
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
        description="Saved result: the whole model, which needs nothing else, or the changed tensors for "
        "`greentune apply-delta`",
        json_schema_extra={"group": "Run"},
    )
    packing: Switch = Field(
        default=False,
        description="Join the rows of a batch into one sequence without padding, with the loss of separate rows. "
        "`auto`: where it saves time and the model keeps the rows apart. Off by default: of rows alike in length, "
        "attention over the joined rows costs more than their padding",
        json_schema_extra={"group": "Batches"},
    )
    group_by_length: Switch = Field(
        default=False,
        description="Batch rows of similar length, which saves padding; batches come in random order. `auto`: where it "
        "saves time and rows are not packed. Off by default, so that a step's rows are a random sample, the same "
        "whatever the micro-batch is",
        json_schema_extra={"group": "Batches"},
    )
    logits: LogitPositions = Field(
        default="learned",
        description="Positions whose logits are computed: those whose next token is learned, which takes a part of "
        "the output embedding's time and memory and leaves the loss as it is, or `all`. A model that does not take "
        "positions computes all",
        json_schema_extra={"group": "Memory and speed"},
    )
    gradient_checkpointing: Switch = Field(
        default="auto",
        description="Recompute each block in the backward pass instead of keeping its activations: less memory, about "
        "a third more time. `auto`: where the step would not fit into the memory of the device that trains otherwise",
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
        json_schema_extra={"methods": ["greentrainer"]},
    )
    lora: LoraSettings | None = Field(
        default=None,
        title="LoRA",
        description="Settings of LoRA; null: its defaults",
        json_schema_extra={"methods": ["lora", "auto"]},
    )

    @field_validator("group_by_length")
    @classmethod
    def _refuse_grouping_packed_rows(cls, value: Switch, given: ValidationInfo) -> Switch:
        if value is True and given.data.get("packing") is True:
            raise ValueError("packed rows have no padding that grouping could save: choose one of the two")
        return value

    @field_validator("attention")
    @classmethod
    def _refuse_flash_in_float32(cls, value: Attention | None, given: ValidationInfo) -> Attention | None:
        if value == "flash" and given.data.get("precision") == "fp32":
            raise ValueError("flash computes in bfloat16 only: set precision to bf16 or mixed")
        return value

    @field_validator("lora")
    @classmethod
    def _refuse_delta_of_adapter(cls, value: LoraSettings | None, given: ValidationInfo) -> LoraSettings | None:
        if value is not None and value.result == "adapter" and given.data.get("result") == "delta":
            raise ValueError("its result is an adapter, of which there is no delta: set one of the two results")
        return value

    @property
    def sgd_momentum(self) -> float:
        """Momentum of `sgd`: the one given, or its default."""
        return DEFAULT_MOMENTUM if self.momentum is None else self.momentum

    @property
    def rows_at_once(self) -> int:
        """Rows of a micro-batch; those of the whole batch where it is not given, or still to be measured."""
        return self.micro_batch_size if isinstance(self.micro_batch_size, int) else self.batch_size

    @model_validator(mode="before")
    @classmethod
    def _replace_epochs_by_steps(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("max_steps") is not None and "epochs" not in given:
            return {**given, "epochs": None}
        return given

    @field_validator("max_steps")
    @classmethod
    def _check_one_length(cls, max_steps: int | None, info: ValidationInfo) -> int | None:
        if "epochs" in info.data:
            epochs = info.data["epochs"]
            if max_steps is not None and epochs is not None:
                raise ValueError(f"contradicts epochs, {epochs}: give one of the two")
            if max_steps is None and epochs is None:
                raise ValueError("is needed where epochs is null")
        return max_steps

    @field_validator("micro_batch_size")
    @classmethod
    def _check_micro_batch(cls, rows: int | str | None, info: ValidationInfo) -> int | str | None:
        batch_size = info.data.get("batch_size")
        if isinstance(rows, int) and batch_size is not None and rows > batch_size:
            raise ValueError(f"is {rows}, more than batch_size, {batch_size}")
        return rows

    @field_validator("warmup_steps")
    @classmethod
    def _check_one_warmup(cls, steps: int | None, info: ValidationInfo) -> int | None:
        if steps is not None:
            if info.data.get("warmup_ratio") is not None:
                raise ValueError("contradicts warmup_ratio: give one of the two")
            max_steps = info.data.get("max_steps")
            if max_steps is not None and steps > max_steps:
                raise ValueError(f"is {steps}, longer than the run of {max_steps} steps")
        return steps

    @field_validator("min_lr_ratio")
    @classmethod
    def _check_falling(cls, ratio: float, info: ValidationInfo) -> float:
        if ratio and info.data.get("scheduler") == "constant":
            raise ValueError("has no effect with the scheduler constant, whose learning rate does not fall")
        return ratio

    @field_validator("adam_beta1", "adam_beta2")
    @classmethod
    def _check_betas(cls, beta: float, info: ValidationInfo) -> float:
        assert info.field_name is not None
        optimizer = info.data.get("optimizer", "adamw")
        if optimizer != "adamw" and beta != cls.model_fields[info.field_name].default:
            raise ValueError(f"belongs to the optimizer adamw, and optimizer is {optimizer}")
        return beta

    @field_validator("momentum")
    @classmethod
    def _check_momentum(cls, momentum: float | None, info: ValidationInfo) -> float | None:
        optimizer = info.data.get("optimizer", "sgd")
        if momentum is not None and optimizer != "sgd":
            raise ValueError(f"belongs to the optimizer sgd, and optimizer is {optimizer}")
        return momentum
