"""The paper's baselines (§2.2, Table 1, §4): the tensors that each trains and its FLOPs, for any transformers model."""

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from typing import Any, Literal, cast, get_args

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.pytorch_utils import Conv1D

from greencore.backprop.shards import free_gathered
from greencore.settings.method_settings import LoraSettings
from greencore.training.batches.batch_shapes import BatchShapes, StepShape
from greencore.training.methods.modes import in_mode
from greencore.training.methods.step_costs import StepCosts

Baseline = Literal["full", "top2", "lora", "prefix", "bitfit", "layernorm", "qv", "progressive"]


class BaselineError(ValueError):
    """The model has no tensor that the baseline trains, or the baseline's arguments are invalid."""


QUERY_AND_VALUE = {"q", "v", "q_proj", "v_proj", "query", "value", "q_attn"}
FUSED_WITH_KEY = {"query_key_value", "c_attn", "qkv_proj", "Wqkv"}


def list_trained_tensors(method: Baseline, model: PreTrainedModel, *, epoch: int, epochs: int) -> tuple[str, ...]:
    """List the parameters that a baseline trains in `epoch` (from 0) of `epochs`, by name, in the model's order.

    full: every parameter.
    top2 (FT-Top2, §4): the output embedding and the last LayerNorm that runs. A tied output embedding takes the
        gradient of both its uses, as the paper's cost shows: with OPT-2.7B FT-Top2 costs 69 % of full fine-tuning, more
        than a backward pass without weight gradients; with FLAN-T5, untied, 34 %.
    bitfit (Zaken et al., 2021): every bias.
    layernorm: weights and biases of every normalisation.
    qv (Table 1): W_Q and W_V of every attention, without biases. Models that keep query, key and value in one fused
        tensor (BLOOM, GPT-2, GPT-NeoX, Falcon, Phi-3) train all of it.
    progressive (Table 1): the last ⌈(epoch + 1) / epochs · L⌉ of the L blocks in the order in which they run, an
        encoder's before its decoder's, with what runs after them, the output embedding included; in the last epoch
        every parameter.

    The order in which modules run is observed in a pass over one token. Raises `BaselineError` for a model without such
    tensors, for an epoch outside the run, and for "lora" and "prefix", which train an adapter
    (`greencore.training.methods.adapters`).
    """
    if not 0 <= epoch < epochs:
        raise BaselineError(f"epoch {epoch} is outside a run of {epochs} epochs, which are counted from 0")
    match method:
        case "full":
            parameters: Iterable[nn.Parameter] = model.parameters()
        case "top2":
            norms = [module for module in _list_modules_in_call_order(model) if _is_norm(module)]
            parameters = [
                *_get_output_embedding(model).parameters(),
                *(p for norm in norms[-1:] for p in norm.parameters()),
            ]
        case "bitfit":
            parameters = [parameter for name, parameter in model.named_parameters() if name.endswith("bias")]
        case "layernorm":
            parameters = [p for module in model.modules() if _is_norm(module) for p in module.parameters()]
        case "qv":
            parameters = [model.get_submodule(name).weight for name in find_query_value_projections(model)]  # type: ignore[misc]
        case "progressive":
            parameters = _list_top_block_parameters(model, epoch=epoch, epochs=epochs)
        case _:
            raise BaselineError(
                f"{method!r} trains an adapter: add it with with_adapter(...)"
                if method in get_args(Baseline)
                else f"there is no baseline {method!r}: expected one of {', '.join(get_args(Baseline))}"
            )
    wanted = {id(parameter) for parameter in parameters}
    if not wanted:
        raise BaselineError(f"{type(model).__name__} has no tensor that {method!r} trains")
    return tuple(name for name, parameter in model.named_parameters() if id(parameter) in wanted)


def count_method_flops(
    method: Baseline,
    model: PreTrainedModel,
    full_costs: StepCosts,
    steps: Mapping[StepShape, int],
    shapes: BatchShapes,
    *,
    lora: LoraSettings | None = None,
) -> int:
    """Count the FLOPs of the steps by `method`; `full_costs` are those of the model, which may be on the meta device.

    "lora" and "prefix" add their adapter to the model, the first as the settings `lora` say. "progressive" counts as in
    its last epoch, its most expensive.
    Raises `BaselineError` for a model without a tensor that the method trains.
    """
    if method not in ("lora", "prefix"):
        return full_costs.count_flops(list_trained_tensors(method, model, epoch=0, epochs=1), steps)
    adapted = add_adapter(method, model, lora)
    own = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    return StepCosts(adapted, shapes, names=own).count_flops(own, steps)


def add_adapter(method: str, model: PreTrainedModel, lora: LoraSettings | None) -> PreTrainedModel:
    """Return the model with the adapter that "lora", as the settings say, or "prefix" trains; else the model itself."""
    if method not in ("lora", "prefix"):
        return model
    from greencore.training.methods.adapters import with_adapter

    free_gathered(model)  # else copies would be frozen
    return cast(PreTrainedModel, with_adapter(cast(Any, method), model, lora=lora))


def _list_top_block_parameters(model: PreTrainedModel, *, epoch: int, epochs: int) -> list[nn.Parameter]:
    if epoch == epochs - 1:
        return list(model.parameters())
    called = _list_modules_in_call_order(model)
    blocks = [module for module in called if isinstance(module, GradientCheckpointingLayer)]
    if not blocks:
        raise BaselineError(f"{type(model).__name__} has no block that is a GradientCheckpointingLayer")
    deepest = blocks[-(-len(blocks) * (epoch + 1) // epochs) * -1]
    after = called[called.index(deepest) :]
    # a decoder's embedding runs late, but is an input
    modules = [module for module in after if not isinstance(module, nn.Embedding)]
    return [parameter for module in (*modules, _get_output_embedding(model)) for parameter in module.parameters()]


def _list_modules_in_call_order(model: PreTrainedModel) -> list[nn.Module]:
    """List blocks, and modules without children, in the order of their first call."""
    order: dict[nn.Module, None] = {}

    def record(module: nn.Module, _: Any) -> None:
        order.setdefault(module)

    watched = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer) or not any(m.children())]
    hooks = [module.register_forward_pre_hook(record) for module in watched]
    try:
        forward_one_token(model, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return list(order)


@torch.no_grad()
def forward_one_token(model: PreTrainedModel, *, use_cache: bool) -> Any:
    """Run the model on one token, in evaluation mode and without gradients."""
    visible = 1 if model.config.pad_token_id == 0 else 0  # transformers warns of pad tokens alone
    # on the meta device transformers reads values, but not of fake tensors
    fake = FakeTensorMode(allow_non_fake_inputs=True) if model.device.type == "meta" else nullcontext()
    with in_mode(model, training=False), fake:
        token = torch.full((1, 1), visible, device=model.device)
        inputs = {"input_ids": token} | ({"decoder_input_ids": token} if model.config.is_encoder_decoder else {})
        output = model(**inputs, use_cache=use_cache)
    free_gathered(model)
    return output


def _get_output_embedding(model: PreTrainedModel) -> nn.Module:
    head: nn.Module | None = model.get_output_embeddings()
    if head is None:
        raise BaselineError(f"{type(model).__name__} has no output embedding: it is not a language model")
    return head


def _is_norm(module: nn.Module) -> bool:
    return type(module).__name__.endswith("Norm")


def find_query_value_projections(model: PreTrainedModel) -> list[str]:
    """List the modules that compute queries and values. Raises `BaselineError` where no name is known."""
    modules = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    known = QUERY_AND_VALUE | FUSED_WITH_KEY
    found = [name for name in modules if name.rpartition(".")[2] in known]
    if not found:
        raise BaselineError(
            f"{type(model).__name__} has no module named like a query or value projection: {sorted(known)}"
        )
    return found
