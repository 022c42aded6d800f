"""Constraints of a selection: tensors that it has to train, and tensors that it must not train."""

from collections.abc import Collection
from dataclasses import dataclass

from greencore.backprop.cost.profile import Profile


@dataclass(frozen=True)
class Constraints:
    """Tensors that every selection trains (`always`), and those that none trains (`never`), as bit masks."""

    always: int = 0
    never: int = 0

    @classmethod
    def of(cls, profile: Profile, *, always: Collection[str] = (), never: Collection[str] = ()) -> "Constraints":
        """Return the constraints of named tensors.

        Raises `ValueError` for a tensor that is in both or where no tensor is left, `KeyError` for an unknown name.
        """
        constraints = cls(profile.mask(always), profile.mask(never))
        if both := constraints.always & constraints.never:
            name = profile.tensors[(both & -both).bit_length() - 1].name
            raise ValueError(f"{name} is both among the tensors that are always trained and those that never are")
        if not constraints.list_trainable(profile):
            raise ValueError("every tensor is among those that are never trained, so none is left to train")
        return constraints

    def list_trainable(self, profile: Profile) -> list[str]:
        """List the tensors that a selection may train, from output to input."""
        return [tensor.name for index, tensor in enumerate(profile.tensors) if not self.never >> index & 1]

    def list_always(self, profile: Profile) -> list[str]:
        """List the tensors that every selection trains, from output to input."""
        return [tensor.name for index, tensor in enumerate(profile.tensors) if self.always >> index & 1]

    def compute_floor(self, profile: Profile) -> float:
        """Compute the smallest feasible ρ: the forward pass, and `always` or the cheapest tensor outside of `never`."""
        always = self.list_always(profile)
        sets = [always] if always else [[name] for name in self.list_trainable(profile)]
        return profile.round_up_share(min(profile.step_flops(names) for names in sets))


UNCONSTRAINED = Constraints()
