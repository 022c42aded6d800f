"""Importance probe: what it leaves unchanged, its memory, and its errors."""

import copy
import random
import weakref
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only
from torch.utils.checkpoint import checkpoint
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from greencore.backprop import NotFinite, importance
from tests.greencore.backprop.probes import (
    OPTIMIZERS,
    Batch,
    build_mid_run_optimizer,
    copied_gradients,
    counting_passes,
    make_batch_like,
    tiny_opt,
)


def everything(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """All that a probe could change, bit by bit."""
    found = {
        "weights": dict(model.named_parameters()),
        "buffers": dict(model.named_buffers()),
        "gradients": copied_gradients(model),
        "requires_grad": [parameter.requires_grad for parameter in model.parameters()],
        "where": [parameter.data_ptr() for parameter in model.parameters()],
        "training": [module.training for module in model.modules()],
        "optimizer": optimizer.state_dict(),
        "random": [
            torch.get_rng_state(),
            np.random.get_state(legacy=False)["state"]["key"].tobytes(),
            random.getstate(),
        ],
    }
    return tree_map_only(torch.Tensor, bits, found)  # type: ignore[no-any-return]


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes()


@pytest.fixture
def with_statistics() -> PreTrainedModel:
    """A model with dropout, running statistics and one frozen tensor."""
    model = tiny_opt(dropout=0.2)
    decoder: Any = model.get_decoder()
    decoder.layers[0].fc2 = torch.nn.Sequential(decoder.layers[0].fc2, BatchNorm(32))
    next(iter(model.parameters())).requires_grad_(False)
    return model


class BatchNorm(torch.nn.BatchNorm1d):
    """Batch normalisation over the features of every token."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return super().forward(hidden.flatten(0, -2)).view_as(hidden)


class OnlyVectors(torch.optim.AdamW):
    """An optimiser that fails in mid-run, after it has stepped a matrix."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model.parameters(), lr=1e-3)
        self.steps = 0

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.steps += 1
        super().step(closure)
        if self.steps > 2 and any(parameter.ndim > 1 for parameter in self.param_groups[0]["params"]):
            raise RuntimeError("no matrices")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_probe_restores_everything(with_statistics: PreTrainedModel, batch: Batch, name: str) -> None:
    model = with_statistics
    optimizer = build_mid_run_optimizer(OPTIMIZERS[name], model, batch)
    model(**batch).loss.backward()
    before = everything(model, optimizer)
    with counting_passes(model) as passes:
        importance(model, [batch, make_batch_like(batch)], optimizer, max_grad_norm=0.05)
    assert len(passes) == 4
    assert everything(model, optimizer) == before


def test_a_failing_probe_restores_everything(with_statistics: PreTrainedModel, batch: Batch) -> None:
    model = with_statistics
    optimizer = build_mid_run_optimizer(OPTIMIZERS["adamw"], model, batch)
    model(**batch).loss.backward()
    before = everything(model, optimizer)
    with pytest.raises(NotFinite):
        importance(model, [batch, {**batch, "labels": torch.full_like(batch["labels"], -100)}], optimizer)
    assert everything(model, optimizer) == before

    def average(index: int, gradient: torch.Tensor) -> None:
        if gradient.ndim > 1:
            raise RuntimeError(f"process lost in batch {index}")

    with pytest.raises(RuntimeError, match="process lost in batch 0"):
        importance(model, batch, optimizer, average=average)
    assert everything(model, optimizer) == before
    optimizer = build_mid_run_optimizer(OnlyVectors, model, batch)
    before = everything(model, optimizer)
    with pytest.raises(ValueError, match=r"optimiser OnlyVectors is not supported: its step .* no matrices"):
        importance(model, batch, optimizer)
    assert everything(model, optimizer) == before


def test_a_tensor_without_optimizer_state_gets_none(model: PreTrainedModel, batch: Batch) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    found = importance(model, batch, optimizer)
    assert not optimizer.state
    assert all(value > 0 for value in found.values())


def test_frozen_tensors_are_measured_too(model: PreTrainedModel, batch: Batch) -> None:
    model.eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    free = importance(model, batch, optimizer)
    model.requires_grad_(False)
    assert importance(model, batch, optimizer) == pytest.approx(free)


def test_a_learning_rate_of_zero_is_replaced_by_the_initial_one(model: PreTrainedModel, batch: Batch) -> None:
    model.eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    expected = importance(model, batch, optimizer)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 10)
    assert optimizer.param_groups[0]["lr"] == 0.0
    assert importance(model, batch, optimizer) == pytest.approx(expected)
    assert optimizer.param_groups[0]["lr"] == 0.0


def test_dynamic_rotary_frequencies_are_restored(batch: Batch) -> None:
    config = LlamaConfig(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=80,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=8,
        rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0},
    )
    model = LlamaForCausalLM(config).eval()
    longer = make_batch_like(batch, shape=(1, 40))
    before = copy.deepcopy(model)
    importance(model, longer, torch.optim.SGD(model.parameters(), lr=1e-2))
    assert torch.equal(model(**longer).logits, before(**longer).logits)
    assert torch.equal(model(**batch).logits, before(**batch).logits)


def test_recomputed_activations_give_the_same_importance(batch: Batch) -> None:
    model = tiny_opt(dropout=0.1).train()
    optimizer = build_mid_run_optimizer(OPTIMIZERS["adamw"], model, batch)
    upper = [name for name, _ in model.named_parameters() if ".layers.1." in name]
    torch.manual_seed(3)
    expected = [importance(model, batch, optimizer, names=names) for names in (None, upper)]
    model.activation_checkpointing_enable()
    torch.manual_seed(3)
    found = [importance(model, batch, optimizer, names=names) for names in (None, upper)]
    assert found[0] == pytest.approx(expected[0], rel=1e-6)
    assert found[1] == pytest.approx(expected[1], rel=1e-6)


class Shared(torch.nn.Module):
    """One layer used twice, each time under its own checkpoint."""

    def __init__(self, *, use_reentrant: bool) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 4)
        self.use_reentrant = use_reentrant

    def forward(self, x: torch.Tensor) -> SimpleNamespace:
        x = x.clone().requires_grad_()
        for _ in range(2):
            x = checkpoint(self.layer, x, use_reentrant=self.use_reentrant)
        return SimpleNamespace(loss=x.square().mean())


def test_a_gradient_that_arrives_in_parts_is_refused() -> None:
    batch = {"x": torch.ones(2, 4)}
    whole, parts = Shared(use_reentrant=False), Shared(use_reentrant=True)
    assert importance(whole, batch, torch.optim.SGD(whole.parameters(), lr=0.1))["layer.weight"] > 0
    with pytest.raises(ValueError, match="in parts: checkpoint with use_reentrant=False"):
        importance(parts, batch, torch.optim.SGD(parts.parameters(), lr=0.1))


class Peak(TorchDispatchMode):
    """Peak of the bytes allocated within the context."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._seen = set[int]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor.untyped_storage())
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return
        self._seen.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


def freed_at_once(model: torch.nn.Module) -> Iterator[Any]:
    def free(parameter: torch.Tensor) -> None:
        parameter.grad = None

    return (parameter.register_post_accumulate_grad_hook(free) for parameter in model.parameters())


@pytest.mark.parametrize("max_grad_norm", [None, 0.05])
def test_the_extra_memory_is_that_of_one_tensor(batch: Batch, max_grad_norm: float | None) -> None:
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=96, hidden_size=64, intermediate_size=128, num_hidden_layers=12, num_attention_heads=4)
    )
    optimizer = build_mid_run_optimizer(OPTIMIZERS["adamw"], model, batch)
    sizes = [parameter.nbytes for parameter in model.parameters()]
    with Peak() as probe:
        importance(model, batch, optimizer, max_grad_norm=max_grad_norm)
    hooks = list(freed_at_once(model))
    with Peak() as plain:
        model(**batch).loss.backward()
    for hook in hooks:
        hook.remove()
    # weights, Adam's two averages, the clipped gradient and the step's own two temporaries; and the random states
    assert probe.peak - plain.peak <= 6 * max(sizes) + 32 * 1024
    assert 6 * max(sizes) < 0.15 * sum(sizes)


def test_invalid_arguments_are_named(model: PreTrainedModel, batch: Batch) -> None:
    optimizer = torch.optim.AdamW(model.parameters())
    with pytest.raises(ValueError, match="labels"):
        importance(model, {"input_ids": batch["input_ids"]}, optimizer)
    with pytest.raises(ValueError, match="metric is one of"):
        importance(model, batch, optimizer, metric="loss")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="holds no parameter"):
        importance(model, batch, torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))]))
    with pytest.raises(ValueError, match="no tensor named first, second"):
        importance(model, batch, optimizer, names=["second", "first"])
    with pytest.raises(ValueError, match="names is empty"):
        importance(model, batch, optimizer, names=[])
    with pytest.raises(ValueError, match="no batch"):
        importance(model, [], optimizer)
    with pytest.raises(ValueError, match="max_grad_norm is 0"):
        importance(model, batch, optimizer, max_grad_norm=0.0)
    with torch.no_grad():
        next(iter(model.parameters())).fill_(float("nan"))
    with pytest.raises(NotFinite, match="loss is nan"):
        importance(model, batch, optimizer)


@pytest.mark.gpu
def test_the_random_state_of_the_gpu_is_kept(batch: Batch) -> None:
    model = tiny_opt(dropout=0.2).to("cuda").train()  # type: ignore[arg-type]
    on_gpu = {key: value.to("cuda") for key, value in batch.items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    before, state = everything(model, optimizer), torch.cuda.get_rng_state()
    with counting_passes(model) as passes:
        found = [importance(model, on_gpu, optimizer, max_grad_norm=0.05) for _ in range(2)]
    assert found[0] == pytest.approx(found[1], rel=1e-4)
    assert len(passes) == 4
    assert torch.equal(torch.cuda.get_rng_state(), state)
    assert everything(model, optimizer) == before
