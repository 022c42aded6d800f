"""Importance against its naive definition."""

from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    PreTrainedModel,
)

from greencore.backprop import NotFinite, importance
from greencore.backprop.importance import BatchParts
from greencore.settings.method_settings import Metric
from tests.greencore.backprop.probes import (
    FAMILIAR,
    OPTIMIZERS,
    PRECISIONS,
    Batch,
    approx_values,
    build_mid_run_optimizer,
    counting_passes,
    in_precision,
    make_batch_like,
    reference_importance,
    tiny_opt,
    tiny_t5,
)


@pytest.fixture(params=FAMILIAR)
def optimizer(request: pytest.FixtureRequest, model: PreTrainedModel, batch: Batch) -> torch.optim.Optimizer:
    return build_mid_run_optimizer(FAMILIAR[request.param], model, batch)


def test_every_metric_equals_its_naive_definition(
    model: PreTrainedModel, batch: Batch, optimizer: torch.optim.Optimizer
) -> None:
    model.eval()
    expected = reference_importance(model, batch, optimizer)
    for metric in get_args(Metric):
        found = importance(model, batch, optimizer, metric=metric)
        assert found == approx_values(expected[metric])


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(
    ("build", "precision"), [*((tiny_opt, precision) for precision in PRECISIONS), (tiny_t5, "float32")]
)
def test_every_optimizer_and_precision_equals_the_definition(
    build: Callable[[], PreTrainedModel], name: str, precision: str, batch: Batch
) -> None:
    model = in_precision(build(), precision)
    optimizer = build_mid_run_optimizer(OPTIMIZERS[name], model, batch)
    expected = reference_importance(model, batch, optimizer)
    for metric in get_args(Metric):
        assert importance(model, batch, optimizer, metric=metric) == approx_values(expected[metric])


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["adamw", "adamw-fused", "adamw-groups", "sgd", "adafactor-torch", "adafactor"])
def test_clipping_is_that_of_the_norm_over_all_tensors(name: str, precision: str, batch: Batch) -> None:
    model = in_precision(tiny_opt(dropout=0.1), precision)
    optimizer = build_mid_run_optimizer(OPTIMIZERS[name], model, batch)
    torch.manual_seed(7)
    expected = reference_importance(model, batch, optimizer, max_grad_norm=0.05)
    for metric in get_args(Metric):
        torch.manual_seed(7)
        with counting_passes(model) as passes:
            found = importance(model, batch, optimizer, metric, max_grad_norm=0.05)
        assert found == approx_values(expected[metric])
        assert len(passes) == (1 if metric == "grad" else 2)


class Turning(torch.optim.SGD):
    """An optimiser whose step has matrix products, which autocast would round."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.ndim == 2:
                    parameter.grad = parameter.grad @ torch.eye(parameter.shape[1]).flip(0)
        super().step(closure)


def test_only_the_forward_pass_runs_under_the_callers_autocast(batch: Batch) -> None:
    model = tiny_opt()
    optimizer = Turning(model.parameters(), lr=1e-2)
    upper = [name for name, _ in model.named_parameters() if ".layers.1." in name]
    with torch.autocast("cpu", torch.bfloat16):
        model(**batch)  # leaves casts of trainable weights in autocast's cache
        with FlopCounterMode(display=False) as counted:
            found = importance(model, batch, optimizer, names=upper, max_grad_norm=0.05)
        model.requires_grad_(False)
        assert not model(**batch).loss.requires_grad
    in_precision(model, "autocast")
    with FlopCounterMode(display=False) as expected:
        assert importance(model, batch, optimizer, names=upper, max_grad_norm=0.05) == found
    assert counted.get_total_flops() == expected.get_total_flops()


def test_gradients_within_the_norm_are_not_clipped(model: PreTrainedModel, batch: Batch) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    with counting_passes(model) as passes:
        found = importance(model, batch, optimizer, max_grad_norm=1e6)
    assert len(passes) == 1
    assert found == importance(model, batch, optimizer)


def test_several_batches_give_the_mean_of_their_own(model: PreTrainedModel, batch: Batch) -> None:
    model.eval()
    optimizer = build_mid_run_optimizer(OPTIMIZERS["adamw"], model, batch)
    batches = [batch, make_batch_like(batch), make_batch_like(batch, seed=3)]
    each = [importance(model, one, optimizer) for one in batches]
    with counting_passes(model) as passes:
        found = importance(model, batches, optimizer)
    assert found == pytest.approx({name: sum(one[name] for one in each) / 3 for name in each[0]}, rel=1e-9)
    assert len(passes) == 3


@pytest.mark.parametrize("clip", [None, 0.01])
def test_a_batch_in_parts_gives_the_importance_of_the_whole(
    model: PreTrainedModel, batch: Batch, clip: float | None
) -> None:
    model.eval()
    batch["labels"][0, :8] = -100  # the first row has 4 learned tokens, the second 11
    optimizer = build_mid_run_optimizer(OPTIMIZERS["adamw"], model, batch)
    parts = [{key: value[row : row + 1] for key, value in batch.items()} for row in range(2)]
    unlearned = {**parts[0], "labels": torch.full_like(parts[0]["labels"], -100)}
    in_parts = BatchParts([*parts, unlearned], [4 / 15, 11 / 15, 0.0])
    weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for metric in get_args(Metric):
        whole = importance(model, batch, optimizer, metric, max_grad_norm=clip)
        found = importance(model, [in_parts], optimizer, metric, max_grad_norm=clip)
        assert found == pytest.approx(whole, rel=1e-3, abs=1e-6 * max(map(abs, whole.values())))
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(weights[name], parameter) for name, parameter in model.named_parameters())


def test_named_tensors_alone_are_measured_and_the_backward_pass_ends_at_the_deepest(
    model: PreTrainedModel, batch: Batch
) -> None:
    model.eval()
    optimizer = build_mid_run_optimizer(OPTIMIZERS["adamw"], model, batch)
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
    expected = reference_importance(model, batch, optimizer)["dw_grad"]
    found = importance(model, batch, optimizer)
    assert found.keys() == dict(model.named_parameters()).keys()
    assert found["shared.weight"] == pytest.approx(expected["shared.weight"], rel=1e-4)


def test_tensors_without_a_part_in_the_loss_have_zero_importance(batch: Batch) -> None:
    model = tiny_opt()
    model.spare = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    assert importance(model, batch, optimizer)["spare.weight"] == 0.0
    assert importance(model, batch, optimizer, names=["spare.weight"]) == {"spare.weight": 0.0}


def test_a_scaled_loss_gives_the_same_and_its_overflow_is_named(batch: Batch) -> None:
    model = tiny_opt()
    optimizer = build_mid_run_optimizer(OPTIMIZERS["adamw"], model, batch)
    free = importance(model, batch, optimizer, max_grad_norm=0.05)
    assert importance(model, batch, optimizer, max_grad_norm=0.05, loss_scale=2.0**16) == free
    with pytest.raises(NotFinite, match=r"gradient's norm of \S+ is (inf|nan) at a loss scale of 1e\+38"):
        importance(
            model, batch, build_mid_run_optimizer(OPTIMIZERS["rprop"], model, batch), metric="dw", loss_scale=1e38
        )


def test_averaged_gradients_are_what_the_step_sees(batch: Batch) -> None:
    """Two processes with half a batch each find what one process finds on the whole."""
    model = tiny_opt()
    optimizer = build_mid_run_optimizer(OPTIMIZERS["adamw"], model, batch)
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


def test_with_averaging_a_nan_loss_raises_only_after_all_gradients(batch: Batch) -> None:
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
