"""Profiles against what a real step executes."""

import random

import pytest
import torch
from transformers import PreTrainedModel

from greencore.backprop import Profile, TraceError, profile
from tests.greencore.backprop.conftest import MODELS
from tests.greencore.backprop.executed import Batch, counted_step


def test_matmul_flops_equal_what_torch_counts_for_any_selection(
    model: PreTrainedModel, batch: Batch, costs: Profile
) -> None:
    names = [tensor.name for tensor in costs.tensors]
    unpadded = batch | {"attention_mask": torch.ones_like(batch["input_ids"])}
    draw = random.Random(3)
    for size in [1, 1, 1, 1, 2, 2, 3, 5, 9, len(names)]:
        chosen = set(draw.sample(names, size))
        assert costs.matmul_step_flops(chosen) == counted_step(model, unpadded, chosen)


@pytest.mark.parametrize("family", ["llama-eager", "opt-eager"], indirect=True)
def test_a_model_on_the_meta_device_costs_what_it_costs_in_memory(family: str, costs: Profile, batch: Batch) -> None:
    """With eager attention: a fused one has another kernel on each device."""
    with torch.device("meta"):
        there = profile(MODELS[family](), {key: value.to("meta") for key, value in batch.items()})
    assert there == costs


def test_training_everything_costs_forward_and_all_gradients(costs: Profile) -> None:
    everything = [tensor.name for tensor in costs.tensors]
    assert costs.step_flops(everything) == costs.full_flops
    assert costs.step_flops([]) == costs.forward_flops
    assert 2.7 < costs.full_flops / costs.forward_flops < 3.1


def test_tensors_run_from_the_output_to_the_input(costs: Profile) -> None:
    layers = [int(part) for t in costs.tensors for part in t.name.split(".") if part.isdigit()]
    assert layers == sorted(layers, reverse=True)
    assert costs.tensors[-1].name.endswith("embed_tokens.weight")


def test_costs_of_a_prefix_add_up_as_the_paper_says(costs: Profile) -> None:
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


def test_the_floor_is_the_cheapest_tensor(costs: Profile) -> None:
    cheapest = min(costs.step_flops([t.name]) for t in costs.tensors)
    assert cheapest <= costs.floor * costs.full_flops < cheapest + 1
    assert 1 / 3 < costs.floor < 0.6


def test_profiling_leaves_the_model_alone(model: PreTrainedModel, batch: Batch) -> None:
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


def test_faults_are_named(model: PreTrainedModel, batch: Batch) -> None:
    with pytest.raises(TraceError, match="labels"):
        profile(model, {"input_ids": batch["input_ids"]})
    with pytest.raises(TraceError, match="no parameter named wrong"):
        profile(model, batch, names=["wrong"])
    with pytest.raises(TraceError, match="no trainable tensor"):
        profile(torch.nn.Dropout(), batch)
    with pytest.raises(KeyError, match="wrong"):
        profile(model, batch).step_flops(["wrong"])
