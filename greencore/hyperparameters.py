"""Hyperparameters of a training run, as a job's `hyperparameters` and as options of `greentune train`."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from greencore.text import StorableText

FormatName = Literal["plain", "tldr", "summarize", "chat"]
ResultForm = Literal["full", "delta"]


class Hyperparameters(BaseModel):
    """Settings of one training run; each has a default, and unknown names are rejected."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    epochs: int = Field(default=3, ge=1, le=1000, description="Passes over the training rows")
    batch_size: int = Field(default=4, ge=1, le=4096, description="Rows per optimiser step")
    learning_rate: float = Field(default=2e-5, gt=0, le=1, description="AdamW's peak learning rate")
    weight_decay: float = Field(default=0.01, ge=0, le=1, description="AdamW's decoupled weight decay")
    max_length: int = Field(
        default=512, ge=16, le=8192, description="Maximum tokens per row, within the model's positions"
    )
    prompt_format: FormatName = Field(
        default="plain",
        description="Text around a row's prompt: none, the paper's markers, or the model's chat template",
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="Random seed of the row order and all other choices")
    eval_share: float = Field(default=0.1, ge=0, le=0.5, description="Share of rows held out for evaluation")
    max_new_tokens: int = Field(
        default=48,
        ge=1,
        le=4096,
        description="Maximum tokens of a completion generated during evaluation, within the model's positions",
    )
    sample_prompt: StorableText | None = Field(
        default=None, max_length=4000, description="Prompt whose completion is generated before and after training"
    )
    result: ResultForm = Field(
        default="full",
        description="Saved result: the whole model, or the changed tensors for `greentune apply-delta`",
    )
