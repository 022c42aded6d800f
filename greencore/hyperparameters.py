"""How one run trains: what a job's `hyperparameters` and the `greentune train` command may set."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from greencore.text import StorableText

FormatName = Literal["plain", "tldr", "summarize", "chat"]
ResultForm = Literal["full", "delta"]


class Hyperparameters(BaseModel):
    """Settings of one training run; every one has a default, and a name that is not listed here is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    epochs: int = Field(default=3, ge=1, le=1000, description="Passes over the training rows")
    batch_size: int = Field(default=4, ge=1, le=4096, description="Rows per optimiser step")
    learning_rate: float = Field(default=2e-5, gt=0, le=1, description="AdamW's peak learning rate")
    weight_decay: float = Field(default=0.01, ge=0, le=1, description="AdamW's decoupled weight decay")
    max_length: int = Field(
        default=512, ge=16, le=8192, description="Tokens of a row, within the model's positions; the rest is cut off"
    )
    prompt_format: FormatName = Field(
        default="plain",
        description="What is put around a row's prompt: nothing, the paper's markers, or the model's chat template",
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="Seeds the order of rows and every other choice")
    eval_share: float = Field(default=0.1, ge=0, le=0.5, description="Share of rows held back for evaluation")
    max_new_tokens: int = Field(
        default=48,
        ge=1,
        le=4096,
        description="Tokens of a completion during evaluation, where the model's positions leave room",
    )
    sample_prompt: StorableText | None = Field(
        default=None, max_length=4000, description="A prompt whose completion is shown before and after training"
    )
    result: ResultForm = Field(
        default="full",
        description="What is kept in the end: the whole model, or what changed, for `greentune apply-delta`",
    )
