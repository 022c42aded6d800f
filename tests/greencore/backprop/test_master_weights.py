"""Master weights: bfloat16 weights trained as float32 ones are, and nothing kept for what is not trained."""

import copy
from collections.abc import Callable

import pytest
import torch
from transformers import Adafactor

from greencore.backprop.master_weights import CHUNK_ELEMENTS, MASTER, MasterWeights, set_gradient_types
from greencore.backprop.optimizer_dry_run import OptimizerDryRun

Build = Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Build] = {
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.1),
    "fused": lambda parameters: torch.optim.AdamW(parameters, lr=1e-4, fused=True),
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=1e-3, momentum=0.9),
    "adafactor": lambda parameters: torch.optim.Adafactor(parameters, lr=1e-3),
    "transformers-adafactor": lambda parameters: Adafactor(
        parameters, lr=1e-3, scale_parameter=False, relative_step=False
    ),
}


@pytest.fixture(params=OPTIMIZERS)
def build(request: pytest.FixtureRequest) -> Build:
    return OPTIMIZERS[request.param]


def make_weights(dtype: torch.dtype, sizes: tuple[int, ...] = (40, 24)) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    values = [torch.randn(size, 8, generator=generator).bfloat16() for size in sizes]
    return [torch.nn.Parameter(value.to(dtype)) for value in values]


def give_gradients(parameters: list[torch.nn.Parameter], step: int) -> None:
    generator = torch.Generator().manual_seed(1 + step)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator).bfloat16().to(parameter.grad_dtype)


def test_the_masters_are_the_weights_of_a_float32_run_and_the_weights_their_rounding(build: Build) -> None:
    half, full = make_weights(torch.bfloat16), make_weights(torch.float32)
    optimizer, reference = MasterWeights(build(half)), build(full)
    for step in range(20):
        give_gradients(half, step)
        give_gradients(full, step)
        optimizer.step()
        reference.step()
    for small, wide in zip(half, full, strict=True):
        assert torch.equal(optimizer.state[small][MASTER], wide)
        assert torch.equal(small, wide.bfloat16())


def test_updates_below_the_last_place_of_a_weight_add_up() -> None:
    weight = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    optimizer = MasterWeights(torch.optim.SGD([weight], lr=1e-4))
    for _ in range(100):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    assert weight.tolist() == pytest.approx([0.99] * 4, abs=0.002)  # without masters it stays 1


def test_only_tensors_with_a_gradient_have_a_master(build: Build) -> None:
    trained, frozen = make_weights(torch.bfloat16)
    optimizer = MasterWeights(build([trained, frozen]))
    before = frozen.clone()
    give_gradients([trained], 0)
    optimizer.step()
    assert MASTER in optimizer.state[trained]
    assert frozen not in optimizer.state
    assert torch.equal(frozen, before)


def test_a_master_freed_with_its_state_is_taken_again_from_the_rounded_weight(build: Build) -> None:
    [weight] = make_weights(torch.bfloat16, (16,))
    optimizer = MasterWeights(build([weight]))
    give_gradients([weight], 0)
    optimizer.step()
    del optimizer.state[weight]
    reference = torch.nn.Parameter(weight.detach().float())
    again = build([reference])
    give_gradients([weight], 1)
    give_gradients([reference], 1)
    optimizer.step()
    again.step()
    assert torch.equal(optimizer.state[weight][MASTER], reference)


def test_a_run_goes_on_bit_by_bit_from_its_state_dict(build: Build) -> None:
    weights = make_weights(torch.bfloat16)
    optimizer = MasterWeights(build(weights))
    for step in range(3):
        give_gradients(weights, step)
        optimizer.step()
    resumed = [torch.nn.Parameter(weight.detach().clone()) for weight in weights]
    other = MasterWeights(build(resumed))
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for step in range(3, 6):
        for parameters, stepped in ((weights, optimizer), (resumed, other)):
            give_gradients(parameters, step)
            stepped.step()
    for one, two in zip(weights, resumed, strict=True):
        assert torch.equal(optimizer.state[one][MASTER], other.state[two][MASTER])
        assert torch.equal(one, two)


def test_float32_weights_are_stepped_themselves(build: Build) -> None:
    weights, alone = make_weights(torch.float32), make_weights(torch.float32)
    optimizer, reference = MasterWeights(build(weights)), build(alone)
    for step in range(3):
        give_gradients(weights, step)
        give_gradients(alone, step)
        optimizer.step()
        reference.step()
    assert all(torch.equal(one, two) for one, two in zip(weights, alone, strict=True))
    assert all(MASTER not in optimizer.state[weight] for weight in weights)


def test_gradients_of_parts_add_up_in_float32_and_clipping_acts_on_their_sum() -> None:
    weight = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    optimizer = MasterWeights(torch.optim.SGD([weight], lr=1.0))
    for parts, expected in ((1, 1.0), (512, 1.0), (1, 1.0)):  # in bfloat16 the sum ends at 0.5: 1/512 is lost in it
        set_gradient_types([weight], parts=parts)
        for _ in range(parts):
            (weight.sum() / parts).backward()
        assert weight.grad is not None
        assert weight.grad.tolist() == [expected] * 4
        assert weight.grad.dtype == (torch.float32 if parts > 1 else torch.bfloat16)
        assert float(torch.nn.utils.clip_grad_norm_([weight], 1.0)) == 2.0
        before = optimizer.state[weight].get(MASTER, weight).tolist()
        optimizer.step()
        assert optimizer.state[weight][MASTER].tolist() == pytest.approx([value - 0.5 for value in before], abs=1e-2)
        optimizer.zero_grad()


def test_a_schedule_acts_on_the_steps() -> None:
    weight = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    optimizer = MasterWeights(torch.optim.SGD([weight], lr=0.5))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0 if step else 1.0)
    for _ in range(3):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
        schedule.step()
    assert weight.tolist() == [0.5] * 4


def test_tensors_are_stepped_in_chunks_as_they_are_together(monkeypatch: pytest.MonkeyPatch) -> None:
    together, apart = make_weights(torch.bfloat16, (9, 5, 7)), make_weights(torch.bfloat16, (9, 5, 7))
    one, two = (MasterWeights(OPTIMIZERS["adamw"](weights)) for weights in (together, apart))
    give_gradients(together, 0)
    give_gradients(apart, 0)
    one.step()
    monkeypatch.setattr("greencore.backprop.master_weights.CHUNK_ELEMENTS", 64)
    assert CHUNK_ELEMENTS > 64
    two.step()
    assert all(torch.equal(left, right) for left, right in zip(together, apart, strict=True))


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("steps", [0, 2], ids=["without-state", "with-state"])
def test_a_dry_run_predicts_the_masters_update_and_changes_nothing(build: Build, steps: int, parts: int) -> None:
    [weight] = make_weights(torch.bfloat16, (16,))
    set_gradient_types([weight], parts=parts)
    optimizer = MasterWeights(build([weight]))
    for step in range(steps):
        give_gradients([weight], step)
        optimizer.step()
    before = optimizer.state[weight][MASTER].clone() if steps else weight.detach().float()
    kept = weight.detach().clone()
    give_gradients([weight], 9)
    gradient = weight.grad
    assert gradient is not None
    given, gradient = gradient, gradient.clone()
    predicted = OptimizerDryRun(optimizer).compute_update(weight, given).clone()
    assert torch.equal(given, gradient)
    assert torch.equal(weight, kept)
    assert (weight in optimizer.state) == bool(steps)
    weight.grad = gradient
    optimizer.step()
    assert predicted.dtype == torch.float32
    assert predicted.abs().max() > 0
    assert torch.equal(predicted, optimizer.state[weight][MASTER] - before)
