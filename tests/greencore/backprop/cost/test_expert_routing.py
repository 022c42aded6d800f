"""FLOPs of mixtures of experts: tokens × experts per token, in every implementation."""

import pytest
import torch
from transformers import PreTrainedModel

from benchmarks.training.families import build_family_model
from greencore.backprop import Profile, profile
from tests.greencore.backprop.executed import Batch, count_executed_flops, count_torch_flops


@pytest.fixture
def model() -> PreTrainedModel:
    torch.manual_seed(0)
    model = build_family_model("mixtral", "eager")
    model.eval()
    return model


@pytest.fixture
def batch() -> Batch:
    ids = torch.randint(3, 96, (2, 12), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, :3] = 0
    return {"input_ids": ids, "labels": ids, "attention_mask": mask}


def selections(costs: Profile) -> list[list[str]]:
    names = [tensor.name for tensor in costs.tensors]
    experts = [name for name in names if "experts" in name]
    return [names, experts, experts[-1:], experts[-2:-1], names[-1:], [name for name in names if "gate.weight" in name]]


@pytest.mark.parametrize("implementation", ["grouped_mm", "batched_mm", "eager"])
def test_every_implementation_costs_what_torch_counts_of_it(
    model: PreTrainedModel, batch: Batch, implementation: str
) -> None:
    model.set_experts_implementation(implementation)
    costs = profile(model, batch)
    for chosen in selections(costs):
        assert costs.matmul_step_flops(chosen) == count_torch_flops(model, batch, chosen)
        assert costs.product_step_flops(chosen) == count_executed_flops(model, batch, chosen).products


def test_all_implementations_multiply_the_same(model: PreTrainedModel, batch: Batch) -> None:
    products = []
    for implementation in ("grouped_mm", "batched_mm", "eager"):
        model.set_experts_implementation(implementation)
        costs = profile(model, batch)
        products.append([costs.product_step_flops(chosen) for chosen in selections(costs)])
    assert products[0] == products[1] == products[2]


def test_experts_cost_tokens_times_experts_per_token(model: PreTrainedModel, batch: Batch) -> None:
    costs = profile(model, batch)
    last = next(tensor for tensor in costs.tensors if "experts.down_proj" in tensor.name)
    assert last.t_dw == 2 * (batch["input_ids"].numel() * 2) * 80 * 32


def test_the_experts_implementation_is_restored(model: PreTrainedModel, batch: Batch) -> None:
    model.set_experts_implementation("eager")
    profile(model, batch)
    assert model.get_experts_implementation() == {"": "eager"}


def test_experts_in_half_precision_and_without_memory_cost_the_same(model: PreTrainedModel, batch: Batch) -> None:
    expected = profile(model, batch)
    with torch.device("meta"):
        there = build_family_model("mixtral", "eager")
    there.eval()
    elsewhere = {key: value.to("meta") for key, value in batch.items()}
    assert profile(there, elsewhere) == expected
    in_half = profile(there.bfloat16(), elsewhere)
    assert [in_half.product_step_flops(chosen) for chosen in selections(expected)] == [
        expected.product_step_flops(chosen) for chosen in selections(expected)
    ]
