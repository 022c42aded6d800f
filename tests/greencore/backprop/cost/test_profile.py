"""Profiles against the operators of a real step."""

import gc
import random
import time
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor
from transformers import PreTrainedModel, T5Config, T5ForConditionalGeneration
from transformers.utils.generic import ModelOutput

from greencore.backprop import Profile, TraceError, profile
from tests.greencore.backprop.executed import Batch, count_torch_flops


def test_matmul_flops_equal_what_torch_counts_for_any_selection(
    model: PreTrainedModel, batch: Batch, costs: Profile
) -> None:
    names = [tensor.name for tensor in costs.tensors]
    unpadded = batch | {"attention_mask": torch.ones_like(batch["input_ids"])}
    draw = random.Random(3)
    for size in [1, 1, 1, 1, 2, 2, 3, 5, 9, len(names)]:
        chosen = set(draw.sample(names, size))
        assert costs.matmul_step_flops(chosen) == count_torch_flops(model, unpadded, chosen)


def test_training_everything_costs_forward_and_all_gradients(costs: Profile) -> None:
    everything = [tensor.name for tensor in costs.tensors]
    assert costs.step_flops(everything) == costs.full_flops
    assert costs.step_flops([]) == costs.forward_flops
    assert 2.7 < costs.full_flops / costs.forward_flops < 3.1


def test_tensors_run_from_the_output_to_the_input(costs: Profile) -> None:
    layers = [int(part) for t in costs.tensors for part in t.name.split(".") if part.isdigit()]
    assert layers == sorted(layers, reverse=True)
    assert costs.tensors[-1].name.endswith("embed_tokens.weight")


def test_the_cost_of_the_topmost_tensors_is_that_of_equation_5(costs: Profile) -> None:
    """Eq. 5: forward, each t_dw, and t_dy of all tensors above the deepest one."""
    head = costs.step_flops([costs.tensors[0].name]) - costs.forward_flops - costs.tensors[0].t_dw
    for depth in range(1, len(costs.tensors) + 1):
        top = costs.tensors[:depth]
        modelled = costs.forward_flops + head + sum(t.t_dw for t in top) + sum(t.t_dy for t in top[:-1])
        assert costs.step_flops([t.name for t in top]) == pytest.approx(modelled)


def test_biases_and_norms_cost_no_matrix_product(costs: Profile) -> None:
    projection = max(tensor.t_dw for tensor in costs.tensors)
    small = [t for t in costs.tensors if "norm" in t.name or t.name.endswith("bias")]
    assert small
    assert all(0 < t.t_dw < projection / 5 for t in small)


ROWS, SCORES = 2 * 12, 2 * 4 * 12 * 12  # of `batch`: tokens, and attention scores of four heads
PROJECTION, NARROW = 2 * ROWS * 32 * 32, 2 * ROWS * 32 * 16  # Llama's W_Q and W_O; W_K and W_V with half the heads
ATTENTION = 2 * SCORES * 8  # one of attention's products


def layer_0(costs: Profile, *parts: str) -> int:
    """Matrix products of a step that trains these parts of Llama's deepest layer."""
    return costs.product_step_flops([f"model.layers.0.{part}.weight" for part in parts])


@pytest.mark.parametrize("family", ["llama-eager"], indirect=True)
def test_queries_keys_and_values_are_branches(costs: Profile) -> None:
    output = layer_0(costs, "self_attn.o_proj") - PROJECTION  # with its own gradient left out
    carried = output + PROJECTION  # and with the gradient that goes down through it
    queries, keys, values = (f"self_attn.{kind}_proj" for kind in "qkv")
    assert layer_0(costs, values) == carried + ATTENTION + NARROW  # Pᵀ·dO
    assert layer_0(costs, queries) == carried + 2 * ATTENTION + PROJECTION  # dO·Vᵀ and dS·K
    assert layer_0(costs, keys) == carried + 2 * ATTENTION + NARROW  # dO·Vᵀ and dSᵀ·Q
    assert layer_0(costs, queries, keys) == carried + 3 * ATTENTION + PROJECTION + NARROW
    assert layer_0(costs, queries, keys, values) == carried + 4 * ATTENTION + PROJECTION + 2 * NARROW


@pytest.mark.parametrize("family", ["llama-eager"], indirect=True)
def test_values_alone_need_no_gradient_of_the_softmax(costs: Profile) -> None:
    def elementwise(part: str) -> int:
        return costs.elementwise_step_flops([f"model.layers.0.self_attn.{part}_proj.weight"])

    assert elementwise("v") - elementwise("o") < SCORES
    assert elementwise("q") - elementwise("o") >= 4 * SCORES


@pytest.mark.parametrize("family", ["llama-eager"], indirect=True)
def test_the_deepest_tensor_passes_no_gradient_on(costs: Profile) -> None:
    branches = [f"self_attn.{kind}_proj" for kind in "qkv"]
    with_norm = layer_0(costs, *branches, "input_layernorm") - layer_0(costs, *branches)
    assert with_norm == PROJECTION + 2 * NARROW  # the input gradients of all three
    assert costs.tensors[-1].t_dy == 0
    embeddings = costs.step_flops([costs.tensors[-1].name])
    assert embeddings > costs.step_flops(["model.layers.0.input_layernorm.weight"])


@pytest.mark.parametrize("family", ["llama-tied"], indirect=True)
def test_tied_embeddings_are_charged_down_to_the_input(costs: Profile) -> None:
    tied, rest = costs.tensors[-1], costs.tensors[:-1]
    assert tied.name == "model.embed_tokens.weight"
    assert costs.full_flops - costs.step_flops([tied.name]) == sum(tensor.t_dw for tensor in rest)
    assert 0 <= tied.t_dw - 2 * ROWS * 32 * 96 < 0.1 * tied.t_dw  # beside it, the first normalisation's input gradient


def test_product_and_elementwise_flops_add_up_to_the_step(costs: Profile) -> None:
    names = [tensor.name for tensor in costs.tensors]
    norms = [name for name in names if "norm" in name]
    for chosen in ([], norms, names):
        elementwise = costs.elementwise_step_flops(chosen)
        assert costs.product_step_flops(chosen) + elementwise == costs.step_flops(chosen)
        assert 0 < elementwise < 0.3 * costs.step_flops(chosen)
        assert costs.matmul_step_flops(chosen) <= costs.product_step_flops(chosen)
    above_all = costs.product_step_flops(norms[:1]) - costs.product_step_flops([])
    assert above_all == 2 * ROWS * 32 * 96  # a norm's own gradient takes no product: this one carries the head's


def test_the_floor_is_the_cheapest_tensor(costs: Profile) -> None:
    cheapest = min(costs.step_flops([t.name]) for t in costs.tensors)
    assert cheapest <= costs.floor * costs.full_flops < cheapest + 1
    assert 1 / 3 < costs.floor < 0.6


def test_profiling_leaves_the_model_unchanged(model: PreTrainedModel, batch: Batch) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    flags = [parameter.requires_grad for parameter in model.parameters()]
    random_state = torch.get_rng_state()
    profile(model, batch)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), random_state)


def test_only_named_tensors_count_as_trainable(model: PreTrainedModel, batch: Batch) -> None:
    names = [name for name, _ in model.named_parameters() if "layers.2" in name]
    costs = profile(model, batch, names=names)
    assert {tensor.name for tensor in costs.tensors} == set(names)
    assert costs.full_flops == costs.step_flops(names)


def test_invalid_arguments_are_named(model: PreTrainedModel, batch: Batch) -> None:
    with pytest.raises(TraceError, match="labels"):
        profile(model, {"input_ids": batch["input_ids"]})
    with pytest.raises(TraceError, match="no parameter named wrong"):
        profile(model, batch, names=["wrong"])
    with pytest.raises(TraceError, match="no trainable tensor"):
        profile(torch.nn.Dropout(), batch)
    with pytest.raises(TraceError, match=r"cannot be traced.*ValueError.*arguments that it trains with"):
        profile(model, batch | {"labels": torch.zeros(2, 5, dtype=torch.long)})
    with pytest.raises(TraceError, match="returns no loss"):
        profile(Reading("ids"), batch | {"labels": torch.zeros(1)}, names=["unused"])
    with pytest.raises(KeyError, match="wrong"):
        profile(model, batch).step_flops(["wrong"])


def test_a_model_of_hundreds_of_tensors_is_profiled_in_seconds() -> None:
    settings: dict[str, Any] = {"tie_word_embeddings": False, "decoder_start_token_id": 0}
    config = T5Config(
        **settings,
        d_model=2048,
        d_kv=64,
        d_ff=5120,
        num_layers=24,
        num_heads=32,
        feed_forward_proj="gated-gelu",
    )
    with torch.device("meta"):
        model = T5ForConditionalGeneration(config)
    ids = torch.zeros(4, 512, dtype=torch.long, device="meta")
    start = time.process_time()
    costs = profile(model, {"input_ids": ids, "labels": ids})
    assert time.process_time() - start < 15
    assert len(costs.tensors) == 557


class Reading(torch.nn.Module):
    """A model that reads values, of its mask or of its ids."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what
        self.used = torch.nn.Linear(8, 8)
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(
        self, input_ids: torch.Tensor, labels: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> ModelOutput:
        read = attention_mask if self.what == "mask" else input_ids if labels.dim() == 2 else None
        if read is not None and not bool(read.all()):
            return ModelOutput(loss=None)
        return ModelOutput(loss=self.used(input_ids[..., :8].float()).sum())


def test_a_model_that_reads_its_mask_is_traced_without_one(batch: Batch) -> None:
    masked = batch | {"attention_mask": torch.ones_like(batch["input_ids"])}
    costs = profile(Reading("mask"), masked)
    assert costs.product_step_flops([]) == 2 * 2 * 8 * 8
    assert {tensor.name for tensor in costs.tensors} == {"used.weight", "used.bias"}


def test_a_model_that_reads_its_input_cannot_be_traced(batch: Batch) -> None:
    with pytest.raises(TraceError, match="Reading cannot be traced on tensors without data"):
        profile(Reading("ids"), batch)


def test_a_trace_leaves_nothing_behind(model: PreTrainedModel, batch: Batch) -> None:
    def count_fakes() -> int:
        gc.collect()
        return sum(type(each) is FakeTensor for each in gc.get_objects())

    before = count_fakes()
    profile(model, batch)
    assert count_fakes() == before
