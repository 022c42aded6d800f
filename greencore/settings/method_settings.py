"""Settings of one training method, as nested objects of a job's hyperparameters: adaptive backpropagation and LoRA."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from greencore.text import StorableText

MAX_NAMES = 64  # of a list of patterns or targets
LONGEST_NAME = 200

Metric = Literal["dw_grad", "dw", "grad"]
Pattern = Annotated[StorableText, Field(min_length=1, max_length=LONGEST_NAME)]
Targets = Annotated[tuple[Pattern, ...], Field(min_length=1, max_length=MAX_NAMES)]


class AdaptiveSettings(BaseModel):
    """Settings of adaptive backpropagation, the method `greentrainer`.

    A pattern is matched with a tensor's whole name, as the model's `named_parameters` has it, by the rules of
    `fnmatch`: `*` matches any characters, dots included, `?` one, `[01]` one of several; case counts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    reselect_every: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Optimiser steps after which tensors are selected again within an epoch; null: once an epoch, as "
        "selecting twice an epoch chose the same tensors again where that was measured",
    )
    probe_batches: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="Batches over which a probe averages the importance, beside the steps; null: it is measured in an "
        "epoch's first step, whose gradients train what is selected. 1 takes less memory, and a step's work more",
    )
    metric: Metric = Field(
        default="grad",
        description="Importance of a tensor: the size of its gradient, that of its update, or update times gradient as "
        "in the paper, by which a tensor that was trained counts less, since the optimiser's state damps its update",
    )
    charge_probe: bool = Field(
        default=False,
        description="Whether probes are taken out of the epoch's budget, or reported beside it as the paper does",
    )
    never_train: tuple[Pattern, ...] = Field(
        default=(),
        max_length=MAX_NAMES,
        description="Patterns of names of tensors that stay frozen and get no budget, such as `*.embed_tokens.*`",
    )
    always_train: tuple[Pattern, ...] = Field(
        default=(),
        max_length=MAX_NAMES,
        description="Patterns of names of tensors that are in every selection; the best others share the rest of ρ",
    )

    @property
    def changes_floor(self) -> bool:
        """Whether the smallest feasible ρ is another than that of the model."""
        return bool(self.never_train or self.always_train or self.charge_probe)


class LoraSettings(BaseModel):
    """Settings of LoRA, the method `lora`; the defaults are those of the paper's own implementation."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    rank: int = Field(default=8, ge=1, le=1024, description="Rank of each module's update, as the paper's baseline has")
    alpha: int = Field(
        default=32,
        ge=1,
        le=4096,
        description="Scale of the update: alpha / rank, or alpha / √rank where `rank_stabilised`; 32 as in the paper",
    )
    dropout: float = Field(
        default=0.1, ge=0, lt=1, description="Dropout of the update's input in training; 0.1 as in the paper"
    )
    targets: Targets | Literal["all-linear"] | None = Field(
        default=None,
        description="Linear modules that get an update: names or ends of names such as `q_proj`, `all-linear` for all "
        "but the output embedding, or null for the query and value projections, as the paper's baseline has",
    )
    rank_stabilised: bool = Field(
        default=False,
        description="Whether the update is scaled by alpha / √rank, which keeps its size as the rank grows; off, as in "
        "the paper",
    )
    result: Literal["merged", "adapter"] = Field(
        default="merged",
        description="Saved result: the model with the update merged into it, which any program loads, or the adapter "
        "alone, which peft loads on the base",
    )
