"""Records the passes of a run by shape and trained tensors, from which its FLOPs can be counted at any time."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import TrainerCallback, TrainerState, TrainingArguments

from benchmarks.training.frontier.arms import Cache
from benchmarks.training.frontier.schedules import find_block, find_boundary
from greencore.training.batches.learned_positions import find_learned_positions


@dataclass(frozen=True)
class RecordedPass:
    """One forward and backward pass: rows [rows, length], and the positions of each row with logits.

    `names` are the trained tensors. The output of the first `boundary` blocks is known for `cached_rows` of the rows.
    """

    names: tuple[str, ...]
    rows: int
    length: int
    positions: int
    boundary: int
    cached_rows: int


class StepRecorder(TrainerCallback):
    """Counts the passes of a run with gradients, an importance probe's among them.

    With a `cache` a row's output of the blocks below everything that is trained counts as known once the row was
    computed with the same blocks frozen, and from the start where it is filled already. The processor seconds of those
    blocks, which are computed nonetheless, are measured, so that they can be subtracted. To be called after callbacks
    that trace the model.
    """

    def __init__(self, *, cache: Cache | None) -> None:
        self._cache: Cache | None = cache
        self._boundary, self._known = 0, set[tuple[int, ...]]()
        self._known_share, self._started = 0.0, 0.0
        self._hooks: list[Any] = []
        self.passes = Counter[RecordedPass]()
        self.cached_cpu_seconds = 0.0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        model = kwargs["model"]
        self._hooks = [model.register_forward_pre_hook(self._count, with_kwargs=True)]
        if self._cache:
            blocks = [module for name, module in model.named_modules() if _is_block(name)]
            self._hooks.append(blocks[0].register_forward_pre_hook(self._start_prefix))
            for number, block in enumerate(blocks, start=1):
                self._hooks.append(block.register_forward_hook(self._build_end_of_prefix(number)))

    def on_train_end(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        for hook in self._hooks:
            hook.remove()

    def _count(self, model: torch.nn.Module, args: tuple[Any, ...], batch: Mapping[str, Any]) -> None:
        if not torch.is_grad_enabled():
            return
        names = tuple(name for name, parameter in model.named_parameters() if parameter.requires_grad)
        rows, length = batch["input_ids"].shape
        positions = batch.get("logits_to_keep")
        if positions is None:
            positions = find_learned_positions(batch["labels"])["logits_to_keep"]
        cached_rows = self._look_up(names, batch) if self._cache else 0
        self._known_share = cached_rows / rows
        self.passes[RecordedPass(names, rows, length, positions.shape[1], self._boundary, cached_rows)] += 1

    def _look_up(self, names: tuple[str, ...], batch: Mapping[str, Any]) -> int:
        """Return how many of a batch's rows are known at the boundary below these tensors, and remember the others."""
        boundary = find_boundary(names)
        if boundary != self._boundary:
            self._boundary, self._known = boundary, set()
        if not boundary:
            return 0
        if self._cache == "filled":
            return len(batch["input_ids"])
        rows = [
            tuple(ids[seen.bool()].tolist())
            for ids, seen in zip(batch["input_ids"], batch["attention_mask"], strict=True)
        ]
        known = sum(row in self._known for row in rows)
        self._known.update(rows)
        return known

    def _start_prefix(self, *_: Any) -> None:
        self._started = time.process_time()

    def _build_end_of_prefix(self, blocks: int) -> Any:
        def end_prefix(*_: Any) -> None:
            if blocks == self._boundary and torch.is_grad_enabled():
                self.cached_cpu_seconds += self._known_share * (time.process_time() - self._started)

        return end_prefix


def to_json(passes: Mapping[RecordedPass, int]) -> dict[str, Any]:
    """Return counted passes as JSON, each set of tensors once."""
    sets = list(dict.fromkeys(each.names for each in passes))
    return {
        "tensors": [list(names) for names in sets],
        "passes": [
            [sets.index(each.names), each.rows, each.length, each.positions, each.boundary, each.cached_rows, count]
            for each, count in passes.items()
        ],
    }


def from_json(value: Mapping[str, Any]) -> dict[RecordedPass, int]:
    """Return the counted passes of `to_json`."""
    sets = [tuple(names) for names in value["tensors"]]
    return {RecordedPass(sets[index], *shape): count for index, *shape, count in value["passes"]}


def _is_block(name: str) -> bool:
    """Return whether a module's name is that of a block itself."""
    return find_block(f"{name}.") is not None and name.rpartition(".")[2].isdecimal()
