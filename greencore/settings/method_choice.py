"""Chooses the method of a run by what each method reached at the run's budget in a benchmark; no torch."""

import json
import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import date
from functools import cache, partial
from importlib.resources import files
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from greencore.settings.hyperparameters import MAX_EPOCHS, Hyperparameters
from greencore.settings.method_settings import LoraSettings
from greencore.settings.run_length import RunLength
from greencore.text import StorableText

AUTO = "auto"
FILE_NAME = "frontier.json"
MAX_STEPS = 10_000_000
FAR = 4  # times as many steps as measured, or fewer by as much, of which the reason warns
MEASURED_OPTIMIZER = "adamw"  # whose learning rates the benchmark has
TITLES = {"full": "full fine-tuning", "lora": "LoRA", "greentrainer": "GreenTrainer"}

Positive = Annotated[float, Field(gt=0)]
ChosenMethod = Literal["full", "lora", "greentrainer"]


class FrontierInvalid(ValueError):
    """A table of measured runs cannot be read; the message names the field at fault."""


class MethodsUnavailable(ValueError):
    """None of the methods that `auto` chooses from can train the model; the message has the reason of each."""


class MeasuredRun(BaseModel):
    """Lowest validation loss, in nats, of a method for the FLOPs of `steps` of full fine-tuning, and its rate.

    These are `epochs` of the rows that it was measured on.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    epochs: Positive
    steps: Annotated[int, Field(ge=1)]
    method: ChosenMethod
    learning_rate: Annotated[float, Field(gt=0, le=1)]
    loss: Positive
    lora: LoraSettings | None = None
    rho: Annotated[float, Field(gt=0, le=1)] | None = None

    @model_validator(mode="after")
    def _check_method(self) -> "MeasuredRun":
        for name, owner in (("lora", "lora"), ("rho", "greentrainer")):
            if (getattr(self, name) is not None) != (self.method == owner):
                raise ValueError(f"expected {name} with the method {owner}, and with no other")
        return self

    @property
    def passes(self) -> float:
        """Its epochs, where rows are met more than once, else 1."""
        return max(self.epochs, 1.0)

    @property
    def title(self) -> str:
        """The method with what distinguishes it from another run of it."""
        if self.lora is not None:
            return f"{TITLES['lora']} of rank {self.lora.rank}"
        return TITLES[self.method] + ("" if self.rho is None else f" at ρ = {self.rho:g}")


class Frontier(BaseModel):
    """Table of measured runs, and the model, its hidden states' width, and the data that they were measured on."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    model: StorableText
    width: Annotated[int, Field(ge=1)]
    data: StorableText
    date: date
    seeds: Annotated[int, Field(ge=1)]
    runs: Annotated[tuple[MeasuredRun, ...], Field(min_length=1, max_length=1000)]

    def list_runs(self, epochs: float, steps: float) -> list[MeasuredRun]:
        """List the runs at the measured budget that is nearest on a logarithmic scale, the lowest loss first.

        Within an epoch no row is met twice, and budgets differ by their steps; beyond, by their epochs first.
        """
        passes = _find_nearest({run.passes for run in self.runs}, max(epochs, 1.0))
        alike = [run for run in self.runs if run.passes == passes]
        nearest = _find_nearest({run.steps for run in alike}, steps)
        return sorted((run for run in alike if run.steps == nearest), key=lambda run: run.loss)


@dataclass(frozen=True)
class MethodBudget:
    """FLOPs of a run in epochs of full fine-tuning, above 0, and where they follow from, in words."""

    epochs: float
    basis: str


@dataclass(frozen=True)
class MethodChoice:
    """Chosen method, the hyperparameters of the run by it, and the reason in a sentence."""

    method: ChosenMethod
    hyperparameters: Hyperparameters
    reason: str


MeasureShare = Callable[[ChosenMethod, LoraSettings | None], float | str]
"""Returns a method's share of full fine-tuning's FLOPs, or the reason why it cannot train the model."""


def parse_frontier(text: str) -> Frontier:
    """Parse a table of measured runs. Raises `FrontierInvalid`."""
    try:
        return Frontier.model_validate(json.loads(text))
    except ValidationError as error:
        first = error.errors()[0]
        raise FrontierInvalid(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except ValueError as error:
        raise FrontierInvalid(f"expected JSON: {error}") from error


@cache
def load_frontier() -> Frontier:
    """Return the table that is part of the package."""
    return parse_frontier(files("greencore.settings").joinpath(FILE_NAME).read_text(encoding="utf-8"))


def choose_method(
    frontier: Frontier,
    budget: MethodBudget,
    given: Hyperparameters,
    measure_share: MeasureShare,
    *,
    steps_per_epoch: int,
    width: int | None = None,
) -> MethodChoice:
    """Choose the method that had the lowest loss at the measured budget nearest to `budget`, and what the budget buys.

    Budgets within an epoch are compared by the steps of full fine-tuning that they pay for: the best learning rate
    falls with a run's steps, whatever the rows of an epoch. The chosen method gets as many steps as cost `budget`
    at its share of full fine-tuning's FLOPs, at least one. Of `given` the learning rate and the settings of LoRA that
    were set are kept, and all that the table has nothing on. `width` is that of the model's hidden states, None where
    it is unknown: see `scale_rate`.
    Raises `MethodsUnavailable` where no measured method can train the model.
    """
    full_steps = budget.epochs * steps_per_epoch
    compared = frontier.list_runs(budget.epochs, full_steps)
    explain = partial(_explain, frontier, budget, full_steps, compared)
    refusals: dict[str, str] = {}
    for run in compared:
        if run.method in refusals:
            continue
        changed = _apply_run(run, given, rate=scale_rate(run.learning_rate, frontier.width, width))
        if run.method == "greentrainer":  # its own policy's ρ spends the budget
            return MethodChoice(run.method, changed, explain(run, refusals))
        share = measure_share(run.method, changed.lora)
        if isinstance(share, str):
            refusals[run.method] = share
            continue
        steps = count_affordable_steps(budget.epochs, share, steps_per_epoch=steps_per_epoch)
        changed = _with_length(changed, RunLength(steps, steps_per_epoch))
        return MethodChoice(run.method, changed, explain(run, refusals))
    raise MethodsUnavailable("; ".join(f"{TITLES[method]}: {reason}" for method, reason in refusals.items()))


def count_affordable_steps(budget: float, share: float, *, steps_per_epoch: int) -> int:
    """Count the steps that `budget` epochs of full fine-tuning pay for at a share of its FLOPs; at least 1."""
    most = min(MAX_EPOCHS * steps_per_epoch, MAX_STEPS)
    return min(max(math.floor(budget / share * steps_per_epoch * (1 + 1e-9)), 1), most)


def _find_nearest(measured: Collection[float], wanted: float) -> float:
    return min(measured, key=lambda one: (abs(math.log(one / wanted)), one))


def scale_rate(rate: float, measured_width: int, width: int | None) -> float:
    """Return a measured learning rate of AdamW for a model of another width, to two significant digits.

    A wider model's falls with its width, by which an update changes its outputs as much (Yang et al., 2021, table 3);
    a narrower one's stays, as that of an unknown width.
    """
    if width is None or width <= measured_width:
        return rate
    return float(f"{rate * measured_width / width:.2g}")


def _apply_run(run: MeasuredRun, given: Hyperparameters, *, rate: float) -> Hyperparameters:
    """Return the hyperparameters with this learning rate and the run's LoRA settings where none were set.

    Another rank keeps the run's scale of the update, alpha / rank.
    """
    changes: dict[str, object] = {"lora": None}
    if "learning_rate" not in given.model_fields_set and given.optimizer == MEASURED_OPTIMIZER:
        changes["learning_rate"] = rate
    if run.lora is not None:
        own = {} if given.lora is None else given.lora.model_dump(exclude_unset=True)
        if "rank" in own and "alpha" not in own:  # the rate was measured at this scale of the update
            own["alpha"] = max(1, round(own["rank"] * run.lora.alpha / run.lora.rank))
        changes["lora"] = run.lora.model_copy(update=own)
    return given.model_copy(update=changes)


def _with_length(given: Hyperparameters, length: RunLength) -> Hyperparameters:
    """Return the hyperparameters with this length; a warm-up that is longer than the run keeps the share it had."""
    whole, rest = divmod(length.steps, length.steps_per_epoch)
    changes = {"epochs": None, "max_steps": length.steps} if rest else {"epochs": whole, "max_steps": None}
    if given.warmup_steps is not None and given.warmup_steps > length.steps:
        before = given.max_steps or (given.epochs or 0) * length.steps_per_epoch
        changes["warmup_steps"] = min(given.warmup_steps * length.steps // before, length.steps)
    return given.model_copy(update=changes)


def _explain(
    frontier: Frontier,
    budget: MethodBudget,
    full_steps: float,
    compared: Iterable[MeasuredRun],
    chosen: MeasuredRun,
    refusals: dict[str, str],
) -> str:
    losses = ", ".join(f"{run.loss:.3f} by {run.title}" for run in compared)
    refused = "".join(f"; {TITLES[method]} is ruled out ({why})" for method, why in refusals.items())
    far = " and far off" if abs(math.log(chosen.steps / full_steps)) > math.log(FAR) else ""
    runs = "one seed" if frontier.seeds == 1 else f"{frontier.seeds} seeds"
    return (
        f"a budget of {budget.epochs:.3g} epochs of full fine-tuning ({budget.basis}), {full_steps:.3g} of its steps; "
        f"at {chosen.steps} in {chosen.epochs:g} epochs, the nearest measured{far}, validation losses of "
        f"{losses}{refused}; measured on {frontier.model} and {frontier.data} with {runs}, and another model or other "
        f"data may differ"
    )
