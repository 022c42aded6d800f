"""LoRA's settings: targets, scale and result, in a whole run."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel
from pydantic import ValidationError
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from greencore.dataset import Row
from greencore.settings.checks import check_method
from greencore.settings.hyperparameters import Hyperparameters, SettingUnsupported
from greencore.settings.method_settings import LoraSettings
from greencore.settings.validation_faults import merge_union_faults
from greencore.training.batches.batch_shapes import BatchShapes, StepShape
from greencore.training.listener import TrainingListener
from greencore.training.methods.adapters import with_adapter
from greencore.training.methods.baselines import count_method_flops
from greencore.training.methods.lora_targets import resolve_lora_targets
from greencore.training.methods.step_costs import StepCosts
from greencore.training.models.loading import load_meta_model, load_model, load_tokenizer
from greencore.training.run import TrainingResult, fine_tune

SETTINGS = LoraSettings(rank=4, alpha=16, dropout=0.2, targets=("q_proj", "mlp.up_proj"), rank_stabilised=True)


def gpt2() -> PreTrainedModel:
    return GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=16, n_layer=2, n_head=2, n_positions=32))


def list_adapted(model: Any) -> Collection[str]:
    return {name.partition(".lora_A")[0] for name, _ in model.named_parameters() if ".lora_A." in name}


def test_the_settings_are_those_of_the_adapter(model_folder: Path) -> None:
    adapted: Any = with_adapter("lora", load_model(model_folder), lora=SETTINGS)
    config = adapted.peft_config["default"]
    assert isinstance(config, LoraConfig)
    assert (config.r, config.lora_alpha, config.lora_dropout, config.use_rslora) == (4, 16, 0.2, True)
    assert {name.rpartition(".")[2] for name in list_adapted(adapted)} == {"q_proj", "up_proj"}
    assert adapted.get_submodule("base_model.model.model.layers.1.mlp.up_proj").scaling["default"] == 16 / 2


def test_all_linear_adapts_every_linear_module_but_the_output_embedding(model_folder: Path) -> None:
    adapted = with_adapter("lora", load_model(model_folder), lora=LoraSettings(targets="all-linear"))
    assert len(list_adapted(adapted)) == 3 * 7
    assert not any("lm_head" in name for name in list_adapted(adapted))
    assert len(list_adapted(with_adapter("lora", gpt2(), lora=LoraSettings(targets="all-linear")))) == 2 * 4


def test_all_linear_names_modules_in_full_where_another_has_the_same_end(model_folder: Path) -> None:
    model = load_model(model_folder)
    model.get_submodule("model").add_module("q_proj", torch.nn.LayerNorm(4))
    targets = resolve_lora_targets(model, "all-linear")
    assert len(targets) == 3 * 7
    assert "model.layers.0.self_attn.q_proj" in targets


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("queries", r"'queries' matches no module of LlamaForCausalLM, which has down_proj, gate_proj, k_proj"),
        ("proj", "matches no module"),  # an end begins after a dot
        ("self_attn", "a LlamaAttention: expected the names of linear modules"),
        ("lm_head", "tied to the input embedding"),
    ],
)
def test_a_target_that_no_update_can_be_added_to_is_refused(model_folder: Path, target: str, reason: str) -> None:
    with pytest.raises(SettingUnsupported, match=reason) as refusal:
        with_adapter("lora", load_meta_model(model_folder), lora=LoraSettings(targets=("v_proj", target)))
    assert refusal.value.field == "lora.targets"


@pytest.mark.parametrize("targets", [[], [""], "q_proj", ["q"] * 65, ["q" * 201], 3])
def test_targets_are_a_bounded_list_of_names_or_all_linear(targets: Any) -> None:
    with pytest.raises(ValidationError) as refusal:
        LoraSettings(targets=targets)
    [fault] = merge_union_faults(refusal.value.errors())
    assert fault["loc"][0] == "targets"


def test_settings_of_another_method_and_the_delta_of_an_adapter_are_refused() -> None:
    with pytest.raises(SettingUnsupported, match="only lora has these settings") as other:
        check_method(Hyperparameters(lora=LoraSettings()), "full")
    assert other.value.field == "lora"
    with pytest.raises(ValidationError, match="no delta") as both:
        Hyperparameters(result="delta", lora=LoraSettings(result="adapter"))
    assert both.value.errors()[0]["loc"] == ("lora",)


def test_the_counted_flops_are_those_of_the_adapted_modules(model_folder: Path) -> None:
    shapes, steps = BatchShapes(4, (8,), (32,)), {StepShape(4, (32,)): 2}

    def count(lora: LoraSettings | None) -> int:
        costs = StepCosts(load_meta_model(model_folder), shapes)
        return count_method_flops("lora", load_meta_model(model_folder), costs, steps, shapes, lora=lora)

    last, default = count(LoraSettings(targets=("layers.2.mlp.down_proj",))), count(None)
    every, wide = count(LoraSettings(targets="all-linear")), count(LoraSettings(targets="all-linear", rank=64))
    assert last < 0.7 * default < default < every < wide


class StopsAfterStep(TrainingListener):
    steps = 0

    def on_step_finished(self, *, done: int, steps: int, loss: float) -> None:
        self.steps = done

    def should_stop(self) -> bool:
        return self.steps == 3


def run(model_folder: Path, rows: list[Row], folder: Path, lora: LoraSettings, *, stop: bool = False) -> TrainingResult:
    return fine_tune(
        model_folder=model_folder,
        model_name="the-base",
        rows=rows,
        hyperparameters=Hyperparameters(epochs=2, max_length=64, eval_share=0, learning_rate=1e-2, lora=lora),
        method="lora",
        folder=folder,
        listener=StopsAfterStep() if stop else None,
    )


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # by peft
def test_an_adapter_result_is_loaded_by_peft_and_merges_to_the_merged_result(
    model_folder: Path, rows: list[Row], tmp_path: Path
) -> None:
    merged = run(model_folder, rows, tmp_path / "merged", SETTINGS).artifact
    assert run(model_folder, rows, tmp_path / "adapter", SETTINGS, stop=True).artifact is None
    adapter = run(model_folder, rows, tmp_path / "adapter", SETTINGS.model_copy(update={"result": "adapter"})).artifact
    assert merged is not None
    assert adapter is not None
    assert '"base_model_name_or_path": "the-base"' in (adapter / "adapter_config.json").read_text()
    assert not (adapter / "model.safetensors").exists()
    load_tokenizer(adapter)
    loaded = PeftModel.from_pretrained(load_model(model_folder), adapter)
    plain = dict(loaded.merge_and_unload().named_parameters())
    expected = load_file(merged / "model.safetensors")
    base = dict(load_model(model_folder).named_parameters())
    assert any(not torch.equal(expected[name], base[name]) for name in expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(plain[name].detach(), tensor, rtol=0, atol=0, msg=name)
