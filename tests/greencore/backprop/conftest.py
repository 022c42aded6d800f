"""Small decoders of two families, with their batch and profile."""

from collections.abc import Callable

import pytest
import torch
from transformers import PreTrainedModel

from benchmarks.training import families
from greencore.backprop import Profile, profile

MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": lambda: families.build_family_model("llama", "sdpa"),
    "llama-tied": lambda: families.build_family_model("llama-tied", "sdpa"),
    "llama-eager": lambda: families.build_family_model("llama", "eager"),
    "opt": lambda: families.build_family_model("opt", "sdpa"),
    "opt-eager": lambda: families.build_family_model("opt", "eager"),
}


@pytest.fixture(params=MODELS, scope="module")
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return MODELS[family]()


def make_batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 96, (2, 12), generator=generator)
    return {"input_ids": ids, "labels": ids.clone()}


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    return make_batch()


@pytest.fixture(scope="module")
def costs(family: str) -> Profile:
    """The profile of `model` at `batch`."""
    return profile(MODELS[family](), make_batch())
