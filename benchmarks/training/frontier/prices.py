"""FLOPs of the frontier's runs: of recorded passes, and of the steps that a budget pays for."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import cast

from torch import nn
from transformers import PreTrainedModel

from benchmarks.training.frontier.arms import FrontierArm
from benchmarks.training.frontier.schedules import find_boundary
from benchmarks.training.frontier.step_recorder import RecordedPass
from greencore.settings.method_settings import LoraSettings
from greencore.training.batches.batch_shapes import BatchShapes, StepShape
from greencore.training.methods.adapters import with_adapter
from greencore.training.methods.step_costs import StepCosts
from greencore.training.models.loading import load_model
from greencore.training.models.precision import choose_device

RANK, ALPHA = 16, 32


class Prices:
    """FLOPs of a model's steps with each kind of adapter, all with logits at learned positions alone."""

    def __init__(self, folder: Path, shapes: BatchShapes, shape: StepShape, *, steps_per_epoch: int) -> None:
        """Price batches of `shapes`; `shape` is the mean of a run's."""
        self._folder, self._shapes, self._shape = folder, shapes, shape
        self._steps_per_epoch = steps_per_epoch
        self._costs = cache(self._trace)
        self._step = cache(self._price_step)
        self.full_epoch = steps_per_epoch * self._costs(None, 0).full_flops(shape)

    def count_flops(self, arm: FrontierArm, passes: Mapping[RecordedPass, int]) -> float:
        """Count the FLOPs of recorded passes, those of cached prefixes left out."""
        costs, total = self._costs(arm.adapts_from, 0), 0.0
        for each, count in passes.items():
            shape = StepShape(each.rows, (each.length, each.positions))
            flops = costs.step_flops(each.names, shape)
            if each.cached_rows:
                flops -= self._price_prefix(arm.adapts_from, each.boundary, StepShape(each.cached_rows, shape.lengths))
            if arm.kind == "sft_trainer":
                flops += self._price_head(shape)
            total += count * flops
        return total

    def choose_steps(self, arm: FrontierArm, budget: float, *, seed: int) -> int:
        """Return the most steps, at least 1, whose expected FLOPs are within `budget` epochs of full fine-tuning.

        TRL's trainer takes as many as ours, so that their losses can be compared.
        """
        most = budget * self.full_epoch * (1 + 1e-9)
        low, high = 1, 2
        while self._expect_flops(arm, high, seed=seed) <= most:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._expect_flops(arm, middle, seed=seed) <= most else (low, middle)
        return low

    def price_filling(self, arm: FrontierArm) -> float:
        """Return the forward pass of all rows through the blocks below an adapter, in epochs of full fine-tuning."""
        assert arm.adapts_from is not None
        prefix = self._price_prefix(arm.adapts_from, arm.adapts_from, self._shape)
        return self._steps_per_epoch * prefix / self.full_epoch

    def _expect_flops(self, arm: FrontierArm, steps: int, *, seed: int) -> float:
        costs = self._costs(arm.adapts_from, 0)
        if arm.kind == "greentrainer":
            step = arm.rho * costs.full_flops(self._shape)
            measured = self._step(None, costs.list_affordable_tensors(arm.rho))
            # a probe computes gradients twice where clipping acts; a step that measures replaces one that does not
            more = measured - step if arm.probe_batches is None else 2 * arm.probe_batches * measured
            return steps * step + -(-steps // self._steps_per_epoch) * more
        names = list(reversed(costs.tensors))
        phases = arm.schedule.plan(names, steps=steps, seed=seed)
        ends = [*(phase.first_step for phase in phases[1:]), steps]
        total = 0.0
        for phase, end in zip(phases, ends, strict=True):
            boundary = find_boundary(phase.names) if arm.cache else 0
            total += (end - phase.first_step) * self._step(arm.adapts_from, phase.names)
            if boundary:
                steps_of_phase = range(phase.first_step, end)
                known = (
                    len(steps_of_phase)
                    if arm.cache == "filled"
                    else sum(self._expect_known_share(phase.first_step, step) for step in steps_of_phase)
                )
                total -= known * self._price_prefix(arm.adapts_from, boundary, self._shape)
        return total

    def _expect_known_share(self, frozen_at: int, step: int) -> float:
        """Return the expected share of a step's rows that were seen since the prefix was frozen."""
        epochs = step // self._steps_per_epoch - frozen_at // self._steps_per_epoch
        return (0.0, 1.0 - frozen_at % self._steps_per_epoch / self._steps_per_epoch, 1.0)[min(epochs, 2)]

    def _price_step(self, adapts_from: int | None, names: Sequence[str]) -> float:
        return self._costs(adapts_from, 0).step_flops(names, self._shape)

    def _price_prefix(self, adapts_from: int | None, blocks: int, shape: StepShape) -> float:
        """Return the forward FLOPs of the first blocks: of the model, less those of a copy without them."""
        whole, rest = self._costs(adapts_from, 0), self._costs(adapts_from, blocks)
        return whole.step_flops((), shape) - rest.step_flops((), shape)

    def _price_head(self, shape: StepShape) -> float:
        """Return the forward FLOPs of the output embedding, which TRL's backward pass computes again."""
        costs, (length, positions) = self._costs(None, 0), shape.lengths
        more = StepShape(shape.rows, (length, positions + 1))
        return positions * (costs.step_flops((), more) - costs.step_flops((), shape))

    def _trace(self, adapts_from: int | None, without: int) -> StepCosts:
        """Trace the model without its first blocks."""
        model = load_model(self._folder)  # with weights: attention has other kernels on the meta device
        model.to(choose_device())  # type: ignore[arg-type]
        model.config.use_cache = False  # as the Trainer has it
        adapted = model if adapts_from is None else add_lora(model, adapts_from)
        blocks = cast(nn.ModuleList, model.get_submodule("model.layers"))
        model.get_submodule("model").layers = nn.ModuleList(list(blocks)[without:])
        names = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
        return StepCosts(adapted, self._shapes, names=names)


def add_lora(model: PreTrainedModel, first_block: int) -> PreTrainedModel:
    """Add a LoRA adapter to all linear layers of the blocks from `first_block` on; all else is frozen."""
    depth = model.config.num_hidden_layers
    targets = tuple(
        f"layers.{block}.{part}" for block in range(first_block, depth) for part in _list_linear_parts(model)
    )
    # more targets than a job may name
    settings = LoraSettings.model_construct(rank=RANK, alpha=ALPHA, dropout=0.0, targets=targets)
    return cast(PreTrainedModel, with_adapter("lora", model, lora=settings))


def _list_linear_parts(model: PreTrainedModel) -> list[str]:
    block = model.get_submodule("model.layers.0")
    return [name for name, module in block.named_modules() if isinstance(module, nn.Linear)]
