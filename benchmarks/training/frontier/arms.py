"""The arms that the frontier compares, and the order of their runs."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from benchmarks.training.frontier.schedules import BlocksInTurn, Everything, RandomBlocks, Schedule, Suffix
from greencore.settings.method_settings import Metric

Kind = Literal["schedule", "greentrainer", "sft_trainer"]
Cache = Literal["cold", "filled"]
"""Whether a run fills the cache of its frozen prefix itself, or finds it filled by an earlier run on the same rows."""


@dataclass(frozen=True)
class FrontierArm:
    """An arm: what it trains, with the learning rates that are tried at each budget, likeliest first.

    `adapts_from` is the first block with a LoRA adapter on all its linear layers; None trains the weights themselves.
    Adaptive backpropagation selects within `rho` by `metric`; `probe_batches` is None where its steps measure it.
    With `cache` the forward pass of frozen blocks counts only until their output for a row is known.
    """

    name: str
    rates: tuple[float, ...]
    kind: Kind = "schedule"
    schedule: Schedule = field(default_factory=Everything)
    adapts_from: int | None = None
    cache: Cache | None = None
    rho: float = 1.0
    metric: Metric = "dw_grad"
    probe_batches: int | None = None


@dataclass(frozen=True)
class PlannedRun:
    """One run to do: an arm at a learning rate, a seed, and a budget in epochs of full fine-tuning."""

    arm: FrontierArm
    rate: float
    seed: int
    budget: float


BUDGETS = (0.1, 0.25, 0.5, 1.0, 2.0)

FULL = FrontierArm("full", (1e-4, 2e-4, 3e-4, 5e-5))
LORA = FrontierArm("LoRA", (2e-3, 1e-3, 4e-3), adapts_from=0)
GT = (
    FrontierArm("GT-0.7", (3e-4, 1e-4), kind="greentrainer", rho=0.7, probe_batches=1),
    FrontierArm("GT-0.5", (3e-4, 1e-4), kind="greentrainer", rho=0.5, probe_batches=1),
)
GT_BY_GRADIENT = (
    FrontierArm("GT-0.7 by gradient", (3e-4, 1e-4), kind="greentrainer", rho=0.7, metric="grad"),
    FrontierArm("GT-0.5 by gradient", (3e-4, 1e-4), kind="greentrainer", rho=0.5, metric="grad"),
)
CACHED_LORA = (
    FrontierArm("LoRA, then above 15", (1e-3, 2e-3), schedule=Suffix(15, 1 / 3), adapts_from=0, cache="cold"),
    FrontierArm("LoRA above 10", (1e-3, 2e-3), adapts_from=10, cache="cold"),
    FrontierArm("LoRA above 10, filled", (1e-3, 2e-3), adapts_from=10, cache="filled"),
    FrontierArm("LoRA above 15", (1e-3, 2e-3), adapts_from=15, cache="cold"),
    FrontierArm("LoRA above 15, filled", (1e-3, 2e-3), adapts_from=15, cache="filled"),
)
CACHED_FULL = (
    FrontierArm("full above 15", (3e-4, 1e-4), schedule=Suffix(15), cache="cold"),
    FrontierArm("full above 20", (3e-4, 1e-4), schedule=Suffix(20), cache="cold"),
)
LISA = FrontierArm("LISA", (3e-4, 1e-4), schedule=RandomBlocks(2, every=4))
BADAM = FrontierArm("BAdam", (3e-4, 1e-4), schedule=BlocksInTurn(5, every=4))
SFT = (
    FrontierArm("TRL full", FULL.rates, kind="sft_trainer"),
    FrontierArm("TRL LoRA", LORA.rates, kind="sft_trainer", adapts_from=0),
)
ARMS = (FULL, LORA, *GT, *GT_BY_GRADIENT, *CACHED_LORA, *CACHED_FULL, LISA, BADAM, *SFT)

Group = tuple[tuple[FrontierArm, ...], tuple[float, ...]]

FIRST_LOOK: tuple[tuple[Group, int], ...] = (
    (((FULL,), (0.25,)), 2),
    (((LORA, CACHED_LORA[0]), (0.25,)), 1),
    (((LORA,), (0.1, 0.25)), 2),
    (((*CACHED_LORA, *GT, *GT_BY_GRADIENT), (0.25,)), 1),
    (((FULL, LORA), (0.5,)), 2),
    (((*CACHED_LORA, *GT, *GT_BY_GRADIENT), (0.5,)), 1),
    (((CACHED_LORA[0], LORA, FULL), (1.0,)), 1),  # a cold cache is read only after an epoch
    ((CACHED_LORA[1:], (1.0,)), 1),
    (((LISA, BADAM, *CACHED_FULL), (0.5,)), 1),
)
"""Arms at so many of their rates, what says most for its cost first."""

GRID: tuple[Group, ...] = (
    ((FULL, LORA), BUDGETS[:4]),
    ((*GT, *GT_BY_GRADIENT), BUDGETS[1:4]),
    ((*CACHED_LORA, *CACHED_FULL), BUDGETS[1:4]),
    ((LISA, BADAM), BUDGETS[1:4]),
)
"""Arms at every rate of their grid."""


def plan_rate_search(seed: int) -> Iterator[PlannedRun]:
    """Yield the runs by which learning rates are chosen; some come twice."""
    for (arms, budgets), rates in FIRST_LOOK:
        for budget, arm in itertools.product(budgets, arms):
            yield from (PlannedRun(arm, rate, seed, budget) for rate in arm.rates[:rates])
    for arms, budgets in GRID:
        for budget, arm in itertools.product(budgets, arms):
            yield from (PlannedRun(arm, rate, seed, budget) for rate in arm.rates)


def plan_confirmation(choose_rate: Callable[[FrontierArm, float], float], seeds: Sequence[int]) -> Iterator[PlannedRun]:
    """Yield the runs at chosen learning rates: TRL's trainer, further seeds, and the largest budget."""
    for budget, (ours, theirs) in itertools.product(BUDGETS[1:3], zip((FULL, LORA), SFT, strict=True)):
        yield PlannedRun(theirs, choose_rate(ours, budget), seeds[0], budget)
    for arms, budgets in GRID:
        for seed, budget, arm in itertools.product(seeds[1:], budgets, arms):
            yield PlannedRun(arm, choose_rate(arm, budget), seed, budget)
    for arms, _ in GRID:
        for arm in arms:
            yield from (PlannedRun(arm, rate, seeds[0], BUDGETS[-1]) for rate in arm.rates)
