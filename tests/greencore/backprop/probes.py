"""Models and optimisers in mid-run, and importance by its naive definition."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from transformers import (
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.optimization import Adafactor

Batch = dict[str, torch.Tensor]
Optimizers = dict[str, Callable[[PreTrainedModel], torch.optim.Optimizer]]


def in_two_groups(model: PreTrainedModel) -> list[dict[str, Any]]:
    """Two groups as trainers make them: matrices with weight decay and a separate learning rate, and vectors."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim == 1]
    return [{"params": vectors, "weight_decay": 0.0}, {"params": matrices, "weight_decay": 0.1, "lr": 3e-3}]


FAMILIAR: Optimizers = {
    "adamw": lambda m: torch.optim.AdamW(m.parameters(), lr=1e-3, weight_decay=0.1, foreach=False),
    "adamw-foreach": lambda m: torch.optim.AdamW(m.parameters(), lr=1e-3, foreach=True),
    "adamw-fused": lambda m: torch.optim.AdamW(m.parameters(), lr=1e-3, fused=True),
    "sgd": lambda m: torch.optim.SGD(m.parameters(), lr=1e-2, momentum=0.9),
}
OPTIMIZERS: Optimizers = FAMILIAR | {
    "adamw-groups": lambda m: torch.optim.AdamW(in_two_groups(m), lr=1e-3),
    "adamw-named": lambda m: torch.optim.AdamW(m.named_parameters(), lr=1e-3),
    "adam": lambda m: torch.optim.Adam(m.parameters(), lr=1e-3, weight_decay=0.01, amsgrad=True),
    "sgd-plain": lambda m: torch.optim.SGD(m.parameters(), lr=1e-2),
    "sgd-nesterov": lambda m: torch.optim.SGD(m.parameters(), lr=1e-2, momentum=0.9, nesterov=True, weight_decay=0.1),
    "rmsprop": lambda m: torch.optim.RMSprop(m.parameters(), lr=1e-3, momentum=0.5, centered=True),
    "rprop": lambda m: torch.optim.Rprop(m.parameters(), lr=1e-3),
    "adafactor-torch": lambda m: torch.optim.Adafactor(m.parameters(), lr=1e-2),
    "adafactor": lambda m: Adafactor(m.parameters(), lr=1e-3, relative_step=False, beta1=0.9, weight_decay=0.1),
    "adafactor-relative": lambda m: Adafactor(m.parameters(), warmup_init=True),
}
PRECISIONS = ["float32", "bfloat16", "autocast"]


def tiny_opt(dropout: float = 0.0) -> PreTrainedModel:
    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=96,
        hidden_size=32,
        word_embed_proj_dim=32,
        ffn_dim=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        dropout=dropout,
    )
    return OPTForCausalLM(config)


def tiny_t5() -> PreTrainedModel:
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=96, d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4, dropout_rate=0.0, pad_token_id=0
    )
    config.decoder_start_token_id = 0
    return T5ForConditionalGeneration(config)


def in_precision(model: PreTrainedModel, precision: str) -> PreTrainedModel:
    if precision == "bfloat16":
        model.bfloat16()
    if precision == "autocast":  # as accelerate arranges it
        model.forward = torch.autocast("cpu", torch.bfloat16)(model.forward)
    return model


def make_batch_like(batch: Batch, seed: int = 2, shape: tuple[int, int] = (3, 9)) -> Batch:
    ids = torch.randint(3, 96, shape, generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids, "labels": ids.clone()}


def build_mid_run_optimizer(
    make: Callable[[PreTrainedModel], torch.optim.Optimizer], model: PreTrainedModel, batch: Batch
) -> torch.optim.Optimizer:
    """Build an optimiser in mid-run: after two steps, at a learning rate that a schedule has changed."""
    optimizer = make(model)
    for _ in range(2):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    for group in optimizer.param_groups:
        if group["lr"] is not None:
            group["initial_lr"] = group["lr"]
            group["lr"] *= 0.7
    return optimizer


@contextmanager
def counting_passes(model: PreTrainedModel) -> Iterator[list[int]]:
    """Count the forward passes of the block, by appending to the list."""
    passes: list[int] = []
    hook = model.register_forward_pre_hook(lambda *_: passes.append(1))
    yield passes
    hook.remove()


def copied_gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def reference_importance(
    model: PreTrainedModel, batch: Batch, optimizer: torch.optim.Optimizer, max_grad_norm: float | None = None
) -> dict[str, dict[str, float]]:
    """Compute importance by the paper's definition: cache the weights, step, take the difference, restore."""
    model.zero_grad()
    weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    state = {parameter: copy.deepcopy(values) for parameter, values in optimizer.state.items()}
    model(**batch).loss.backward()
    gradients = copied_gradients(model)
    coefficient = 1.0
    if max_grad_norm is not None:
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
        coefficient = float(max_grad_norm / (norm + 1e-6))
        assert coefficient < 0.5
    optimizer.step()
    result: dict[str, dict[str, float]] = {"dw_grad": {}, "dw": {}, "grad": {}}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            update = parameter.double() - weights[name].double()
            result["dw_grad"][name] = float(-(update * gradients[name].double()).sum())
            result["dw"][name] = float(update.abs().sum())
            result["grad"][name] = float(gradients[name].double().abs().sum() * coefficient)
            parameter.copy_(weights[name])
    optimizer.state.clear()
    optimizer.state.update(state)
    model.zero_grad()
    return result


def approx_values(values: dict[str, float]) -> Any:
    return pytest.approx(values, rel=1e-4, abs=1e-9)
