"""The fixed ways of fine-tuning that the paper compares with (§2.2, Table 1 and §4), for any model of transformers."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any, Literal, get_args

import torch
from peft import LoraConfig, PeftConfig, PeftModel, PeftModelForSeq2SeqLM, PrefixTuningConfig, TaskType, get_peft_model
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.pytorch_utils import Conv1D

Baseline = Literal["full", "top2", "lora", "prefix", "bitfit", "layernorm", "qv", "progressive"]


class BaselineError(ValueError):
    """The model has nothing that the baseline trains, or the baseline is asked for in a way that it has not."""


QUERY_AND_VALUE = {"q", "v", "q_proj", "v_proj", "query", "value", "q_attn"}
FUSED_WITH_KEY = {"query_key_value", "c_attn", "qkv_proj", "Wqkv"}


def trained_tensors(method: Baseline, model: PreTrainedModel, *, epoch: int, epochs: int) -> tuple[str, ...]:
    """The parameters that a baseline trains in `epoch` (from 0) of `epochs`, by name, in the model's own order.

    full: every parameter.
    top2 (FT-Top2, §4): the output embedding and the last LayerNorm that runs. Where the output embedding is tied to
        the input's, its gradient is taken in both places, as the paper's cost shows: with OPT-2.7B FT-Top2 costs 69 %
        of full fine-tuning, more than a backward pass without weight gradients; with FLAN-T5, untied, 34 %.
    bitfit (Zaken et al., 2021): every bias.
    layernorm: weights and biases of every normalisation.
    qv (Table 1): W_Q and W_V of every attention, without biases. Models that keep query, key and value in one fused
        tensor (BLOOM, GPT-2, GPT-NeoX, Falcon, Phi-3) train all of it.
    progressive (Table 1): the last ⌈(epoch + 1) / epochs · L⌉ of the L blocks in the order in which they run, an
        encoder's before its decoder's, with what runs after them, the output embedding included; in the last epoch
        every parameter.

    What runs when is seen from a pass over one token, not from names. Raises `BaselineError` for a model that has
    none of the tensors asked for, for an epoch outside the run, and for "lora" and "prefix", which train an adapter:
    see `with_adapter`.
    """
    if not 0 <= epoch < epochs:
        raise BaselineError(f"epoch {epoch} is outside a run of {epochs} epochs, which are counted from 0")
    match method:
        case "full":
            parameters: Iterable[nn.Parameter] = model.parameters()
        case "top2":
            norms = [module for module in _called(model) if _is_norm(module)]
            parameters = [*_head(model).parameters(), *(p for norm in norms[-1:] for p in norm.parameters())]
        case "bitfit":
            parameters = [parameter for name, parameter in model.named_parameters() if name.endswith("bias")]
        case "layernorm":
            parameters = [p for module in model.modules() if _is_norm(module) for p in module.parameters()]
        case "qv":
            parameters = [model.get_submodule(name).weight for name in _projections(model)]  # type: ignore[misc]
        case "progressive":
            parameters = _top_blocks(model, epoch=epoch, epochs=epochs)
        case _:
            raise BaselineError(
                f"{method!r} trains an adapter: with_adapter(...) gives the model one"
                if method in get_args(Baseline)
                else f"there is no baseline {method!r}: expected one of {', '.join(get_args(Baseline))}"
            )
    wanted = {id(parameter) for parameter in parameters}
    if not wanted:
        raise BaselineError(f"{type(model).__name__} has no tensor that {method!r} trains")
    return tuple(name for name, parameter in model.named_parameters() if id(parameter) in wanted)


def with_adapter(
    method: Literal["lora", "prefix"],
    model: PreTrainedModel,
    *,
    rank: int = 8,
    alpha: int = 32,
    dropout: float = 0.1,
    prefix_tokens: int = 20,
) -> PeftModel:
    """The model frozen, with a trainable adapter in it; the defaults are those of the paper's own implementation.

    lora (Hu et al., 2021): W + alpha / rank · BA on the query and value projections, or on the tensor that fuses
        them, with `dropout` in front of A.
    prefix (Li & Liang, 2021): `prefix_tokens` trained keys and values in front of each block's own; of an
        encoder-decoder model in the decoder's self-attention only (§4).

    The model is changed in place. Raises `BaselineError` where it has no such projection, or blocks whose keys differ.
    """
    task = TaskType.SEQ_2_SEQ_LM if model.config.is_encoder_decoder else TaskType.CAUSAL_LM
    if method == "lora":
        projections = _projections(model)
        settings: PeftConfig = LoraConfig(
            task_type=task,
            r=rank,
            lora_alpha=alpha,
            lora_dropout=dropout,
            target_modules=sorted({name.rpartition(".")[2] for name in projections}),
            fan_in_fan_out=isinstance(model.get_submodule(projections[0]), Conv1D),
        )
        adapted: Callable[..., PeftModel] = get_peft_model
    else:
        layers, heads, width = _key_shape(model)
        settings = PrefixTuningConfig(
            task_type=task,
            num_virtual_tokens=prefix_tokens,
            num_transformer_submodules=1,
            num_layers=layers,
            num_attention_heads=heads,
            token_dim=heads * width,
        )
        adapted = _DecoderPrefix if model.config.is_encoder_decoder else get_peft_model
    with warnings.catch_warnings():
        # peft asks for it by the name that transformers has deprecated
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        return adapted(model, settings)


def merged(model: PeftModel) -> PreTrainedModel:
    """The plain model with its LoRA adapter added into its weights. Raises `BaselineError` for a prefix."""
    if model.active_peft_config.is_prompt_learning:
        raise BaselineError("a prefix is not part of any weight: keep it beside the model with save_pretrained")
    plain = model.merge_and_unload()
    assert isinstance(plain, PreTrainedModel)
    return plain


class _DecoderPrefix(PeftModelForSeq2SeqLM):
    """A prefix of its own for each block of a decoder that also attends to an encoder.

    peft gives such a model's blocks the first half of the prefix twice and leaves the second half untrained.
    """

    def get_prompt(self, *args: Any, **kwargs: Any) -> EncoderDecoderCache:  # type: ignore[override]  # peft's as well
        return EncoderDecoderCache(super().get_prompt(*args, **kwargs), DynamicCache())


def _top_blocks(model: PreTrainedModel, *, epoch: int, epochs: int) -> list[nn.Parameter]:
    if epoch == epochs - 1:
        return list(model.parameters())
    called = _called(model)
    blocks = [module for module in called if isinstance(module, GradientCheckpointingLayer)]
    if not blocks:
        raise BaselineError(f"{type(model).__name__} is not made of blocks that transformers marks as such")
    deepest = blocks[-(-len(blocks) * (epoch + 1) // epochs) * -1]
    after = called[called.index(deepest) :]
    # an embedding that runs late, a decoder's, is still an input
    modules = [module for module in after if not isinstance(module, nn.Embedding)]
    return [parameter for module in (*modules, _head(model)) for parameter in module.parameters()]


def _called(model: PreTrainedModel) -> list[nn.Module]:
    """Blocks, and modules without children, in the order of their first call."""
    order: dict[nn.Module, None] = {}

    def note(module: nn.Module, _: Any) -> None:
        order.setdefault(module)

    watched = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer) or not any(m.children())]
    hooks = [module.register_forward_pre_hook(note) for module in watched]
    try:
        _pass_one_token(model, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return list(order)


@torch.no_grad()
def _pass_one_token(model: PreTrainedModel, *, use_cache: bool) -> Any:
    visible = 1 if model.config.pad_token_id == 0 else 0  # a pad token alone draws a warning
    training = [module for module in model.modules() if module.training]
    model.eval()
    # on the meta device transformers would ask for values, which it does not of a fake tensor
    fake = FakeTensorMode(allow_non_fake_inputs=True) if model.device.type == "meta" else nullcontext()
    try:
        with fake:
            token = torch.full((1, 1), visible, device=model.device)
            inputs = {"input_ids": token} | ({"decoder_input_ids": token} if model.config.is_encoder_decoder else {})
            return model(**inputs, use_cache=use_cache)
    finally:
        for module in training:
            module.training = True


def _key_shape(model: PreTrainedModel) -> tuple[int, int, int]:
    """How many blocks cache keys, in how many heads of what width, as seen in the cache of one token."""
    cache = _pass_one_token(model, use_cache=True).past_key_values
    layers: Sequence[Any] = getattr(cache, "self_attention_cache", cache).layers
    shapes = {(layer.keys.shape[1], layer.keys.shape[3]) for layer in layers}
    if len(shapes) != 1:
        raise BaselineError(f"the blocks of {type(model).__name__} cache keys of different shapes, {sorted(shapes)}")
    [(heads, width)] = shapes
    return len(layers), heads, width


def _head(model: PreTrainedModel) -> nn.Module:
    head: nn.Module | None = model.get_output_embeddings()
    if head is None:
        raise BaselineError(f"{type(model).__name__} has no output embedding: it is no language model")
    return head


def _is_norm(module: nn.Module) -> bool:
    return type(module).__name__.endswith("Norm")


def _projections(model: PreTrainedModel) -> list[str]:
    """The modules that make queries and values. Raises `BaselineError` where there is none of a known name."""
    modules = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    known = QUERY_AND_VALUE | FUSED_WITH_KEY
    found = [name for name in modules if name.rpartition(".")[2] in known]
    if not found:
        raise BaselineError(
            f"{type(model).__name__} has no module named like a query or value projection: {sorted(known)}"
        )
    return found
