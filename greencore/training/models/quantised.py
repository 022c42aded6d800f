"""Detection of quantised weights in a model folder, which cannot be trained."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open

# In config.json, of the model or of a component; MLX writes "quantization".
QUANTISATION_FIELDS = ("quantization_config", "compression_config", "quantization")
# Files of tools that do not set a field in config.json.
QUANTISATION_FILES = {"quantize_config.json": "gptq", "quant_config.json": "awq", "hf_quant_config.json": "modelopt"}
FLOAT_DTYPES = {"F64", "F32", "F16", "BF16"}
PACKED_TENSOR_NAMES = {"qweight", "qzeros", "weight_packed", "weight_scale", "weight_scale_inv", "weight_blocks", "SCB"}


def detect_quantisation(folder: Path) -> str | None:
    """Return how the weights in a folder are quantised, for a message; None for floating-point weights.

    Detected from the configuration, from a file of the quantising tool, or from the tensors' types and names.
    """
    config = folder / "config.json"
    if config.is_file():
        for method in _configured(json.loads(config.read_text())):
            return method
    for name, method in QUANTISATION_FILES.items():
        if (folder / name).is_file():
            return f"{method}, by {name}"
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as weights:
            for name in weights.keys():  # noqa: SIM118 (not a mapping)
                kind, last = weights.get_slice(name).get_dtype(), name.rpartition(".")[2]
                if last in PACKED_TENSOR_NAMES or (last == "weight" and kind not in FLOAT_DTYPES):
                    return f"{name} in {file.name} has the type {kind}"
    return None


def _configured(config: Any, depth: int = 0) -> Iterator[str]:
    if not isinstance(config, Mapping) or depth > 2:
        return
    for field in QUANTISATION_FIELDS:
        if isinstance(found := config.get(field), Mapping) and found:
            yield _method(found)
    for part in config.values():
        yield from _configured(part, depth + 1)


def _method(settings: Mapping[str, Any]) -> str:
    bits = next((settings[name] for name in ("bits", "w_bit") if isinstance(settings.get(name), int)), None)
    if settings.get("load_in_4bit") or settings.get("load_in_8bit"):
        bits = 4 if settings.get("load_in_4bit") else 8
    name = str(settings.get("quant_method") or ("bitsandbytes" if "load_in_4bit" in settings else "unnamed method"))
    return name if bits is None else f"{name}, {bits} bits"
