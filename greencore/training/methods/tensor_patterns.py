"""Reads a model's names, and matches patterns of tensor names with them (`greencore.model_names`)."""

from collections.abc import Collection, Sequence

from torch import nn
from transformers.pytorch_utils import Conv1D

from greencore.model_names import LINEAR, TIED, ModelNames, TensorRoles


def read_model_names(model: nn.Module, names: Collection[str] | None = None) -> ModelNames:
    """Read the names of a model's parts; of its tensors those in `names`, by default all of floating point."""
    parameters = dict(model.named_parameters())
    first_names = {parameter: name for name, parameter in parameters.items()}
    every_name = model.named_parameters(remove_duplicate=False)
    get_embeddings = getattr(model, "get_input_embeddings", lambda: None)
    embedding = getattr(get_embeddings(), "weight", None)
    return ModelNames(
        model_class=type(model).__name__,
        tensors=tuple(
            name
            for name, parameter in parameters.items()
            if (parameter.is_floating_point() if names is None else name in names)
        ),
        tied={name: first_names[parameter] for name, parameter in every_name if first_names[parameter] != name},
        modules={name: _get_kind(module, embedding) for name, module in model.named_modules() if name},
    )


def match_tensor_patterns(
    model: nn.Module,
    names: Collection[str] | None = None,
    *,
    never_train: Sequence[str] = (),
    always_train: Sequence[str] = (),
) -> TensorRoles:
    """Match the patterns with those of the model's parameters that are in `names`, by default all of floating point.

    Raises `SettingUnsupported` as `ModelNames.match_patterns` does.
    """
    return read_model_names(model, names).match_patterns(never_train=never_train, always_train=always_train)


def _get_kind(module: nn.Module, embedding: nn.Parameter | None) -> str:
    if not isinstance(module, nn.Linear | Conv1D):
        return type(module).__name__
    return TIED if module.weight is embedding else LINEAR
