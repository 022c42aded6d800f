"""Patterns of tensors that a run never or always trains: what they match, and what a run does with them."""

from pathlib import Path
from typing import Any

import pytest
import torch

from greencore.backprop import BudgetTooSmall
from greencore.dataset import Row
from greencore.settings.hyperparameters import Hyperparameters, SettingUnsupported
from greencore.settings.method_settings import AdaptiveSettings
from greencore.training import GreenTrainerCallback
from greencore.training.batches.batch_shapes import BatchShapes
from greencore.training.methods.step_costs import StepCosts
from greencore.training.methods.tensor_patterns import match_tensor_patterns
from greencore.training.models.loading import load_meta_model, load_model
from greencore.training.run import fine_tune
from tests.greencore.training.methods.trainers import counting_trainer

NORMS, DEEPEST_BLOCK = "*norm.weight", "model.layers.0.*"


@pytest.fixture(scope="module")
def model(model_folder: Path) -> Any:
    return load_meta_model(model_folder)


def test_a_pattern_matches_whole_names_and_dots(model: Any) -> None:
    names = [name for name, _ in model.named_parameters()]
    roles = match_tensor_patterns(
        model, never_train=["model.layers.[01].mlp.*", "model.embed_tokens.weight"], always_train=[NORMS]
    )
    assert set(roles.never) == {"model.embed_tokens.weight"} | {
        f"model.layers.{block}.mlp.{part}_proj.weight" for block in (0, 1) for part in ("gate", "up", "down")
    }
    assert set(roles.always) == {name for name in names if name.endswith("norm.weight")}
    assert match_tensor_patterns(model, ["model.norm.weight"], always_train=["*"]).always == ("model.norm.weight",)


@pytest.mark.parametrize("setting", ["never_train", "always_train"])
def test_a_pattern_without_a_match_is_refused_with_names_near_it(model: Any, setting: str) -> None:
    with pytest.raises(SettingUnsupported, match=r"'model.norms.weight' matches no tensor.* model\.norm\.weight") as no:
        match_tensor_patterns(model, **{setting: ["*", "model.norms.weight"]})
    assert no.value.field == f"adaptive.{setting}"
    with pytest.raises(SettingUnsupported, match="matches no tensor"):  # case counts
        match_tensor_patterns(model, **{setting: ["MODEL.norm.weight"]})


def test_the_second_name_of_a_tied_weight_is_refused_with_its_first(model: Any) -> None:
    with pytest.raises(SettingUnsupported, match=r"lm_head.weight, which is tied to model.embed_tokens.weight"):
        match_tensor_patterns(model, never_train=["lm_head.*"])


def test_contradicting_patterns_are_refused(model: Any) -> None:
    with pytest.raises(SettingUnsupported, match=r"both match model.norm.weight") as refusal:
        match_tensor_patterns(model, never_train=["model.norm.*"], always_train=[NORMS])
    assert refusal.value.field == "adaptive.always_train"
    with pytest.raises(SettingUnsupported, match="none is left to train") as refusal:
        match_tensor_patterns(model, never_train=["*"])
    assert refusal.value.field == "adaptive.never_train"


@pytest.mark.parametrize("rho", [0.6, 1.0])
def test_tensors_are_never_and_always_trained(model_folder: Path, rows: list[Row], tmp_path: Path, rho: float) -> None:
    green = GreenTrainerCallback(rho, never_train=[DEEPEST_BLOCK], always_train=["model.layers.2.self_attn.q_proj.*"])
    trainer, trained = counting_trainer(model_folder, tmp_path, rows, [green], epochs=2, counting=False)
    trainer.train()
    for report in green.epochs:
        assert "model.layers.2.self_attn.q_proj.weight" in report.tensors
        assert not any(name.startswith("model.layers.0.") for name in report.tensors)
        assert report.share <= rho
        assert report.tensors_total == len(list(trained.parameters()))
    base = dict(load_model(model_folder).named_parameters())
    changed = {name for name, parameter in trained.named_parameters() if not torch.equal(parameter, base[name])}
    assert not any(name.startswith("model.layers.0.") for name in changed)
    assert "model.layers.2.self_attn.q_proj.weight" in changed
    if rho == 1:
        assert changed == {name for name in base if not name.startswith("model.layers.0.")}


def test_below_the_floor_of_what_is_always_trained_the_run_is_refused(
    model_folder: Path, rows: list[Row], tmp_path: Path
) -> None:
    green = GreenTrainerCallback(0.5, always_train=[DEEPEST_BLOCK])
    trainer, _ = counting_trainer(model_folder, tmp_path, rows, [green], epochs=1, counting=False)
    with pytest.raises(BudgetTooSmall, match="always trained") as refusal:
        trainer.train()
    assert 0.6 < refusal.value.floor < 1


@pytest.mark.parametrize("rho", [0.75, 0.9])
def test_selections_within_constraints_fit_at_every_length(model_folder: Path, rho: float) -> None:
    model = load_meta_model(model_folder)
    names = [name for name, _ in model.named_parameters()]
    always, never = [name for name in names if name.endswith("norm.weight")], ["model.embed_tokens.weight"]
    costs = StepCosts(model, BatchShapes(4, (8,), (64,)), always=always, never=never)
    assert costs.floor == costs.compute_max_share(always)
    assert set(costs.list_affordable_tensors(costs.floor)) >= set(always)
    chosen = costs.select({name: -1.0 if name in always else 1.0 for name in names}, rho)
    assert set(always) <= set(chosen.names)
    assert not set(never) & set(chosen.names)
    assert rho - 0.06 < costs.compute_max_share(chosen.names) <= rho
    at_floor = costs.select(dict.fromkeys(names, 1.0), costs.floor)
    assert costs.compute_max_share(at_floor.names) == costs.floor


def test_a_run_has_the_settings_of_its_hyperparameters(model_folder: Path, rows: list[Row], tmp_path: Path) -> None:
    settings = AdaptiveSettings(reselect_every=2, probe_batches=2, never_train=("model.embed_tokens.weight",))
    result = fine_tune(
        model_folder=model_folder,
        rows=rows,
        hyperparameters=Hyperparameters(epochs=1, max_length=64, eval_share=0, adaptive=settings),
        rho=0.6,
        folder=tmp_path,
    )
    [report] = result.epochs
    assert [selection.step for selection in report.selections] == [0, 2, 4]
    assert "model.embed_tokens.weight" not in report.tensors
