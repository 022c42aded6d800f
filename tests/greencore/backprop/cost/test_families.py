"""Profiles of every model family, attention and mode against the operators of real steps."""

import random
from collections.abc import Sequence
from functools import cache

import peft
import pytest
import torch
from transformers import PreTrainedModel

from benchmarks.training.families import EAGER_ONLY, FAMILIES, build_family_model
from greencore.backprop import Profile, profile
from tests.greencore.backprop.executed import Batch, OperatorFlopCounter, count_executed_flops, count_torch_flops

ATTENTION = [
    (name, attention) for name in FAMILIES for attention in ("eager", "sdpa") if (name, attention) not in
    {(eager, "sdpa") for eager in EAGER_ONLY}
]  # fmt: skip
MODES = ["trained", "checkpointed", "checkpointed from frozen embeddings"]
# Every family trained with every attention, and in each mode of checkpointing: with the two attentions in turn.
CASES = [
    *((name, attention, "trained") for name, attention in ATTENTION),
    *((name, "eager", "checkpointed") for name in FAMILIES),
    *((name, "eager" if name in EAGER_ONLY else "sdpa", "checkpointed from frozen embeddings") for name in FAMILIES),
]


def built(name: str, attention: str, mode: str = "evaluated") -> PreTrainedModel:
    """The tiny model in one of `MODES`.

    transformers' checkpointing makes the embeddings pass gradients on, whatever is trained; without that, a step stops
    at the deepest trained tensor.
    """
    torch.manual_seed(0)
    model = build_family_model(name, attention)
    model.config.use_cache = False
    model.train(mode != "evaluated")
    if mode.startswith("checkpointed"):
        model.activation_checkpointing_enable()
    if mode == "checkpointed":
        model.disable_input_require_grads()
    return model


@cache
def profile_built(name: str, attention: str, mode: str = "evaluated") -> Profile:
    """Profile `built` at its `padded_batch`, once for the tests that compare it with something else."""
    model = built(name, attention, mode)
    return profile(model, padded_batch(model))


def padded_batch(model: PreTrainedModel, *, source: int = 12, target: int = 7) -> Batch:
    """Two rows, the second padded; an encoder-decoder's labels have a length of their own."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 96, (2, source), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, -3:] = 0
    labels = ids.clone()
    if model.config.is_encoder_decoder:
        labels = torch.randint(3, 96, (2, target), generator=generator)
    labels[1, -3:] = -100
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def selections(names: Sequence[str], *, random_ones: int) -> list[list[str]]:
    """Random selections of every size, and those that train one kind of tensor or branch alone."""
    draw = random.Random(5)
    kinds = [
        [name for name in names if name.endswith("bias")],
        [name for name in names if "norm" in name or "ln_" in name],
        [name for name in names if "embed" in name or "shared" in name or "wte" in name],
        [name for name in names if ".q_proj." in name or ".q." in name],
        [name for name in names if ".v_proj." in name or ".v." in name],
        [name for name in names if "EncDecAttention" in name or "encoder_attn" in name],
        [name for name in names if "relative_attention_bias" in name],
        [name for name in names if "experts" in name],
        [name for name in names if "router" in name or "gate.weight" in name],
    ]
    some = [draw.sample(names, draw.randint(1, 4)) for _ in range(random_ones)]
    deep = [[names[-1]], [names[-2]], names[-3:], [names[len(names) // 2]], draw.sample(names, len(names) // 2)]
    different = {frozenset(chosen): list(chosen) for chosen in [*kinds, *deep, *some, names] if chosen}
    return list(different.values())


def names_of(costs: Profile) -> list[str]:
    return [tensor.name for tensor in costs.tensors]


@pytest.mark.parametrize(("name", "attention"), ATTENTION)
def test_matmul_flops_equal_what_torch_counts(name: str, attention: str) -> None:
    """For a few selections: the next test has one for each kind of tensor, with the matmuls counted among others."""
    model = built(name, attention)
    batch = padded_batch(model)
    costs = profile_built(name, attention)
    names = names_of(costs)
    assert set(names) == {name for name, _ in model.named_parameters()}
    for chosen in (names, names[-1:], names[:1], names[::3]):
        assert costs.matmul_step_flops(chosen) == count_torch_flops(model, batch, chosen), chosen


@pytest.mark.parametrize(("name", "attention", "mode"), CASES)
def test_every_executed_operation_is_counted_for_any_selection(name: str, attention: str, mode: str) -> None:
    model = built(name, attention, mode)
    batch = padded_batch(model)
    costs = profile_built(name, attention, mode)
    for chosen in selections(names_of(costs), random_ones=3):
        executed = count_executed_flops(model, batch, chosen)
        assert costs.matmul_step_flops(chosen) == executed.counted, chosen
        assert costs.product_step_flops(chosen) == executed.products, chosen
        assert costs.step_flops(chosen) == executed.total, chosen
        assert costs.elementwise_step_flops(chosen) == executed.total - executed.products


@pytest.mark.parametrize(("name", "attention"), ATTENTION)
def test_every_operator_without_flops_only_moves_data(name: str, attention: str) -> None:
    model = built(name, attention, "trained")
    executed = OperatorFlopCounter(torch.Size())
    with executed:
        model(**padded_batch(model)).loss.backward()
    assert executed.unlisted == set()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_on_the_meta_device_costs_what_it_costs_in_memory(name: str) -> None:
    """With eager attention: a fused one has another kernel on each device."""
    here = built(name, "eager", "trained")
    with torch.device("meta"):
        there = built(name, "eager", "trained")
        batch = {key: torch.empty_like(value, device="meta") for key, value in padded_batch(here).items()}
    assert profile(there, batch) == profile_built(name, "eager", "trained")


@pytest.mark.parametrize("name", ["opt", "t5", "llama", "gemma3", "mixtral"])
def test_half_precision_multiplies_the_same_matrices(name: str) -> None:
    model = built(name, "sdpa").bfloat16()
    batch = padded_batch(model)
    costs, in_full = profile(model, batch), profile_built(name, "sdpa")
    for chosen in selections(names_of(costs), random_ones=2):
        assert costs.matmul_step_flops(chosen) == count_torch_flops(model, batch, chosen)
        assert costs.product_step_flops(chosen) == in_full.product_step_flops(chosen)


@pytest.mark.parametrize(("name", "attention"), [("t5", "eager"), ("flan-t5", "sdpa"), ("bart", "sdpa")])
def test_encoder_and_decoder_are_counted_at_their_own_lengths(name: str, attention: str) -> None:
    model = built(name, attention)
    everything = [name for name, _ in model.named_parameters()]
    for source, target in [(6, 15), (15, 6), (9, 9)]:
        batch = padded_batch(model, source=source, target=target)
        assert profile(model, batch).matmul_step_flops(everything) == count_torch_flops(model, batch, everything)


@pytest.mark.parametrize(("name", "mode"), [("t5", "evaluated"), ("flan-t5", "trained"), ("flan-t5", "checkpointed")])
def test_the_cost_without_conditional_flops_is_an_upper_bound(name: str, mode: str) -> None:
    costs = profile_built(name, "sdpa", mode)
    assert costs.conditional
    for chosen in selections(names_of(costs), random_ones=40):
        mask = costs.mask(chosen)
        own = sum(flops for index, flops in enumerate(costs.exclusive) if mask >> index & 1)
        plain = costs.forward_flops + own + sum(cost.flops for cost in costs.shared if cost.needed_by & mask)
        assert costs.step_flops(chosen) <= plain <= 1.05 * costs.step_flops(chosen)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft's own call
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("adapter", ["lora", "prefix"])
def test_adapters_alone_can_be_profiled(adapter: str, attention: str) -> None:
    model = built("llama", attention, "trained")
    config: peft.PeftConfig = (
        peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "v_proj"])
        if adapter == "lora"
        else peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5)
    )
    adapted = peft.get_peft_model(model, config)
    names = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    batch = padded_batch(model)
    weights = list(adapted.parameters())
    costs = profile(adapted, batch, names=names)
    assert all(before is after for before, after in zip(weights, adapted.parameters(), strict=True))
    assert costs.full_flops == costs.step_flops(names)
    for chosen in [names, names[:1], names[-1:], names[::3]]:
        assert costs.matmul_step_flops(chosen) == count_torch_flops(adapted, batch, chosen)
        assert costs.step_flops(chosen) == count_executed_flops(adapted, batch, chosen).total
