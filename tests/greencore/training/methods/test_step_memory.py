"""The predicted peak memory of a run's steps is what PyTorch's allocator gives out, for methods and recomputation."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from benchmarks.training.peak_memory import CONFIGURATIONS, TOLERANCE, Configuration, compare


def build() -> PreTrainedModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=2048, hidden_size=128, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4
    )
    return LlamaForCausalLM(config)


@pytest.mark.parametrize("given", CONFIGURATIONS, ids=lambda given: given.name)
def test_the_predicted_peak_is_the_measured_one(given: Configuration) -> None:
    found = compare(build, given)
    assert found["predicted MiB"] == pytest.approx(found["measured MiB"], rel=TOLERANCE), found
