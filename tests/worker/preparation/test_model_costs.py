"""Step costs of a model for the API: FLOPs of any row, and of a shuffled epoch."""

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, T5Config, T5ForConditionalGeneration

from greencore.backprop import profile
from greencore.training.methods.step_costs import StepCosts
from worker.preparation.model_costs import choose_reference_shapes, compute_lowest_floor, compute_row_costs


def build_decoder() -> PreTrainedModel:
    sizes: Any = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    with torch.device("meta"):
        return LlamaForCausalLM(LlamaConfig(vocab_size=96, **sizes))


def build_encoder_decoder() -> PreTrainedModel:
    sizes: Any = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}
    with torch.device("meta"):
        return T5ForConditionalGeneration(T5Config(vocab_size=96, **sizes))


@pytest.fixture(scope="module", params=[build_decoder, build_encoder_decoder], ids=["decoder", "encoder-decoder"])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    built: PreTrainedModel = request.param()
    return built


def make_batch(model: PreTrainedModel, rows: int, lengths: tuple[int, int], device: str) -> dict[str, torch.Tensor]:
    ids, second = (torch.zeros(rows, length, dtype=torch.long, device=device) for length in lengths)
    if model.config.is_encoder_decoder:
        return {"input_ids": ids, "labels": second}
    return {"input_ids": ids, "labels": ids, "logits_to_keep": second, "shift_labels": second}


def test_the_flops_of_any_row_follow_from_the_measured_terms(model: PreTrainedModel) -> None:
    shapes = choose_reference_shapes(model, None)
    costs = compute_row_costs(model, StepCosts(model, shapes), shapes)

    for rows, lengths in ((1, (40, 24)), (3, (200, 136)), (2, (1000, 400))):
        traced = profile(model.train(), make_batch(model, rows, lengths, "meta"))
        # What all rows of a batch share, such as T5's position bias, counts for something in so small a model.
        assert rows * costs.full_flops(*lengths) == pytest.approx(traced.full_flops, rel=3e-3)
        assert rows * costs.forward_flops(*lengths) == pytest.approx(traced.forward_flops, rel=3e-3)
    assert costs.has_encoder == model.config.is_encoder_decoder
    assert costs.logits == ("all" if costs.has_encoder else "learned")


def test_the_logits_of_all_positions_cost_as_many_as_there_are_tokens() -> None:
    model = build_decoder()
    shapes = choose_reference_shapes(model, None)
    costs = compute_row_costs(model, StepCosts(model, shapes), shapes)
    ids = torch.zeros(2, 96, dtype=torch.long, device="meta")

    traced = profile(model.train(), {"input_ids": ids, "labels": ids})

    assert 2 * costs.full_flops(96, 96) == pytest.approx(traced.full_flops, rel=3e-3)


def test_the_lowest_floor_is_that_of_long_rows_of_which_little_is_learned(model: PreTrainedModel) -> None:
    shapes = choose_reference_shapes(model, None)
    costs = StepCosts(model, shapes)
    floor = compute_lowest_floor(costs, shapes)
    if model.config.is_encoder_decoder:
        assert floor == costs.floor
    else:
        longest = profile(model.train(), make_batch(model, 4, (512, 8), "meta"))
        assert floor == pytest.approx(longest.floor, rel=1e-6)
        assert floor <= costs.floor


def test_a_model_of_few_positions_is_measured_within_them() -> None:
    shapes = choose_reference_shapes(build_decoder(), 20)
    assert (shapes.shortest, shapes.longest) == ((10, 8), (20, 20))


def test_each_method_has_its_share_or_the_reason_why_it_has_none(model: PreTrainedModel) -> None:
    shapes = choose_reference_shapes(model, None)

    methods = compute_row_costs(model, StepCosts(model, shapes), shapes).methods

    assert methods["full"] == 1.0
    assert str(methods["bitfit"]).startswith("unavailable: ")
    for method in ("lora", "prefix", "top2"):
        assert 1 / 3 < float(methods[method]) < 1
