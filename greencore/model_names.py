"""A model's names, by which settings choose among its parts: patterns of tensors, and the targets of LoRA.

A pattern is matched with a tensor's whole name, as the model's `named_parameters` has it, by `fnmatch.fnmatchcase`: `*`
matches any characters, dots included, `?` one character, `[abc]` one of several, and `[!abc]` any other.
A tied weight has one name there, usually that of the input embedding.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from greencore.settings.hyperparameters import SettingUnsupported

LINEAR, TIED = "linear", "tied"
LORA_TARGETS = "lora.targets"
SHOWN_NAMES = 3  # nearest names in the message on a pattern without a match
SHOWN_TARGETS = 12  # of the model's own, in the message on a target that matches none of them


@dataclass(frozen=True)
class TensorRoles:
    """Names of the tensors that every selection trains, and of those that none does."""

    always: tuple[str, ...] = ()
    never: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelNames:
    """Names of a model's tensors of floating point, the further names of tied ones, and its modules.

    `tied` maps each further name to the first. `modules` maps a module's name to its kind: "linear", "tied" for a
    linear one with the weight of the input embedding, or else its class.
    """

    model_class: str
    tensors: Sequence[str]
    tied: Mapping[str, str] = field(default_factory=dict)
    modules: Mapping[str, str] = field(default_factory=dict)

    def match_patterns(self, *, never_train: Sequence[str] = (), always_train: Sequence[str] = ()) -> TensorRoles:
        """Match the patterns with the tensors.

        Raises `SettingUnsupported` for a pattern without a match, for one of each kind that match the same tensor, and
        where no tensor is left to train.
        """
        never = self._match("never_train", never_train)
        always = self._match("always_train", always_train)
        if both := [name for name in always if name in never]:
            patterns = f"{always[both[0]]!r} of always_train and {never[both[0]]!r} of never_train"
            raise SettingUnsupported("adaptive.always_train", f"{patterns} both match {both[0]}")
        if len(never) == len(self.tensors):
            message = f"never_train matches each of the {len(self.tensors)} tensors, so none is left to train"
            raise SettingUnsupported("adaptive.never_train", message)
        return TensorRoles(always=tuple(always), never=tuple(never))

    def check_lora_targets(self, targets: Sequence[str]) -> None:
        """Raise `SettingUnsupported` for a target that matches no linear module, or a module of another kind.

        A target matches each module of its name, and each whose name ends with a dot and the target.
        """
        for target in targets:
            matching = [name for name in self.modules if name == target or name.endswith(f".{target}")]
            if not matching:
                known = sorted({last_part(name) for name, kind in self.modules.items() if kind == LINEAR})
                shown = ", ".join(known[:SHOWN_TARGETS]) + (" and others" if len(known) > SHOWN_TARGETS else "")
                message = f"{target!r} matches no module of {self.model_class}, which has {shown}"
                raise SettingUnsupported(LORA_TARGETS, message)
            if (name := next((name for name in matching if self.modules[name] != LINEAR), None)) is None:
                continue
            if self.modules[name] == TIED:
                tied = "whose weight is tied to the input embedding: an update would change both"
                raise SettingUnsupported(LORA_TARGETS, f"{target!r} matches {name}, {tied}")
            message = f"{target!r} matches {name}, a {self.modules[name]}: expected the names of linear modules"
            raise SettingUnsupported(LORA_TARGETS, message)

    def _match(self, setting: str, patterns: Sequence[str]) -> Mapping[str, str]:
        """Return the matching names, each with the first pattern that it matches."""
        found: dict[str, str] = {}
        for pattern in patterns:
            matching = [name for name in self.tensors if fnmatchcase(name, pattern)]
            if not matching:
                raise SettingUnsupported(f"adaptive.{setting}", self._explain_no_match(pattern))
            for name in matching:
                found.setdefault(name, pattern)
        return found

    def _explain_no_match(self, pattern: str) -> str:
        for name, first in self.tied.items():
            if fnmatchcase(name, pattern):
                return f"{pattern!r} matches {name}, which is tied to {first}: name that instead"
        near = difflib.get_close_matches(pattern, self.tensors, n=SHOWN_NAMES, cutoff=0.0)
        return f"{pattern!r} matches no tensor of the model; near it are {', '.join(near)}"


def last_part(name: str) -> str:
    """Return the part of a module's name after its last dot."""
    return name.rpartition(".")[2]
