"""FLOPs that gradient checkpointing adds, by the tensors that are trained."""

import pytest
import torch
from transformers import PreTrainedModel

from benchmarks.training.families import build_family_model
from greencore.backprop import Profile, profile
from tests.greencore.backprop.executed import Batch, count_torch_flops


def built(*, reentrant: bool = False, embeddings_pass_on: bool = False) -> PreTrainedModel:
    torch.manual_seed(0)
    model = build_family_model("llama", "eager")
    model.train()
    model.config.use_cache = False
    model.activation_checkpointing_enable({"use_reentrant": reentrant})
    if not embeddings_pass_on:
        model.disable_input_require_grads()
    return model


def plain() -> PreTrainedModel:
    model = build_family_model("llama", "eager")
    model.train()
    model.config.use_cache = False
    return model


def products(costs: Profile, names: list[str]) -> int:
    return costs.product_step_flops(names)


@pytest.fixture
def batch() -> Batch:
    ids = torch.randint(3, 96, (2, 12), generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "labels": ids, "attention_mask": torch.ones_like(ids)}


def test_only_blocks_that_a_gradient_passes_run_again(batch: Batch) -> None:
    kept, again = profile(plain(), batch), profile(built(), batch)
    above = ["lm_head.weight", "model.norm.weight"]
    assert products(again, above) == products(kept, above)
    extra = [
        products(again, names) - products(kept, names)
        for names in (
            [f"model.layers.{layer}.input_layernorm.weight" for layer in (2,)],
            ["model.layers.1.input_layernorm.weight"],
            ["model.layers.0.input_layernorm.weight"],
        )
    ]
    assert 0 < extra[0] < extra[1] < extra[2]
    assert extra[2] - extra[1] == extra[1] - extra[0] == extra[0]


def test_a_block_runs_again_only_up_to_the_last_tensor_that_it_saves(batch: Batch) -> None:
    kept, again = profile(plain(), batch), profile(built(), batch)
    down = ["model.layers.0.mlp.down_proj.weight"]
    block = products(kept, []) - 2 * batch["input_ids"].numel() * 32 * 96  # the forward pass, less the head
    last = 2 * batch["input_ids"].numel() * 32 * 80  # the product of down_proj, whose result nothing saves
    assert products(again, down) - products(kept, down) == block - 3 * last


def test_embeddings_with_gradients_make_every_selection_pay_the_whole_backward_pass(batch: Batch) -> None:
    costs = profile(built(embeddings_pass_on=True), batch)
    head, first = ["lm_head.weight"], ["model.layers.0.input_layernorm.weight"]
    assert products(costs, head) > products(profile(built(), batch), first)
    assert costs.matmul_step_flops(head) == count_torch_flops(built(embeddings_pass_on=True), batch, head)


def test_in_evaluation_nothing_runs_again(batch: Batch) -> None:
    assert profile(built().eval(), batch) == profile(plain().eval(), batch)


@pytest.mark.parametrize("names", [["lm_head.weight"], ["model.layers.1.mlp.up_proj.weight"], None])
def test_reentrant_blocks_run_again_as_a_whole(batch: Batch, names: list[str] | None) -> None:
    model = built(reentrant=True, embeddings_pass_on=True)
    costs = profile(model, batch)
    chosen = names or [tensor.name for tensor in costs.tensors]
    assert costs.matmul_step_flops(chosen) == count_torch_flops(model, batch, chosen)


def test_the_checkpointing_functions_are_restored(batch: Batch) -> None:
    model = built()
    functions = [module._gradient_checkpointing_func for module in model.model.layers]
    profile(model, batch)
    assert [module._gradient_checkpointing_func for module in model.model.layers] == functions
