"""FLOPs of a run's steps at every batch length, and selections whose budget holds at each of them."""

from collections.abc import Collection, Mapping
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from greencore.backprop import BudgetTooSmall, Profile, Selection, TensorCost, profile, select
from greencore.backprop.cost.by_length import (
    Lengths,
    choose_trace_lengths,
    compute_interpolation_weights,
    fit_length_polynomial,
)
from greencore.backprop.selection.constraints import Constraints
from greencore.backprop.selection.importance_curve import ConcaveCurve, importance_curve
from greencore.backprop.selection.select_tensors import build_selection
from greencore.cost_polynomial import SOURCE_AND_TARGET, TOKENS, TOKENS_AND_LOGITS, Terms
from greencore.training.batches.batch_shapes import BatchShapes, StepShape
from greencore.training.data.tokenisation import round_up_length
from greencore.training.methods.modes import in_mode


class StepCosts:
    """FLOPs of a model's steps at every sequence length, from a few traces (`greencore.backprop.cost.by_length`).

    `trainable` names the tensors that a selection may train, from output to input.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        shapes: BatchShapes,
        *,
        names: Collection[str] | None = None,
        always: Collection[str] = (),
        never: Collection[str] = (),
    ) -> None:
        """Trace batches of these shapes. Raises `TraceError`.

        The model is traced in training mode, in which gradient checkpointing recomputes. `names` limits what counts as
        trainable in full fine-tuning, of which every share is. Each selection holds all tensors of `always` and none
        of `never`; raises `ValueError` where one is in both, or none is left to train.
        """
        self._batch_size, self._terms = shapes.rows, shapes.terms
        self._trace_lengths = choose_trace_lengths(shapes.shortest, shapes.longest, shapes.terms)
        device = next(model.parameters()).device
        with in_mode(model, training=True):  # traced as a step runs
            self._profiles = tuple(
                profile(model, make_batch(shapes.rows, lengths, device, terms=shapes.terms), names=names)
                for lengths in self._trace_lengths
            )
        self._longest = self._profiles[0]
        constraints = Constraints.of(self._longest, always=always, never=never)
        self._always = tuple(constraints.list_always(self._longest))
        self.trainable = tuple(constraints.list_trainable(self._longest))
        self._share_weights = _compute_share_weights(self._trace_lengths, shapes)
        self._interpolation_weights: dict[Lengths, NDArray[np.float64]] = {}

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of all tensors that full fine-tuning trains, from output to input."""
        return tuple(tensor.name for tensor in self._longest.tensors)

    @property
    def tensor_costs(self) -> tuple[TensorCost, ...]:
        """FLOPs of each tensor's gradients in one step of the longest rows, from output to input."""
        return self._longest.tensors

    def step_flops(self, names: Collection[str], shape: StepShape) -> float:
        """Return the FLOPs of one step of this shape that trains exactly these tensors."""
        return self._interpolate(shape, [profile.step_flops(names) for profile in self._profiles])

    def longest_step_flops(self, names: Collection[str]) -> int:
        """Return the FLOPs of one step of the longest rows that trains exactly these tensors."""
        return self._longest.step_flops(names)

    def full_flops(self, shape: StepShape) -> float:
        """Return the FLOPs of one step of this shape that trains every tensor."""
        return self._interpolate(shape, [profile.full_flops for profile in self._profiles])

    def plain_full_flops(self, shape: StepShape) -> float:
        """Return the FLOPs of one step of this shape that trains every tensor and computes the logits of all positions.

        A step with as many logits as tokens costs the same: to gather positions takes no FLOPs.
        """
        if self._terms == TOKENS_AND_LOGITS:
            shape = StepShape(shape.rows, (shape.lengths[0], shape.lengths[0]))
        return self.full_flops(shape)

    def count_flops(self, names: Collection[str], steps: Mapping[StepShape, int]) -> int:
        """Sum the FLOPs of the counted steps that train exactly these tensors."""
        flops = [profile.step_flops(names) for profile in self._profiles]
        return round(sum(count * self._interpolate(shape, flops) for shape, count in steps.items()))

    def fit_row_polynomial(self, names: Collection[str]) -> tuple[float, ...]:
        """Fit the FLOPs of a row in a step that trains exactly these tensors, by `fit_length_polynomial`.

        Without names: those of the forward pass alone.
        """
        flops = [p.step_flops(names) if names else p.forward_flops for p in self._profiles]
        return fit_length_polynomial(self._trace_lengths, [value / self._batch_size for value in flops], self._terms)

    @cached_property
    def floor(self) -> float:
        """The smallest ρ at which a tensor, or all that are always trained, can be trained at every length."""
        return min(self._single_tensor_shares.values())

    @property
    def cheapest(self) -> tuple[str, ...]:
        """Names of the tensors whose share is `floor`: all that are always trained, and the cheapest beside them."""
        shares = self._single_tensor_shares
        return tuple({*self._always, min(shares, key=shares.__getitem__)})

    def list_affordable_tensors(self, rho: float) -> tuple[str, ...]:
        """List the tensors that fit within ρ beside those always trained, output to input.

        Only they need a probe (Eq. 12). Raises `BudgetTooSmall` where there are none.
        """
        affordable = tuple(name for name, share in self._single_tensor_shares.items() if share <= rho)
        if not affordable:
            raise BudgetTooSmall(rho, self.floor, always=bool(self._always))
        return affordable

    def compute_max_share(self, names: Collection[str]) -> float:
        """Compute the largest share of full fine-tuning's FLOPs that a step takes, at any length, by either count.

        The counts are all FLOPs, and the matrix products that torch's FlopCounterMode counts.
        """
        return float((self._compute_flops_at_bounds(names) / self._full_at_bounds).max())

    def select(self, importance: Mapping[str, float], rho: float) -> Selection:
        """Select the most important tensors that keep every step within ρ. Raises `BudgetTooSmall`.

        `importance` holds at least the tensors in `list_affordable_tensors`. What the tensors of positive importance
        leave of the budget goes to the others: on one batch a sign is often momentum's rather than the loss's, and the
        caller expects ρ to be used.
        """
        worth, margin = dict.fromkeys(self.tensors, 0.0) | _raise_to_positive(importance), 0.0
        while True:
            try:
                chosen = select(self._longest, worth, rho - margin, **self._constraints)
            except BudgetTooSmall:
                fitting = self.list_affordable_tensors(rho)
                names = list(self._always) or [max(fitting, key=lambda name: importance[name])]
                break
            names = list(chosen.names)
            excess = self.compute_max_share(names) - rho
            if rho >= 1 or excess <= 0:
                break
            margin = max(2 * margin, rho - chosen.rho + excess)  # at least doubles, so that the loop ends
        return build_selection(self._longest, importance, self._fill_budget(names, worth, rho))

    def curve(self, importance: Mapping[str, float], rho: float) -> ConcaveCurve:
        """Compute the importance within each share up to ρ of the longest step's FLOPs; arguments as for `select`."""
        worth = dict.fromkeys(self.tensors, 0.0) | dict(importance)
        return importance_curve(self._longest, worth, up_to=rho, **self._constraints).concave_hull()

    @property
    def _constraints(self) -> dict[str, Collection[str]]:
        return {"always": self._always, "never": set(self.tensors).difference(self.trainable)}

    @cached_property
    def _single_tensor_shares(self) -> dict[str, float]:
        return {name: self.compute_max_share({*self._always, name}) for name in self.trainable}

    @cached_property
    def _full_at_bounds(self) -> NDArray[np.float64]:
        return self._compute_flops_at_bounds(self.tensors)

    def _compute_flops_at_bounds(self, names: Collection[str]) -> NDArray[np.float64]:
        """Compute the FLOPs [2, bounds] of a step, by both counts, at the lengths where its share may be largest."""
        counts = (Profile.step_flops, Profile.matmul_step_flops)
        return np.stack([self._share_weights @ [float(count(p, names)) for p in self._profiles] for count in counts])

    def _interpolate(self, shape: StepShape, flops_at_nodes: list[int]) -> float:
        if shape.lengths in self._trace_lengths:
            flops = float(flops_at_nodes[self._trace_lengths.index(shape.lengths)])
        else:
            if shape.lengths not in self._interpolation_weights:
                self._interpolation_weights[shape.lengths] = compute_interpolation_weights(
                    self._trace_lengths, [shape.lengths], self._terms
                )[0]
            flops = float(self._interpolation_weights[shape.lengths] @ flops_at_nodes)
        return flops * shape.rows / self._batch_size

    def _fill_budget(self, names: list[str], worth: Mapping[str, float], rho: float) -> list[str]:
        """Add tensors that fit at all lengths by both counts, the most important per FLOP of own gradient first."""
        taken = set(names)
        taken.update(self._constraints["never"])
        left = [t for t in self._longest.tensors if t.name not in taken and worth[t.name] > 0]
        for tensor in sorted(left, key=lambda tensor: -worth[tensor.name] / max(tensor.t_dw, 1)):
            if self.compute_max_share([*names, tensor.name]) <= rho:
                names.append(tensor.name)
        return names


def _raise_to_positive(importance: Mapping[str, float]) -> dict[str, float]:
    """Raise importance that is not positive to a value too small to displace any other tensor."""
    least = min((value for value in importance.values() if value > 0), default=1.0)
    return {name: value if value > 0 else least * 1e-6 for name, value in importance.items()}


def _compute_share_weights(traced: tuple[Lengths, ...], shapes: BatchShapes) -> NDArray[np.float64]:
    """Compute the weights of the traced costs at the lengths where a step's share can be largest.

    With one length a share is a ratio of two linear functions, so it is largest at an end. With two it may be largest
    at any of the first; at each it is a ratio of two linear functions of the learned positions, and may be largest
    within a decoder's targets.
    """
    if shapes.terms == TOKENS:
        return np.eye(len(traced))
    (low, least), (high, most) = shapes.shortest, shapes.longest
    if shapes.terms == SOURCE_AND_TARGET:
        lengths = [(source, target) for source in range(low, high + 1) for target in range(least, most + 1)]
    else:
        tokens = range(low, high + 1)
        lengths = [(length, min(learned, round_up_length(length))) for length in tokens for learned in (least, most)]
    return compute_interpolation_weights(traced, lengths, shapes.terms)


def make_batch(rows: int, lengths: Lengths, device: torch.device, *, terms: Terms) -> dict[str, torch.Tensor]:
    """Make a batch of rows of these lengths, whose values have no meaning."""
    ids, second = (torch.zeros(rows, length, dtype=torch.long, device=device) for length in (lengths[0], lengths[-1]))
    if terms == SOURCE_AND_TARGET:
        return {"input_ids": ids, "labels": second}
    if terms == TOKENS_AND_LOGITS:
        return {"input_ids": ids, "labels": ids, "logits_to_keep": second, "shift_labels": second}
    return {"input_ids": ids, "labels": ids}
