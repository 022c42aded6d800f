"""The modules that LoRA adapts: those of named targets, or every linear one; without peft, which is slow to import."""

from collections.abc import Sequence

from transformers import PreTrainedModel

from greencore.model_names import LINEAR, ModelNames, last_part
from greencore.training.methods.baselines import find_query_value_projections
from greencore.training.methods.tensor_patterns import read_model_names


def resolve_lora_targets(model: PreTrainedModel, targets: Sequence[str] | str | None) -> list[str]:
    """Return the names or ends of names, as peft takes them, of the modules that `LoraSettings.targets` selects.

    A target matches each module of its name, and each whose name ends with a dot and the target. Raises
    `SettingUnsupported` for one that matches no linear module or matches another kind of module, and `BaselineError`
    for None and a model without a known query or value projection.
    """
    if targets is None:
        return sorted({last_part(name) for name in find_query_value_projections(model)})
    names = read_model_names(model)
    if targets == "all-linear":
        head = model.get_output_embeddings()
        linear = [name for name, kind in names.modules.items() if kind == LINEAR]
        return _shorten(names, [name for name in linear if model.get_submodule(name) is not head])
    names.check_lora_targets(targets)
    return sorted(targets)


def _shorten(names: ModelNames, chosen: Sequence[str]) -> list[str]:
    """Return the ends of the chosen modules' names, or the names where another module has such an end."""
    ends = {last_part(name) for name in chosen}
    others = {last_part(name) for name in names.modules.keys() - set(chosen)}
    return sorted(chosen) if ends & others else sorted(ends)
