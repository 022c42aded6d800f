"""Delta of a result from its base model: the changed tensors, applied to the base bit by bit."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from greencore.training.data.target_language import configure_target_language
from greencore.training.models.loading import load_model, load_tokenizer
from greencore.training.models.weights import named_tensors

DELTA_FILE_NAME = "delta.safetensors"
FORMAT = "greentune-delta"
VERSION = "1"


class DeltaError(ValueError):
    """A file is not a delta, or not of this base; the message says what was found and expected."""


def write_delta(model: PreTrainedModel, base_folder: Path, file: Path, *, base_name: str) -> None:
    """Write the tensors of `model` that differ in any bit from those in `base_folder`.

    Of weights in half precision, those in which they differ from the base rounded to that. Tied tensors are written
    once. The file's metadata hold `base_name`, the weights' type, the end-of-text tokens, and the SHA-256 of every
    tensor of the base in full precision, unchanged ones included. Needs the memory of a second model.
    """
    base = named_tensors(load_model(base_folder))
    changed = {}
    for name, tensor in named_tensors(model).items():
        now = tensor.detach().cpu().contiguous()
        if not torch.equal(_bits(now), _bits(base[name].to(now.dtype))):
            changed[name] = now
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "base_model": base_name,
        "dtype": str(model.dtype).removeprefix("torch."),
        "end_token_ids": json.dumps(model.generation_config.eos_token_id),
        "base_sha256": json.dumps({name: _digest(tensor) for name, tensor in base.items()}),
    }
    save_file(changed, file, metadata)


def apply_delta(base_folder: Path, file: Path, output: Path) -> Path:
    """Apply a delta to its base, and write the model with the base's tokenizer to the new folder `output`.

    The weights are bit by bit those of the full result. Raises `DeltaError` where the file is not a delta of this
    base; then `output` is not created.
    """
    changed, metadata = _read(file)
    model, tokenizer = load_model(base_folder), load_tokenizer(base_folder)
    _check_base(named_tensors(model), metadata, base_folder)
    if (dtype := _read_dtype(metadata)) != model.dtype:
        model = load_model(base_folder, dtype)
    base = named_tensors(model)
    _check_changed(base, changed)
    with torch.no_grad():
        for name, tensor in changed.items():
            base[name].copy_(tensor)  # in place, so that tied tensors stay tied
    if "end_token_ids" in metadata:
        model.generation_config.eos_token_id = json.loads(metadata["end_token_ids"])
    configure_target_language(model, tokenizer)
    return write_model_folder(model, tokenizer, output)


def write_model_folder(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, output: Path) -> Path:
    """Write a model and its tokenizer to the new folder `output`, which is complete or absent."""
    output.parent.mkdir(parents=True, exist_ok=True)
    working = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
        model.save_pretrained(working)
        tokenizer.save_pretrained(working)
        working.chmod(0o755)
        working.rename(output)
    finally:
        shutil.rmtree(working, ignore_errors=True)
    return output


def _read(file: Path) -> tuple[dict[str, torch.Tensor], Mapping[str, str]]:
    try:
        with safe_open(file, "pt") as content:
            metadata = content.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise DeltaError(f"{file} is not a delta: expected a file written by a run with result=delta")
            if metadata.get("version") != VERSION:
                raise DeltaError(
                    f"{file} is a delta of version {metadata.get('version')!r}: this GreenTune reads {VERSION!r}"
                )
            return {name: content.get_tensor(name) for name in content.keys()}, metadata  # noqa: SIM118
    except SafetensorError as error:
        raise DeltaError(f"{file} is not a safetensors file: {error}") from error


def _read_dtype(metadata: Mapping[str, str]) -> torch.dtype:
    """Return the type of the result's weights, float32 in a delta of an earlier version. Raises `DeltaError`."""
    found = getattr(torch, metadata.get("dtype", "float32"), None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise DeltaError(
            f"the delta's weights are of the unknown type {metadata['dtype']!r}: the file has been changed"
        )
    return found


def _check_base(base: Mapping[str, torch.Tensor], metadata: Mapping[str, str], folder: Path) -> None:
    """Raise `DeltaError` where the delta is of another base, by the checksum of each tensor."""
    name = metadata.get("base_model")
    another = f"{folder} is not the base of this delta, which is {name!r}"
    try:
        expected = dict(json.loads(metadata["base_sha256"]))
    except (KeyError, ValueError, TypeError) as error:
        raise DeltaError("the delta's metadata do not identify its base: the file has been changed") from error
    if strangers := sorted(set(expected) ^ set(base)):
        raise DeltaError(f"{another}: {len(strangers)} tensors are in one of them only, such as {strangers[0]}")
    if differing := [key for key, tensor in base.items() if _digest(tensor) != expected[key]]:
        raise DeltaError(f"{another}: {len(differing)} of its {len(base)} tensors differ, such as {differing[0]}")


def _check_changed(base: Mapping[str, torch.Tensor], changed: Mapping[str, torch.Tensor]) -> None:
    """Raise `DeltaError` for a changed tensor that the base, as loaded for the result, does not have."""
    for key, tensor in changed.items():
        if key not in base or (tensor.shape, tensor.dtype) != (base[key].shape, base[key].dtype):
            raise DeltaError(f"the delta's {key} matches no tensor of the base: the file has been changed")


def _digest(tensor: torch.Tensor) -> str:
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
    digest.update(_bits(tensor.cpu()).numpy().tobytes())
    return digest.hexdigest()


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor's bytes, because as numbers 0.0 equals -0.0, and NaN differs from itself."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)
