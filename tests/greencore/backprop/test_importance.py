"""Importance against its naive definition, how it may be asked for, and what it must leave alone."""

import copy
import random
import weakref
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.optimization import Adafactor

from greencore.backprop import NotFinite, importance
from greencore.backprop.importance import Measured, Metric, measure

Batch = dict[str, torch.Tensor]
Optimizers = dict[str, Callable[[PreTrainedModel], torch.optim.Optimizer]]


def in_two_groups(model: PreTrainedModel) -> list[dict[str, Any]]:
    """Matrices with weight decay and a learning rate of their own, as trainers arrange them."""
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


def another(batch: Batch, seed: int = 2, shape: tuple[int, int] = (3, 9)) -> Batch:
    ids = torch.randint(3, 96, shape, generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids, "labels": ids.clone()}


def mid_run(
    make: Callable[[PreTrainedModel], torch.optim.Optimizer], model: PreTrainedModel, batch: Batch
) -> torch.optim.Optimizer:
    """An optimiser in mid-run: two steps taken, a learning rate that a schedule has changed."""
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


@pytest.fixture(params=FAMILIAR)
def optimizer(request: pytest.FixtureRequest, model: PreTrainedModel, batch: Batch) -> torch.optim.Optimizer:
    return mid_run(FAMILIAR[request.param], model, batch)


def copied_gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def naive(
    model: PreTrainedModel, batch: Batch, optimizer: torch.optim.Optimizer, max_grad_norm: float | None = None
) -> dict[str, dict[str, float]]:
    """Cache the weights, step, take the difference, restore: the paper's definition, word for word."""
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


def close(values: dict[str, float]) -> Any:
    return pytest.approx(values, rel=1e-4, abs=1e-9)


def test_every_metric_equals_its_naive_definition(
    model: PreTrainedModel, batch: Batch, optimizer: torch.optim.Optimizer
) -> None:
    model.eval()
    expected = naive(model, batch, optimizer)
    for metric in get_args(Metric):
        found = importance(model, batch, optimizer, metric=metric)
        assert found == close(expected[metric])


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(
    ("build", "precision"), [*((tiny_opt, precision) for precision in PRECISIONS), (tiny_t5, "float32")]
)
def test_every_optimizer_and_precision_equals_the_definition(
    build: Callable[[], PreTrainedModel], name: str, precision: str, batch: Batch
) -> None:
    model = in_precision(build(), precision)
    optimizer = mid_run(OPTIMIZERS[name], model, batch)
    expected = naive(model, batch, optimizer)
    for metric in get_args(Metric):
        assert importance(model, batch, optimizer, metric=metric) == close(expected[metric])


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["adamw", "adamw-fused", "adamw-groups", "sgd", "adafactor-torch", "adafactor"])
def test_clipping_is_that_of_the_norm_over_all_tensors(name: str, precision: str, batch: Batch) -> None:
    model = in_precision(tiny_opt(dropout=0.1), precision)
    optimizer = mid_run(OPTIMIZERS[name], model, batch)
    torch.manual_seed(7)
    expected = naive(model, batch, optimizer, max_grad_norm=0.05)
    for metric in get_args(Metric):
        torch.manual_seed(7)
        found = measure(model, batch, optimizer, metric, max_grad_norm=0.05)
        assert found.values == close(expected[metric])
        assert found.passes == ((1,) if metric == "grad" else (2,))


class Turning(torch.optim.SGD):
    """Its step is made of matrix products, which autocast would round."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.ndim == 2:
                    parameter.grad = parameter.grad @ torch.eye(parameter.shape[1]).flip(0)
        super().step(closure)


def test_the_forward_pass_alone_is_under_the_autocast_that_the_caller_has_set(batch: Batch) -> None:
    model = tiny_opt()
    optimizer = Turning(model.parameters(), lr=1e-2)
    upper = [name for name, _ in model.named_parameters() if ".layers.1." in name]
    with torch.autocast("cpu", torch.bfloat16):
        model(**batch)  # leaves casts of trainable weights in autocast's cache
        with FlopCounterMode(display=False) as counted:
            found = measure(model, batch, optimizer, names=upper, max_grad_norm=0.05)
        model.requires_grad_(False)
        assert not model(**batch).loss.requires_grad
    in_precision(model, "autocast")
    with FlopCounterMode(display=False) as expected:
        assert measure(model, batch, optimizer, names=upper, max_grad_norm=0.05) == found
    assert counted.get_total_flops() == expected.get_total_flops()


def test_gradients_within_the_norm_are_not_clipped(model: PreTrainedModel, batch: Batch) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    assert measure(model, batch, optimizer, max_grad_norm=1e6) == Measured(importance(model, batch, optimizer), (1,))


def test_several_batches_give_the_mean_of_their_own(model: PreTrainedModel, batch: Batch) -> None:
    model.eval()
    optimizer = mid_run(OPTIMIZERS["adamw"], model, batch)
    batches = [batch, another(batch), another(batch, seed=3)]
    each = [importance(model, one, optimizer) for one in batches]
    found = measure(model, batches, optimizer)
    assert found.values == pytest.approx({name: sum(one[name] for one in each) / 3 for name in each[0]}, rel=1e-9)
    assert found.passes == (1, 1, 1)


def test_named_tensors_alone_are_measured_and_the_backward_pass_ends_at_the_deepest(
    model: PreTrainedModel, batch: Batch
) -> None:
    model.eval()
    optimizer = mid_run(OPTIMIZERS["adamw"], model, batch)
    upper = [name for name, _ in model.named_parameters() if ".layers.2." in name]
    with FlopCounterMode(display=False) as everything:
        full = importance(model, batch, optimizer)
    with FlopCounterMode(display=False) as early:
        found = importance(model, batch, optimizer, names=upper)
    assert list(found) == upper
    assert found == pytest.approx({name: full[name] for name in upper}, rel=1e-6)
    assert early.get_total_flops() < 0.75 * everything.get_total_flops()


def test_a_tied_tensor_has_the_gradient_of_both_its_uses(batch: Batch) -> None:
    model = tiny_t5()
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    expected = naive(model, batch, optimizer)["dw_grad"]
    found = importance(model, batch, optimizer)
    assert found.keys() == dict(model.named_parameters()).keys()
    assert found["shared.weight"] == pytest.approx(expected["shared.weight"], rel=1e-4)


def test_tensors_without_a_part_in_the_loss_have_no_importance(batch: Batch) -> None:
    model = tiny_opt()
    model.spare = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    assert importance(model, batch, optimizer)["spare.weight"] == 0.0
    assert importance(model, batch, optimizer, names=["spare.weight"]) == {"spare.weight": 0.0}


def test_a_scaled_loss_gives_the_same_and_its_overflow_is_named(batch: Batch) -> None:
    model = tiny_opt()
    optimizer = mid_run(OPTIMIZERS["adamw"], model, batch)
    free = measure(model, batch, optimizer, max_grad_norm=0.05)
    assert measure(model, batch, optimizer, max_grad_norm=0.05, loss_scale=2.0**16) == free
    with pytest.raises(NotFinite, match=r"gradient's norm of \S+ is (inf|nan) at a loss scale of 1e\+38"):
        importance(model, batch, mid_run(OPTIMIZERS["rprop"], model, batch), metric="dw", loss_scale=1e38)


def test_averaged_gradients_are_what_the_step_sees(batch: Batch) -> None:
    """Two processes with half a batch each find what one process finds on the whole."""
    model = tiny_opt()
    optimizer = mid_run(OPTIMIZERS["adamw"], model, batch)
    halves = [{key: value[[row]] for key, value in batch.items()} for row in (0, 1)]
    other = list[torch.Tensor]()
    importance(model, halves[1], optimizer, average=lambda _, gradient: other.append(gradient.clone()))
    arrived = list[int]()

    def average(index: int, gradient: torch.Tensor) -> None:
        arrived.append(index)
        gradient.add_(other[(len(arrived) - 1) % len(other)]).div_(2)

    found = importance(model, [halves[0]], optimizer, max_grad_norm=0.05, average=average)
    assert found == pytest.approx(importance(model, batch, optimizer, max_grad_norm=0.05), rel=1e-3)
    assert arrived == [0] * 2 * len(found)


def test_one_process_does_not_stop_alone_at_a_loss_that_is_not_a_number(batch: Batch) -> None:
    model = tiny_opt()
    optimizer = torch.optim.AdamW(model.parameters())
    unlabelled = {**batch, "labels": torch.full_like(batch["labels"], -100)}
    with pytest.raises(NotFinite, match="loss is nan"):
        importance(model, unlabelled, optimizer)
    arrived = list[int]()

    def average(index: int, gradient: torch.Tensor) -> None:
        arrived.append(index)
        gradient.fill_(float("nan"))

    with pytest.raises(NotFinite, match=r"importance of \S+ is nan"):
        importance(model, unlabelled, optimizer, average=average)
    assert len(arrived) == len(list(model.parameters()))


def everything(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """All that a probe could leave changed, bit by bit."""
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
    """Dropout and running statistics on the way, one tensor frozen."""
    model = tiny_opt(dropout=0.2)
    decoder: Any = model.get_decoder()
    decoder.layers[0].fc2 = torch.nn.Sequential(decoder.layers[0].fc2, BatchNorm(32))
    next(iter(model.parameters())).requires_grad_(False)
    return model


class BatchNorm(torch.nn.BatchNorm1d):
    """Over the features of every token."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return super().forward(hidden.flatten(0, -2)).view_as(hidden)


class OnlyVectors(torch.optim.AdamW):
    """Finds out half-way, in mid-run, what it cannot do."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model.parameters(), lr=1e-3)
        self.steps = 0

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.steps += 1
        super().step(closure)
        if self.steps > 2 and any(parameter.ndim > 1 for parameter in self.param_groups[0]["params"]):
            raise RuntimeError("no matrices")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_probe_leaves_no_trace(with_statistics: PreTrainedModel, batch: Batch, name: str) -> None:
    model = with_statistics
    optimizer = mid_run(OPTIMIZERS[name], model, batch)
    model(**batch).loss.backward()
    before = everything(model, optimizer)
    measured = measure(model, [batch, another(batch)], optimizer, max_grad_norm=0.05)
    assert measured.passes == (2, 2)
    assert everything(model, optimizer) == before


def test_a_failing_probe_leaves_no_trace(with_statistics: PreTrainedModel, batch: Batch) -> None:
    model = with_statistics
    optimizer = mid_run(OPTIMIZERS["adamw"], model, batch)
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
    optimizer = mid_run(OnlyVectors, model, batch)
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


def test_a_warm_up_that_starts_at_zero_hides_nothing(model: PreTrainedModel, batch: Batch) -> None:
    model.eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    expected = importance(model, batch, optimizer)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 10)
    assert optimizer.param_groups[0]["lr"] == 0.0
    assert importance(model, batch, optimizer) == pytest.approx(expected)
    assert optimizer.param_groups[0]["lr"] == 0.0


def test_rotary_frequencies_that_grow_with_the_batch_are_those_of_before(batch: Batch) -> None:
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
    longer = another(batch, shape=(1, 40))
    before = copy.deepcopy(model)
    importance(model, longer, torch.optim.SGD(model.parameters(), lr=1e-2))
    assert torch.equal(model(**longer).logits, before(**longer).logits)
    assert torch.equal(model(**batch).logits, before(**batch).logits)


def test_recomputed_activations_give_the_same(batch: Batch) -> None:
    model = tiny_opt(dropout=0.1).train()
    optimizer = mid_run(OPTIMIZERS["adamw"], model, batch)
    upper = [name for name, _ in model.named_parameters() if ".layers.1." in name]
    torch.manual_seed(3)
    expected = [importance(model, batch, optimizer, names=names) for names in (None, upper)]
    model.activation_checkpointing_enable()
    torch.manual_seed(3)
    found = [importance(model, batch, optimizer, names=names) for names in (None, upper)]
    assert found[0] == pytest.approx(expected[0], rel=1e-6)
    assert found[1] == pytest.approx(expected[1], rel=1e-6)


class Shared(torch.nn.Module):
    """One layer used twice, each time under a checkpoint of its own."""

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
    """The most bytes of memory that lived at once among what was allocated inside."""

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
    optimizer = mid_run(OPTIMIZERS["adamw"], model, batch)
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


def test_faults_are_named(model: PreTrainedModel, batch: Batch) -> None:
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
    found = [measure(model, on_gpu, optimizer, max_grad_norm=0.05) for _ in range(2)]
    assert found[0].values == pytest.approx(found[1].values, rel=1e-4)
    assert found[0].passes == (2,)
    assert torch.equal(torch.cuda.get_rng_state(), state)
    assert everything(model, optimizer) == before
