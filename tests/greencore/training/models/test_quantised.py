"""A folder of quantised weights is refused before loading, with a message that says what to use instead."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from greencore.training.models.loading import ModelError, load_meta_model, load_model, resolve_model_folder

pytestmark = pytest.mark.fault(number=9)

SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "bitsandbytes 4 bit": (
        {"quantization_config": {"load_in_4bit": True, "load_in_8bit": False, "quant_method": "bitsandbytes"}},
        "bitsandbytes, 4 bits",
    ),
    "bitsandbytes unnamed": ({"quantization_config": {"load_in_8bit": True, "load_in_4bit": False}}, "bitsandbytes, 8"),
    "GPTQ": ({"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}}, "gptq, 4 bits"),
    "AWQ": ({"quantization_config": {"quant_method": "awq", "bits": 4, "version": "gemm"}}, "awq, 4 bits"),
    "compressed-tensors": ({"quantization_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors"),
    "compressed-tensors, as it was": (
        {"compression_config": {"quant_method": "compressed-tensors"}},
        "compressed-tens",
    ),
    "fp8": ({"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}, "fp8"),
    "mxfp4": ({"quantization_config": {"quant_method": "mxfp4"}}, "mxfp4"),
    "exl2": ({"quantization_config": {"quant_method": "exl2", "bits": 4.5}}, "exl2"),
    "modelopt": ({"quantization_config": {"quant_method": "modelopt", "quant_algo": "FP8"}}, "modelopt"),
    "MLX": ({"quantization": {"group_size": 64, "bits": 4}}, "4 bits"),
    "of the text part": ({"text_config": {"quantization_config": {"quant_method": "torchao"}}}, "torchao"),
}


def refused(folder: Path, tmp_path: Path, why: str) -> None:
    """Check that every use of the folder raises the same error."""
    for use in (lambda: resolve_model_folder(str(folder), tmp_path / "models"), lambda: load_meta_model(folder)):
        with pytest.raises(ModelError) as error:
            use()
        assert str(folder) in str(error.value)
        assert "quantised" in str(error.value)
        assert why in str(error.value)
        assert "float32, float16 or bfloat16" in str(error.value)
    with pytest.raises(ModelError, match="quantised"):
        load_model(folder)


@pytest.mark.parametrize("tool", SETTINGS)
def test_a_configuration_that_names_a_quantisation_is_refused(tool: str, copy: Path, tmp_path: Path) -> None:
    settings, why = SETTINGS[tool]
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | settings))
    refused(copy, tmp_path, why)


@pytest.mark.parametrize("file", ["quantize_config.json", "quant_config.json", "hf_quant_config.json"])
def test_a_folder_with_a_quantising_tools_file_is_refused(file: str, copy: Path, tmp_path: Path) -> None:
    (copy / file).write_text("{}")
    refused(copy, tmp_path, file)


@pytest.mark.parametrize(
    ("suffix", "dtype"), [("weight", torch.float8_e4m3fn), ("weight", torch.int8), ("qweight", torch.int32)]
)
def test_quantised_tensors_are_refused_with_any_configuration(
    suffix: str, dtype: torch.dtype, copy: Path, tmp_path: Path
) -> None:
    weights = load_file(copy / "model.safetensors")
    name = next(name for name in weights if name.endswith("q_proj.weight"))
    weights[name.removesuffix("weight") + suffix] = weights.pop(name).to(dtype)
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    refused(copy, tmp_path, str(dtype).removeprefix("torch.").replace("float", "f").replace("int", "i")[0].upper())


@pytest.mark.parametrize("settings", [{}, {"quantization_config": None}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_unquantised_weights_of_any_float_type_are_accepted(
    settings: dict[str, Any], dtype: torch.dtype, copy: Path
) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | settings))
    weights = {name: tensor.to(dtype) for name, tensor in load_file(copy / "model.safetensors").items()}
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    assert resolve_model_folder(str(copy), copy / "none") == copy
    assert load_model(copy).dtype == torch.float32
