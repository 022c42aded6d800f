"""A delta applied to its base equals the full result bit by bit."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, T5Config, T5ForConditionalGeneration

from greencore.dataset import Row
from greencore.settings.hyperparameters import Hyperparameters
from greencore.training.models.delta import DELTA_FILE_NAME, DeltaError, apply_delta, write_delta
from greencore.training.models.loading import load_model
from greencore.training.run import Method, fine_tune

EMBEDDING, DEEP = "model.embed_tokens.weight", "model.layers.2.mlp.up_proj.weight"


def trained(model_folder: Path, rows: list[Row], folder: Path, method: Method, result: str) -> Path:
    """Train a model, or finish a trained one in `folder`, and return its result, in `folder / result`."""
    artifact = fine_tune(
        model_folder=model_folder,
        model_name="small",
        rows=rows,
        hyperparameters=Hyperparameters(
            epochs=1, batch_size=4, learning_rate=1e-2, max_length=64, eval_share=0, result=result
        ),
        rho=0.5,
        method=method,
        folder=folder,
        result_folder=folder / result,
    ).artifact
    assert artifact is not None
    return artifact


def same_bits(one: Path, other: Path) -> bool:
    first, second = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    return first.keys() == second.keys() and all(
        first[name].dtype == second[name].dtype
        and torch.equal(first[name].reshape(-1).view(torch.uint8), second[name].reshape(-1).view(torch.uint8))
        for name in first
    )


def delta_of(base: Path, file: Path, change: Callable[[PreTrainedModel], object]) -> PreTrainedModel:
    """Change a model, write its delta, and return the model."""
    model = load_model(base)
    with torch.no_grad():
        change(model)
    write_delta(model, base, file, base_name="small")
    return model


@pytest.mark.parametrize("method", ["greentrainer", "lora", "top2"])
def test_applying_a_runs_delta_gives_the_full_result_bit_by_bit(
    model_folder: Path, rows: list[Row], tmp_path: Path, method: Method
) -> None:
    full = trained(model_folder, rows, tmp_path / "run", method, "full")
    delta = trained(model_folder, rows, tmp_path / "run", method, "delta")
    names = {path.name for path in delta.iterdir()}
    assert names == {DELTA_FILE_NAME, *(path.name for path in full.iterdir() if path.name.startswith("tokenizer"))}

    applied = apply_delta(model_folder, delta / DELTA_FILE_NAME, tmp_path / "applied")

    assert same_bits(applied, full)
    assert {path.name: path.read_bytes() for path in applied.iterdir()} == {
        path.name: path.read_bytes() for path in full.iterdir()
    }
    base = load_file(model_folder / "model.safetensors")
    whole = load_file(full / "model.safetensors")
    assert set(load_file(delta / DELTA_FILE_NAME)) == {
        name for name in base if not torch.equal(base[name], whole[name])
    }
    assert (delta / DELTA_FILE_NAME).stat().st_size < (full / "model.safetensors").stat().st_size


def test_the_result_of_a_prefix_is_the_adapter_and_names_its_base(
    model_folder: Path, rows: list[Row], tmp_path: Path
) -> None:
    adapter = trained(model_folder, rows, tmp_path, "prefix", "delta")
    assert (adapter / "adapter_model.safetensors").is_file()
    assert not (adapter / DELTA_FILE_NAME).exists()
    assert json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"] == "small"
    assert not any(str(model_folder) in path.read_text() for path in adapter.glob("*.json"))


def test_tied_embeddings_are_written_once_and_stay_tied(model_folder: Path, tmp_path: Path) -> None:
    model = delta_of(model_folder, tmp_path / DELTA_FILE_NAME, lambda m: m.get_parameter(EMBEDDING).mul_(2))
    assert set(load_file(tmp_path / DELTA_FILE_NAME)) == {EMBEDDING}
    applied = load_model(apply_delta(model_folder, tmp_path / DELTA_FILE_NAME, tmp_path / "applied"))
    assert torch.equal(applied.lm_head.weight, model.lm_head.weight)
    assert applied.lm_head.weight is applied.get_input_embeddings().weight


def test_a_head_stored_separately_is_written_separately(model_folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    base = Path(shutil.copytree(model_folder, tmp_path / "t5"))
    config = T5Config(vocab_size=64, d_model=16, d_kv=4, d_ff=32, num_layers=1, num_heads=2)
    T5ForConditionalGeneration(config).save_pretrained(base)
    weights = load_file(base / "model.safetensors")
    weights["lm_head.weight"] = weights["shared.weight"] + 1
    save_file(weights, base / "model.safetensors", {"format": "pt"})

    model = delta_of(base, tmp_path / DELTA_FILE_NAME, lambda m: m.get_parameter("lm_head.weight").mul_(2))

    assert set(load_file(tmp_path / DELTA_FILE_NAME)) == {"lm_head.weight"}
    applied = load_model(apply_delta(base, tmp_path / DELTA_FILE_NAME, tmp_path / "applied"))
    assert torch.equal(applied.get_parameter("lm_head.weight"), model.get_parameter("lm_head.weight"))
    assert torch.equal(applied.get_parameter("shared.weight"), weights["shared.weight"])


def test_signed_zeros_and_nans_count_as_changes(model_folder: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(model_folder, tmp_path / "base"))
    zeroed = load_model(base)
    with torch.no_grad():
        zeroed.get_parameter(DEEP).zero_()
        zeroed.get_parameter(EMBEDDING)[3, 3] = float("nan")
    zeroed.save_pretrained(base)

    model = delta_of(base, tmp_path / DELTA_FILE_NAME, lambda m: m.get_parameter(DEEP).neg_())

    assert set(load_file(tmp_path / DELTA_FILE_NAME)) == {DEEP}
    model.save_pretrained(tmp_path / "whole")
    assert same_bits(apply_delta(base, tmp_path / DELTA_FILE_NAME, tmp_path / "applied"), tmp_path / "whole")


def test_an_unchanged_model_has_an_empty_delta(model_folder: Path, tmp_path: Path) -> None:
    delta_of(model_folder, tmp_path / DELTA_FILE_NAME, lambda _: None)
    assert load_file(tmp_path / DELTA_FILE_NAME) == {}
    assert same_bits(apply_delta(model_folder, tmp_path / DELTA_FILE_NAME, tmp_path / "applied"), model_folder)


def test_a_base_of_half_precision_gives_the_full_precision_that_the_run_had(
    model_folder: Path, rows: list[Row], tmp_path: Path
) -> None:
    base = Path(shutil.copytree(model_folder, tmp_path / "half"))
    load_model(base).bfloat16().save_pretrained(base)
    full = trained(base, rows, tmp_path / "run", "greentrainer", "full")
    delta = trained(base, rows, tmp_path / "run", "greentrainer", "delta")
    assert same_bits(apply_delta(base, delta / DELTA_FILE_NAME, tmp_path / "applied"), full)


@pytest.fixture
def delta(model_folder: Path, tmp_path: Path) -> Path:
    """Delta of one tensor."""
    delta_of(model_folder, tmp_path / DELTA_FILE_NAME, lambda m: m.get_parameter(DEEP).mul_(2))
    return tmp_path / DELTA_FILE_NAME


def test_another_base_is_refused_even_where_only_an_unchanged_tensor_differs(
    delta: Path, model_folder: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(model_folder, tmp_path / "other"))
    model = load_model(other)
    with torch.no_grad():
        model.get_parameter("model.norm.weight")[7] += 1e-6
    model.save_pretrained(other)
    with pytest.raises(DeltaError, match=r"not the base of this delta, which is 'small': 1 of its 29 tensors differ"):
        apply_delta(other, delta, tmp_path / "applied")
    assert not (tmp_path / "applied").exists()


def test_a_base_of_another_architecture_is_refused(delta: Path, model_folder: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(model_folder, tmp_path / "other"))
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    with pytest.raises(DeltaError, match="9 tensors are in one of them only"):
        apply_delta(other, delta, tmp_path / "applied")


def rewritten(file: Path, metadata: dict[str, str], tensors: dict[str, torch.Tensor] | None = None) -> None:
    with safe_open(file, "pt") as content:
        kept = {**content.metadata(), **metadata}
    save_file({**load_file(file), **(tensors or {})}, file, kept)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda file: file.write_bytes(b"\x80\x04pickle" * 9), "not a safetensors file"),
        (lambda file: file.write_bytes(file.read_bytes()[:-100]), "not a safetensors file"),
        (lambda file: save_file({"w": torch.ones(1)}, file), "is not a delta"),
        (lambda file: rewritten(file, {"version": "2"}), "version '2'"),
        (lambda file: rewritten(file, {"base_sha256": "[1, 2"}), "do not identify its base"),
        (lambda file: rewritten(file, {"base_sha256": "{}"}), "29 tensors are in one of them only"),
        (lambda file: rewritten(file, {}, {"stranger": torch.ones(1)}), "stranger matches no tensor"),
        (lambda file: rewritten(file, {}, {EMBEDDING: torch.ones(2, 2)}), "matches no tensor"),
    ],
)
def test_an_invalid_delta_file_is_refused_and_nothing_is_written(
    delta: Path, model_folder: Path, tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(delta)
    with pytest.raises(DeltaError, match=message):
        apply_delta(model_folder, delta, tmp_path / "applied")
    assert [path.name for path in tmp_path.iterdir()] == [DELTA_FILE_NAME]
