"""What steps of a run cost: batches differ in length, and the budget must hold for each of them."""

from collections.abc import Collection, Mapping
from functools import cached_property

import torch

from greencore.backprop import BudgetTooSmall, Profile, Selection, profile, select
from greencore.backprop.profile import at_length


class StepCosts:
    """Profiles of one model at every sequence length, from two traces (see `greencore.backprop.profile.at_length`)."""

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        batch_size: int,
        shortest: int,
        longest: int,
        names: Collection[str] | None = None,
    ) -> None:
        """Trace batches of `batch_size` rows of the shortest and the longest length. Raises `TraceError`."""
        if longest <= shortest:
            longest = shortest + 1
        self._batch_size = batch_size
        self._lengths = (shortest, longest)
        device = next(model.parameters()).device
        self._short, self._long = (
            profile(model, _shaped(batch_size, length, device), names=names) for length in self._lengths
        )
        self._profiles: dict[int, Profile] = {}

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of all trainable tensors, from output to input."""
        return tuple(tensor.name for tensor in self._short.tensors)

    def at(self, length: int) -> Profile:
        """The profile of a full batch of rows of one length."""
        if length not in self._profiles:
            self._profiles[length] = at_length(self._short, self._long, lengths=self._lengths, length=length)
        return self._profiles[length]

    def flops(self, names: Collection[str], shapes: Mapping[tuple[int, int], int]) -> tuple[int, int]:
        """FLOPs of steps of the given (rows, length) shapes, counted: with just `names` trained, and with all."""
        spent = full = 0.0
        for (rows, length), steps in shapes.items():
            costs, part = self.at(length), steps * rows / self._batch_size
            spent += part * costs.step_flops(names)
            full += part * costs.full_flops
        return round(spent), round(full)

    @cached_property
    def floor(self) -> float:
        """The smallest ρ that leaves one tensor to train at every length."""
        return min(self.worst_share([name]) for name in self.tensors)

    def worst_share(self, names: Collection[str]) -> float:
        """The largest share of full fine-tuning's FLOPs that a step takes, at any length, by either count.

        A step costs (a·L + b·L²) FLOPs, so its share is a ratio of two linear functions of L and largest at one of
        the two ends. Both counts bound it: all FLOPs, and the matrix products that torch's FlopCounterMode counts.
        """
        return max(
            max(end.share(names), end.matmul_step_flops(names) / full_matmul_flops)
            for end, full_matmul_flops in zip((self._short, self._long), self._full_matmul_flops, strict=True)
        )

    @cached_property
    def _full_matmul_flops(self) -> tuple[int, int]:
        return self._short.matmul_step_flops(self.tensors), self._long.matmul_step_flops(self.tensors)

    def select(self, importance: Mapping[str, float], rho: float) -> Selection:
        """The most important tensors that keep every step within ρ. Raises `BudgetTooSmall`.

        What the tensors of positive importance leave of the budget goes to the others: on one batch a sign is often
        momentum's rather than the loss's, and whoever asks for ρ expects it to be used.
        """
        worth, margin = _at_least_a_little(importance), 0.0
        while True:
            try:
                chosen = select(self._long, worth, rho - margin)
            except BudgetTooSmall:
                return self._selection(self._fill([self._best_alone(importance, rho)], worth, rho), importance)
            excess = self.worst_share(chosen.names) - rho
            if rho >= 1 or excess <= 0:
                return self._selection(self._fill(list(chosen.names), worth, rho), importance)
            margin = max(2 * margin, rho - chosen.rho + excess)  # at least doubles, so that it comes to an end

    def _best_alone(self, importance: Mapping[str, float], rho: float) -> str:
        """The most important of the tensors that fit by themselves. Raises `BudgetTooSmall`."""
        fitting = [name for name in self.tensors if self.worst_share([name]) <= rho]
        if not fitting:
            raise BudgetTooSmall(rho, self.floor)
        return max(fitting, key=lambda name: importance[name])

    def _fill(self, names: list[str], worth: Mapping[str, float], rho: float) -> list[str]:
        """Add what still fits at both ends by both counts, the most important for its own gradient's cost first."""
        taken = set(names)
        left = [tensor for tensor in self._long.tensors if tensor.name not in taken]
        for tensor in sorted(left, key=lambda tensor: -worth[tensor.name] / max(tensor.t_dw, 1)):
            if self.worst_share([*names, tensor.name]) <= rho:
                names.append(tensor.name)
        return names

    def _selection(self, names: Collection[str], importance: Mapping[str, float]) -> Selection:
        kept = set(names)
        ordered = tuple(name for name in self.tensors if name in kept)
        flops = self._long.step_flops(ordered)
        return Selection(ordered, sum(importance[name] for name in ordered), flops, flops / self._long.full_flops)


def _at_least_a_little(importance: Mapping[str, float]) -> dict[str, float]:
    """Importance with everything that is not positive raised to next to nothing, too little to displace anything."""
    least = min((value for value in importance.values() if value > 0), default=1.0)
    return {name: value if value > 0 else least * 1e-6 for name, value in importance.items()}


def _shaped(rows: int, length: int, device: torch.device) -> dict[str, torch.Tensor]:
    ids = torch.zeros(rows, length, dtype=torch.long, device=device)
    return {"input_ids": ids, "labels": ids}
