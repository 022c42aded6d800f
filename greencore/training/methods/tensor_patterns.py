"""Patterns of tensor names: which tensors a run never trains, and which it always trains.

A pattern is matched with a tensor's whole name, as the model's `named_parameters` has it, by `fnmatch.fnmatchcase`: `*`
matches any characters, dots included, `?` one character, `[abc]` one of several, and `[!abc]` any other.
A tied weight has one name there, usually that of the input embedding.
"""

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch

from greencore.hyperparameters import SettingUnsupported

SHOWN_NAMES = 3  # nearest names in the message on a pattern without a match


@dataclass(frozen=True)
class TensorRoles:
    """Names of the tensors that every selection trains, and of those that none does."""

    always: tuple[str, ...] = ()
    never: tuple[str, ...] = ()


def match_tensor_patterns(
    model: torch.nn.Module,
    names: Collection[str] | None = None,
    *,
    never_train: Sequence[str] = (),
    always_train: Sequence[str] = (),
) -> TensorRoles:
    """Match the patterns with those of the model's parameters that are in `names`, by default all of floating point.

    Raises `SettingUnsupported` for a pattern without a match, for one of each kind that match the same tensor, and
    where no tensor is left to train.
    """
    known = [
        name
        for name, parameter in model.named_parameters()
        if (parameter.is_floating_point() if names is None else name in names)
    ]
    never = _match("never_train", never_train, known, model)
    always = _match("always_train", always_train, known, model)
    if both := [name for name in always if name in never]:
        patterns = f"{always[both[0]]!r} of always_train and {never[both[0]]!r} of never_train"
        raise SettingUnsupported("adaptive.always_train", f"{patterns} both match {both[0]}")
    if len(never) == len(known):
        message = f"never_train matches each of the {len(known)} tensors, so none is left to train"
        raise SettingUnsupported("adaptive.never_train", message)
    return TensorRoles(always=tuple(always), never=tuple(never))


def _match(setting: str, patterns: Sequence[str], names: Sequence[str], model: torch.nn.Module) -> Mapping[str, str]:
    """Return the matching names, each with the first pattern that it matches."""
    found: dict[str, str] = {}
    for pattern in patterns:
        matching = [name for name in names if fnmatchcase(name, pattern)]
        if not matching:
            raise SettingUnsupported(f"adaptive.{setting}", _explain_no_match(pattern, names, model))
        for name in matching:
            found.setdefault(name, pattern)
    return found


def _explain_no_match(pattern: str, names: Sequence[str], model: torch.nn.Module) -> str:
    first_names = {parameter: name for name, parameter in model.named_parameters()}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if first_names[parameter] != name and fnmatchcase(name, pattern):
            return f"{pattern!r} matches {name}, which is tied to {first_names[parameter]}: name that instead"
    near = difflib.get_close_matches(pattern, names, n=SHOWN_NAMES, cutoff=0.0)
    return f"{pattern!r} matches no tensor of the model; near it are {', '.join(near)}"
