"""Which tensors a run trains at which step: the schedules that the frontier compares."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Protocol

import torch
from transformers import TrainerCallback, TrainerState, TrainingArguments

BLOCK = re.compile(r"\.layers\.(\d+)\.")


@dataclass(frozen=True)
class Phase:
    """Tensors that are trained from an optimiser step (from 0) on; all others are frozen."""

    first_step: int
    names: tuple[str, ...]


class Schedule(Protocol):
    """Chooses the phases of a run."""

    def plan(self, names: Sequence[str], *, steps: int, seed: int) -> list[Phase]:
        """Return the phases of a run of `steps` steps on a model with these trainable tensors, in order."""


@dataclass(frozen=True)
class Everything:
    """Trains every tensor, or the whole adapter, from the first step to the last."""

    def plan(self, names: Sequence[str], *, steps: int, seed: int) -> list[Phase]:
        return [Phase(0, tuple(names))]


@dataclass(frozen=True)
class Suffix:
    """Trains all until `full_share` of the steps, then those above the first `below` blocks.

    The embedding of a tied head is the model's input as well and stays frozen in the suffix.
    """

    below: int
    full_share: float = 0.0

    def plan(self, names: Sequence[str], *, steps: int, seed: int) -> list[Phase]:
        above = tuple(name for name in names if not is_below(name, self.below))
        switch = ceil(self.full_share * steps)
        return [*([Phase(0, tuple(names))] if switch else []), *([Phase(switch, above)] if switch < steps else [])]


@dataclass(frozen=True)
class RandomBlocks:
    """Trains embedding, head and last norm, and random blocks that are drawn again after `every` steps (LISA)."""

    blocks: int
    every: int

    def plan(self, names: Sequence[str], *, steps: int, seed: int) -> list[Phase]:
        drawn, depth = torch.Generator().manual_seed(seed), count_blocks(names)
        return [
            Phase(first, _select(names, {None, *torch.randperm(depth, generator=drawn)[: self.blocks].tolist()}))
            for first in range(0, steps, self.every)
        ]


@dataclass(frozen=True)
class BlocksInTurn:
    """Trains groups of `blocks` neighbouring blocks in turn, from the output down, each for `every` steps (BAdam)."""

    blocks: int
    every: int

    def plan(self, names: Sequence[str], *, steps: int, seed: int) -> list[Phase]:
        depth = count_blocks(names)
        groups = [range(max(0, top - self.blocks), top) for top in range(depth, 0, -self.blocks)]
        return [
            Phase(first, _select(names, set(groups[turn % len(groups)])))
            for turn, first in enumerate(range(0, steps, self.every))
        ]


class ScheduleCallback(TrainerCallback):
    """Freezes and unfreezes tensors by a schedule; a tensor that is frozen loses its optimiser state."""

    def __init__(self, schedule: Schedule, *, seed: int) -> None:
        self._schedule, self._seed = schedule, seed
        self._parameters: Mapping[str, Any] = {}
        self._phases: dict[int, Phase] = {}

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        self._parameters = {name: p for name, p in kwargs["model"].named_parameters() if p.requires_grad}
        phases = self._schedule.plan(list(self._parameters), steps=state.max_steps, seed=self._seed)
        self._phases = {phase.first_step: phase for phase in phases}

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        phase = self._phases.get(state.global_step)
        if phase is None:
            return
        optimizer, chosen = kwargs["optimizer"], set(phase.names)
        states = getattr(optimizer, "optimizer", optimizer).state  # accelerate wraps the real one
        for name, parameter in self._parameters.items():
            parameter.requires_grad_(name in chosen)
            if name not in chosen:
                parameter.grad = None
                states.pop(parameter, None)


def find_block(name: str) -> int | None:
    """Return the number of the block of a tensor, from 0; None for one outside the blocks."""
    found = BLOCK.search(name)
    return int(found[1]) if found else None


def is_below(name: str, blocks: int) -> bool:
    """Return whether a tensor is computed with before the block of this number: in an earlier one, or the embedding."""
    block = find_block(name)
    return "embed_tokens" in name if block is None else block < blocks


def find_boundary(names: Sequence[str]) -> int:
    """Return the number of blocks from the input up, and including its embedding, in which none of these tensors is."""
    blocks = [0 if "embed_tokens" in name else find_block(name) for name in names]
    return min((block for block in blocks if block is not None), default=0)


def count_blocks(names: Sequence[str]) -> int:
    """Return the number of blocks up to the last that has one of these tensors."""
    return 1 + max(block for block in map(find_block, names) if block is not None)


def _select(names: Sequence[str], blocks: set[int | None]) -> tuple[str, ...]:
    return tuple(name for name in names if find_block(name) in blocks)
