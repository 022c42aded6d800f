"""The modules that LoRA adapts: those of named targets, or every linear one; without peft, which is slow to import."""

from collections.abc import Sequence

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from greencore.hyperparameters import SettingUnsupported
from greencore.training.methods.baselines import find_query_value_projections

FIELD = "lora.targets"
SHOWN_TARGETS = 12  # of the model's own, in the message on a target that matches none of them


def resolve_lora_targets(model: PreTrainedModel, targets: Sequence[str] | str | None) -> list[str]:
    """Return the names or ends of names, as peft takes them, of the modules that `LoraSettings.targets` selects.

    A target matches each module of its name, and each whose name ends with a dot and the target. Raises
    `SettingUnsupported` for one that matches no linear module or matches another kind of module, and `BaselineError`
    for None and a model without a known query or value projection.
    """
    if targets is None:
        return sorted({_last_part(name) for name in find_query_value_projections(model)})
    linear = _list_adaptable_modules(model)
    if targets == "all-linear":
        return _shorten(
            model, [name for name in linear if model.get_submodule(name) is not model.get_output_embeddings()]
        )
    for target in targets:
        _check_target(target, model, linear)
    return sorted(targets)


def _check_target(target: str, model: PreTrainedModel, linear: Sequence[str]) -> None:
    matching = {name: module for name, module in model.named_modules() if name == target or name.endswith(f".{target}")}
    if not matching:
        known = sorted({_last_part(name) for name in linear})
        shown = ", ".join(known[:SHOWN_TARGETS]) + (" and others" if len(known) > SHOWN_TARGETS else "")
        raise SettingUnsupported(FIELD, f"{target!r} matches no module of {type(model).__name__}, which has {shown}")
    if (name := next((name for name in matching if name not in linear), None)) is None:
        return
    if _is_linear(matching[name]):
        message = f"{target!r} matches {name}, whose weight is tied to the input embedding: an update would change both"
        raise SettingUnsupported(FIELD, message)
    kind = type(matching[name]).__name__
    raise SettingUnsupported(FIELD, f"{target!r} matches {name}, a {kind}: expected the names of linear modules")


def _list_adaptable_modules(model: PreTrainedModel) -> list[str]:
    """List the linear modules but a tied output embedding."""
    embedding = model.get_input_embeddings().weight
    return [name for name, module in model.named_modules() if _is_linear(module) and module.weight is not embedding]


def _shorten(model: PreTrainedModel, chosen: Sequence[str]) -> list[str]:
    """Return the ends of the chosen modules' names, or the names where another module has such an end."""
    ends = {_last_part(name) for name in chosen}
    others = {_last_part(name) for name, _ in model.named_modules() if name not in set(chosen)}
    return sorted(chosen) if ends & others else sorted(ends)


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | Conv1D)


def _last_part(name: str) -> str:
    return name.rpartition(".")[2]
