"""Small decoders of the two families that the suite trains for real."""

from collections.abc import Callable

import pytest
import torch
from transformers import PreTrainedModel

from benchmarks import families
from greencore.backprop import Profile, profile

MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": lambda: families.family("llama", "sdpa"),
    "llama-tied": lambda: families.family("llama-tied", "sdpa"),
    "llama-eager": lambda: families.family("llama", "eager"),
    "opt": lambda: families.family("opt", "sdpa"),
    "opt-eager": lambda: families.family("opt", "eager"),
}


@pytest.fixture(params=MODELS, scope="module")
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return MODELS[family]()


def a_batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 96, (2, 12), generator=generator)
    return {"input_ids": ids, "labels": ids.clone()}


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    return a_batch()


@pytest.fixture(scope="module")
def costs(family: str) -> Profile:
    """The profile of `model` at `batch`."""
    return profile(MODELS[family](), a_batch())
