"""The predicted peak memory of a run's steps is what PyTorch's allocator gives out, for methods and recomputation."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from benchmarks.training.peak_memory import CONFIGURATIONS, TOLERANCE, compare
from greencore.training.run import Method


def build() -> PreTrainedModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=2048, hidden_size=128, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4
    )
    return LlamaForCausalLM(config)


@pytest.mark.parametrize(("name", "method", "rho", "recomputed"), CONFIGURATIONS, ids=lambda value: str(value))
def test_the_predicted_peak_is_the_measured_one(name: str, method: Method, rho: float, recomputed: bool) -> None:
    found = compare(build, method, rho, recomputed)
    assert found["predicted MiB"] == pytest.approx(found["measured MiB"], rel=TOLERANCE), found
