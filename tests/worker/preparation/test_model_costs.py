"""Step costs of a model for the API: FLOPs of any row, and of a shuffled epoch."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, T5Config, T5ForConditionalGeneration

from greencore.backprop import profile
from greencore.training.methods.batch_shapes import BatchShapes
from greencore.training.methods.step_costs import StepCosts
from worker.preparation.model_costs import REFERENCE_LENGTHS, REFERENCE_ROWS, compute_row_costs


@pytest.fixture(scope="module", params=["decoder", "encoder-decoder"])
def model(request: pytest.FixtureRequest) -> Iterator[PreTrainedModel]:
    with torch.device("meta"):
        if request.param == "decoder":
            sizes: Any = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
            yield LlamaForCausalLM(LlamaConfig(vocab_size=96, **sizes))
        else:
            sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}
            yield T5ForConditionalGeneration(T5Config(vocab_size=96, **sizes))


def test_the_flops_of_any_row_follow_from_the_measured_terms(model: PreTrainedModel) -> None:
    encoder = model.config.is_encoder_decoder
    shortest, longest = ((length,) * (2 if encoder else 1) for length in REFERENCE_LENGTHS)
    costs = compute_row_costs(model, StepCosts(model, BatchShapes(REFERENCE_ROWS, shortest, longest)))

    for rows, source, target in ((1, 40, 24), (3, 200, 136), (2, 1000, 400)):
        ids = torch.zeros(rows, source, dtype=torch.long, device="meta")
        labels = torch.zeros(rows, target, dtype=torch.long, device="meta") if encoder else ids
        traced = profile(model.train(), {"input_ids": ids, "labels": labels})
        lengths = (source, target) if encoder else (source,)
        # What all rows of a batch share, such as T5's position bias, counts for something in so small a model.
        assert rows * costs.full_flops(*lengths) == pytest.approx(traced.full_flops, rel=3e-3)
        assert rows * costs.forward_flops(*lengths) == pytest.approx(traced.forward_flops, rel=3e-3)
    assert costs.has_encoder == encoder


def test_each_method_has_its_share_or_the_reason_why_it_has_none(model: PreTrainedModel) -> None:
    lengths = (2 if model.config.is_encoder_decoder else 1) * (64,)
    costs = StepCosts(model, BatchShapes(4, lengths, (512,) * len(lengths)))

    methods = compute_row_costs(model, costs).methods

    assert methods["full"] == 1.0
    assert str(methods["bitfit"]).startswith("unavailable: ")
    for method in ("lora", "prefix", "top2"):
        assert 1 / 3 < float(methods[method]) < 1
