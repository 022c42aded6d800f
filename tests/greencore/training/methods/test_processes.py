"""Processes of a run select the same tensors, and end with the weights of one process: replicated and sharded."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.greencore.training.conftest import small_model
from tests.greencore.training.families import family_folder
from tests.greencore.training.methods.processes import EPOCHS, Layout, Run, launch, train

LAYOUTS: list[Layout] = ["replicated", "sharded"]
# Two blocks each, so that a selection may end between them; noise would be another in each process.
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"num_hidden_layers": 2, "hidden_size": 64},
    "gpt2": {"n_layer": 2, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "t5": {"num_layers": 2, "d_ff": 192, "dropout_rate": 0.0},
    "mixtral": {"num_hidden_layers": 2},
}
METHODS = ("probe", "adamw", "full", "lora", "gt-0.5")
CASES = [("tied", "greentrainer"), *((name, "greentrainer") for name in FAMILIES), *(("tied", m) for m in METHODS)]

# The same runs with what is frozen gathered for each pass, or with memory for one block.
GATHERED = {"gt-0.5": "tied-gt-0.5-sharded", "progressive": "progressive"}
MEMORY = {
    "gt-0.5/gathered": "gathered-gt-0.5",
    "progressive": "progressive",
    "progressive/gathered": "gathered-progressive",
    "progressive/tight": "tight-progressive",
}

Runs = dict[str, list[Run]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of the models, by family; "tied" is the small model."""
    root = tmp_path_factory.mktemp("models")
    families = {name: family_folder(name, root / name, **settings) for name, settings in FAMILIES.items()}
    return {"tied": small_model(root / "tied"), **families}


@pytest.fixture(scope="module")
def alone(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """The runs of one process."""
    output = tmp_path_factory.mktemp("alone")
    return {f"{family}-{method}": train(folders[family], output, method, "replicated") for family, method in CASES}


@pytest.fixture(scope="module")
def together(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """The runs of two processes."""
    cases = [(f"{f}-{m}-{layout}", folders[f], m, layout) for f, m in CASES for layout in LAYOUTS]
    cases += [(name, folders["tied"], method, "sharded") for method, name in MEMORY.items()]
    return launch(cases, tmp_path_factory.mktemp("two") / "runs", processes=2)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("family", "method"), CASES)
def test_two_processes_select_the_same_and_end_with_the_weights_of_one(
    alone: dict[str, Run], together: Runs, family: str, method: str, layout: Layout
) -> None:
    per_batch = 2e-4 if method == "gt-0.5" else 1e-4
    check_same(together[f"{family}-{method}-{layout}"], alone[f"{family}-{method}"], per_batch=per_batch)


@pytest.mark.parametrize("method", ["adamw", "full"])
def test_each_process_holds_its_part_of_weights_gradients_and_state(
    alone: dict[str, Run], together: Runs, method: str
) -> None:
    runs = together[f"tied-{method}-sharded"]
    assert max(run.held_bytes for run in runs) <= 1.1 / len(runs) * alone[f"tied-{method}"].held_bytes


@pytest.mark.parametrize("method", GATHERED)
def test_what_stays_whole_changes_no_bit(together: Runs, method: str) -> None:
    for whole, gathered in zip(together[GATHERED[method]], together[f"gathered-{method}"], strict=True):
        assert (whole.losses, whole.reports) == (gathered.losses, gathered.reports)
        assert all(torch.equal(whole.weights[name], value) for name, value in gathered.weights.items())


def test_frozen_groups_are_gathered_once_after_the_first_step_of_an_epoch(together: Runs) -> None:
    """Of three blocks the first two are frozen in the first epoch, and one in the second.

    A step has two forward and two backward passes. An evaluation after the third gathers and frees them as ever.
    """
    gathered, *_ = together["gathered-progressive"]
    for name, frozen in {"progressive": (2, 1), "tight-progressive": (1, 1)}.items():
        for run in together[name]:
            for epoch, blocks in enumerate((*frozen, 0, 0)):
                counts = [[len(step) for step in epoch_of(one, epoch)] for one in (gathered, run)]
                assert [before - after for before, after in zip(*counts, strict=True)] == [
                    passes * blocks for passes in (0, 3, 4, 3, 4)
                ]


def test_nothing_is_gathered_of_a_frozen_model(together: Runs) -> None:
    for run in together["tied-lora-sharded"]:
        assert run.gathered[0]
        for epoch in range(EPOCHS):
            assert not any(epoch_of(run, epoch)[2:])


def test_no_gathering_takes_more_than_a_block_or_what_is_outside(together: Runs) -> None:
    for run in together["gathered-progressive"]:
        assert max(map(max, run.gathered)) == run.most_gathered


def epoch_of(run: Run, epoch: int) -> list[list[int]]:
    """The gatherings of an epoch's steps."""
    steps = len(run.gathered) // EPOCHS
    return run.gathered[epoch * steps : (epoch + 1) * steps]


def test_four_processes_do_too(folders: dict[str, Path], alone: dict[str, Run], tmp_path: Path) -> None:
    """Their shards of the small model's tensors differ in size."""
    runs = launch([("tied", folders["tied"], "greentrainer", "sharded")], tmp_path / "four", processes=4)
    check_same(runs["tied"], alone["tied-greentrainer"])


def check_same(runs: list[Run], expected: Run, *, per_batch: float = 1e-4) -> None:
    """Check that the processes' runs are the same, and the one expected to rounding."""
    first, *others = runs
    for other in others:
        assert other.reports == first.reports
        assert all(torch.equal(other.weights[name], first.weights[name]) for name in expected.weights)
    assert first.losses == pytest.approx(expected.losses, rel=1e-4)
    for ours, theirs in zip(first.reports, expected.reports, strict=True):
        assert (ours["tensors"], ours["selections"]) == (theirs["tensors"], theirs["selections"])
        # Some costs are per batch, of which two processes have twice as many.
        assert ours["flops"] == pytest.approx(theirs["flops"], rel=per_batch)
        assert ours["importance"] == pytest.approx(theirs["importance"], rel=1e-3, abs=1e-9)
    for name, value in expected.weights.items():
        torch.testing.assert_close(first.weights[name], value, msg=name)
